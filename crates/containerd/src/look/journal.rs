//! What the journal holds of a unit's last minutes: how often systemd restarted it, and what it died of.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::deadline::ask;

/// How far back is looked.
pub(super) const WINDOW: Duration = Duration::from_secs(600);
/// The most lines of the unit that are read: a panic of containerd prints some hundred.
const LINES: &str = "3000";
/// The most that journalctl may say, in bytes.
const LIMIT: usize = 8 << 20;
/// How many lines behind a panic are looked at for whose it is.
const STACK: usize = 60;
/// The most of a line that is repeated, in characters.
const WORDS: usize = 240;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    /// How often systemd restarted the unit within [`WINDOW`].
    pub(super) restarts: usize,
    /// What it died of within it, each once, the newest first.
    pub(super) deaths: Vec<Death>,
}

/// A cause of death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) cause: Cause,
    /// The line that tells it, without the time.
    pub(super) line: String,
    /// How often.
    pub(super) times: usize,
}

/// What kind of death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A panic, or a fault of memory, in bbolt.
    Database,
    /// Another panic.
    Panic,
    /// containerd gave up with `level=fatal`.
    Fatal,
    /// It came up without a plugin that Kubernetes needs. containerd does so, and only warns, if `meta.db` is no database
    /// (seen with 1.6.20).
    Plugin,
    /// systemd ended it, as it took too long to start or to stop.
    Timeout,
    /// The kernel or systemd-oomd killed it.
    Memory,
}

/// Asks journalctl. Needs no journal that outlives a boot.
///
/// # Errors
/// Why nothing can be said, in words. A journal without a line of the unit is one.
pub(super) fn read(unit: &str, deadline: Duration) -> Result<Journal, String> {
    let unit = format!("--unit={unit}");
    let since = format!("--since=-{}s", WINDOW.as_secs());
    let common = [
        "--output=json",
        "--no-pager",
        "--quiet",
        since.as_str(),
        unit.as_str(),
    ];
    let of_systemd = lines([&common[..], &["--lines=1000", "_PID=1"]].concat(), deadline)?;
    let of_unit = lines([&common[..], &["--lines", LINES]].concat(), deadline)?;
    if of_systemd.is_empty() && of_unit.is_empty() {
        // That is no proof of calm: systemd itself says something whenever it starts a unit.
        return Err("it has no line of the unit in that time".to_owned());
    }
    Ok(Journal {
        restarts: of_systemd.iter().filter(|line| is_restart(&line.message)).count(),
        deaths: deaths(&of_unit),
    })
}

fn lines(arguments: Vec<&str>, deadline: Duration) -> Result<Vec<Line>, String> {
    let said = ask("journalctl", &arguments, deadline, LIMIT).map_err(|error| error.to_string())?;
    if !said.status.success() && !said.cut {
        return Err(format!("journalctl: {}: {}", said.status, said.stderr));
    }
    Ok(parse(&said.stdout))
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    message: String,
    pid: String,
}

/// What of an entry is looked at (systemd.journal-fields(7)).
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "_PID", default)]
    pid: Value,
}

/// One entry a line, oldest first. A line that is no entry (the last one, if it was cut) is left out.
fn parse(text: &[u8]) -> Vec<Line> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Entry>(line).ok())
        .map(|entry| Line {
            message: message(&entry.message),
            pid: entry.pid.as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Text; or bytes, if it is no UTF-8 or has characters that no terminal shows; or nothing, if it is too long for JSON
/// (journalctl(1), `--output=json`).
fn message(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes = bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok());
            String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// systemd 235 and on, and before (CentOS 7's 219).
fn is_restart(message: &str) -> bool {
    message.contains("Scheduled restart job, restart counter is at")
        || message.contains("holdoff time over, scheduling restart")
}

fn deaths(lines: &[Line]) -> Vec<Death> {
    let mut deaths: Vec<Death> = Vec::new();
    let mut dying: Option<&str> = None;
    for (at, line) in lines.iter().enumerate().rev() {
        // A panic that was caught and thrown again is told twice.
        let again = dying == Some(line.pid.as_str());
        let Some(cause) = cause(line, lines.get(at + 1..).unwrap_or_default()) else {
            continue;
        };
        let text = shortened(&line.message);
        if again && matches!(cause, Cause::Panic | Cause::Database) {
            continue;
        }
        dying = matches!(cause, Cause::Panic | Cause::Database).then_some(line.pid.as_str());
        match deaths
            .iter_mut()
            .find(|death| death.cause == cause && alike(&death.line, &text))
        {
            Some(death) => death.times += 1,
            None => deaths.push(Death {
                cause,
                line: text,
                times: 1,
            }),
        }
    }
    deaths
}

fn cause(line: &Line, behind: &[Line]) -> Option<Cause> {
    let text = line.message.as_str();
    let starts = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
    if starts(&["panic: ", "fatal error: ", "unexpected fault address "]) {
        let mut stack = behind.iter().filter(|other| other.pid == line.pid).take(STACK);
        let in_bbolt = |text: &str| {
            text.contains("go.etcd.io/bbolt") || text.contains("boltdb/bolt") || text.contains("coreos/bbolt")
        };
        let known = DATABASE.iter().any(|known| text.contains(known));
        return Some(match known || stack.any(|line| in_bbolt(&line.message)) {
            true => Cause::Database,
            false => Cause::Panic,
        });
    }
    if text.contains("level=fatal") || text.contains("\"level\":\"fatal\"") {
        return Some(Cause::Fatal);
    }
    if text.contains("failed to load plugin") && NEEDED.iter().any(|plugin| text.contains(plugin)) {
        return Some(Cause::Plugin);
    }
    if text.contains("start operation timed out") || text.contains("stop-sigterm' timed out") {
        return Some(Cause::Timeout);
    }
    let of_systemd = line.pid == "1";
    (of_systemd
        && (text.contains("Failed with result 'oom-kill'") || text.contains("killed by the OOM killer")))
    .then_some(Cause::Memory)
}

/// Plugins without which there is no pod: the metadata, and the CRI in its forms. Up to 1.7 their name is in the message,
/// and from 2.0 on beside it (`id=…`).
const NEEDED: [&str; 4] = [
    "io.containerd.metadata.v1.bolt",
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
];

/// What bbolt panics with: containerd#3347, #4838, #9929, moby#37238, bbolt#135, #705, #883.
const DATABASE: [&str; 8] = [
    "freepages: failed to get all reachable pages",
    "invalid freelist page",
    "invalid page type",
    "already freed",
    "Page expected to be",
    "above high water mark",
    "page flags",
    "bolt",
];

/// Without containerd's time, which makes every line another one.
fn shortened(message: &str) -> String {
    let text = match message.strip_prefix("time=\"") {
        Some(rest) => rest.split_once("\" ").map_or(message, |(_, rest)| rest),
        None => message,
    };
    let text = text.lines().next().unwrap_or_default();
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Alike but for the numbers in them: a page, an address.
fn alike(one: &str, other: &str) -> bool {
    let bare = |text: &str| -> String { text.chars().filter(|c| !c.is_ascii_digit()).collect() };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            let (pid, message) = line.split_once(' ').unwrap();
            lines.push(Line {
                pid: pid.into(),
                message: message.into(),
            });
        }
        lines
    }

    fn told(text: &str) -> Vec<(Cause, usize, String)> {
        let found = deaths(&lines(text)).into_iter();
        found
            .map(|death| (death.cause, death.times, death.line))
            .collect()
    }

    /// containerd#9929, containerd 1.7.6 after a power loss.
    const POWER_LOSS: &str = "
        2440692 panic: assertion failed: Page expected to be: 3393, but self identifies as 6868074383292906018
        2440692 goroutine 99 [running]:
        2440692 go.etcd.io/bbolt._assert(...)
        2440692 \t/root/rpmbuild/BUILD/containerd.io-1.7.6/_build/src/github.com/containerd/containerd/vendor/go.etcd.io/bbolt/db.go:1359
        1 containerd.service: Main process exited, code=exited, status=2/INVALIDARGUMENT
        2440700 panic: assertion failed: Page expected to be: 3401, but self identifies as 7
        2440700 goroutine 31 [running]:
        2440700 go.etcd.io/bbolt.(*page).fastCheck(0x7fce74d41000, 0xd41)";

    #[test]
    fn panics_of_the_database_are_counted_whatever_page_they_name() {
        let found = told(POWER_LOSS);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (Cause::Database, 2));
        assert!(
            found[0]
                .2
                .starts_with("panic: assertion failed: Page expected to be: 3401")
        );
    }

    #[test]
    fn known_panics_of_four_generations_are_the_database_s() {
        for text in [
            // containerd#3347, containerd 1.2.5.
            "11995 panic: invalid page type: 4: 10",
            // bbolt#135.
            "9 panic: invalid freelist page: 0, page type is meta [recovered]\n9 panic: invalid freelist page: 0, page type is meta",
            // bbolt#883, docker's containerd.
            "28614 panic: freepages: failed to get all reachable pages (page 190: multiple references)",
            // containerd#5797.
            "24 panic: runtime error: slice bounds out of range [::2407710372] with length 2147483647\n24 goroutine 24 [running]:\n\
             24 github.com/containerd/containerd/vendor/go.etcd.io/bbolt.unsafeByteSlice(...)",
            // A page of the map that cannot be read: a bad disk, a cut file.
            "8 unexpected fault address 0x7f8a70d41000\n8 fatal error: fault\n8 [signal SIGBUS: bus error]\n8 goroutine 1 [running]:\n\
             8 go.etcd.io/bbolt.(*Cursor).search(0xc4201195f8)",
        ] {
            let found = told(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!((found[0].0, found[0].1), (Cause::Database, 1), "{text}");
        }
    }

    #[test]
    fn another_panic_is_not_blamed_on_the_database() {
        let found = told(
            "7 panic: runtime error: invalid memory address or nil pointer dereference\n7 goroutine 1 [running]:\n\
                          8 go.etcd.io/bbolt.(*DB).Update",
        );
        assert_eq!(found[0].0, Cause::Panic);
    }

    #[test]
    fn a_fatal_line_is_told_without_its_time() {
        // containerd#10848 and #7247: the CRI cannot take up what it finds.
        let found = told(
            "40100 time=\"2024-10-17T13:46:12.015677461Z\" level=info msg=serving... address=/run/containerd/containerd.sock\n\
             40100 time=\"2024-10-17T13:46:12.062483416Z\" level=fatal msg=\"Failed to run CRI service\" error=\"failed to recover state: not found\"\n\
             40200 time=\"2024-10-17T13:46:18.062483416Z\" level=fatal msg=\"Failed to run CRI service\" error=\"failed to recover state: not found\"",
        );
        let wanted =
            "level=fatal msg=\"Failed to run CRI service\" error=\"failed to recover state: not found\"";
        assert_eq!(found, [(Cause::Fatal, 2, wanted.to_owned())]);
    }

    #[test]
    fn a_containerd_that_came_up_without_its_database_says_so_in_a_warning() {
        let found = told(
            "7 time=\"2026-11-21T13:48:17.817166014Z\" level=warning msg=\"failed to load plugin io.containerd.metadata.v1.bolt\" error=\"invalid database\"\n\
             7 time=\"2026-11-21T13:48:17.817210000Z\" level=warning msg=\"failed to load plugin io.containerd.snapshotter.v1.zfs\" error=\"skip\"\n\
             8 time=\"2026-11-21T13:48:19.100000000Z\" level=warning msg=\"failed to load plugin\" error=\"invalid database\" id=io.containerd.metadata.v1.bolt type=io.containerd.metadata.v1",
        );
        let causes: Vec<_> = found.iter().map(|(cause, times, _)| (*cause, *times)).collect();
        assert_eq!(causes, [(Cause::Plugin, 1), (Cause::Plugin, 1)]);
    }

    #[test]
    fn a_start_that_takes_too_long_is_told() {
        // containerd#7037: 1.5.10.
        let found = told(
            "1 containerd.service: start operation timed out. Terminating.\n1 containerd.service: State 'stop-sigterm' timed out. Killing.",
        );
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|death| death.0 == Cause::Timeout));
        assert_eq!(
            told("1 containerd.service: Failed with result 'oom-kill'.")[0].0,
            Cause::Memory
        );
        assert!(told("7 time=\"x\" level=error msg=\"start operation failed\"").is_empty());
    }

    #[test]
    fn restarts_are_counted_of_old_and_new_systemd() {
        assert!(is_restart(
            "containerd.service holdoff time over, scheduling restart."
        ));
        assert!(is_restart(
            "containerd.service: Scheduled restart job, restart counter is at 7."
        ));
        assert!(
            is_restart("containerd.service: Service RestartSec=5s expired, scheduling restart.")
                != is_restart("containerd.service: Scheduled restart job, restart counter is at 1.")
        );
        assert!(!is_restart("Started containerd container runtime."));
    }

    #[test]
    fn entries_are_read_whatever_form_their_message_has() {
        let text = br#"{"MESSAGE":"panic: x","_PID":"7","PRIORITY":"6"}
{"MESSAGE":[112,97,110,27,255],"_PID":"8"}
{"MESSAGE":null,"_PID":"9"}
{"MESSAGE":"cut"#;
        let found = parse(text);
        assert_eq!(found.len(), 3);
        assert_eq!(
            (found[0].message.as_str(), found[0].pid.as_str()),
            ("panic: x", "7")
        );
        assert_eq!(found[1].message, "pan\u{1b}\u{fffd}");
        assert_eq!(found[2].message, "");
    }
}
