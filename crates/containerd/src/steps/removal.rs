//! The removal of the old root in the background: launched, watched, and what came of it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nodemend_hostfs::StateDir;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::aside::{Place, find_old};
use super::likeness::open_dir;
use crate::error::Error;
use crate::identity::RootId;
use crate::options::Options;
use crate::state::{Course, Run};

/// systemd runs the machine if this is there (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// How long the removal may take to show that it is at work.
const PATIENCE: Duration = Duration::from_secs(10);

/// The end of the progress that is read, in bytes.
const TAIL: u64 = 4096;

/// How far the removal of the old root is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Removal {
    /// It was not begun.
    NotBegun,
    /// It is at work.
    Running {
        /// The process.
        pid: u32,
        /// The last line of its progress, as `mend-rm --progress json` writes it.
        progress: Option<Value>,
    },
    /// It was refused: something uses the old root. Nothing of it was removed.
    Refused {
        /// Each reason, with what to do.
        why: Vec<String>,
    },
    /// It ended, and something is left.
    Stopped {
        /// The state that the report has of it, or how it ended without one.
        how: String,
    },
    /// The old root is gone.
    Gone,
}

/// Where the removal of a run writes.
#[derive(Clone, Debug)]
pub struct RemovalFiles {
    /// A line of JSON about once a second.
    pub progress: PathBuf,
    /// The report, once it has ended.
    pub report: PathBuf,
}

impl RemovalFiles {
    /// Of a run.
    pub fn of(state: &StateDir, run: &Run) -> Self {
        let at = |suffix: &str| {
            state
                .path()
                .join(format!("containerd-removal-{}.{suffix}", run.id))
        };
        Self {
            progress: at("progress"),
            report: at("json"),
        }
    }
}

/// How far the removal of a run's old root is.
///
/// # Errors
/// If it cannot be told where the old root is.
pub fn removal(run: &Run, state: &StateDir, same_boot: bool) -> Result<Removal, Error> {
    let Some(aside) = aside(run, same_boot)? else {
        let forward = matches!(run.course, Course::Forward | Course::Mended);
        return Ok(match forward && run.is_done(crate::Step::Remove) {
            true => Removal::Gone,
            false => Removal::NotBegun,
        });
    };
    let files = RemovalFiles::of(state, run);
    if let Some(pid) = lock_holder(&aside)? {
        let progress = last_line(&files.progress);
        return Ok(Removal::Running { pid, progress });
    }
    Ok(match report(&files.report) {
        Some(Value::String(how)) => Removal::Stopped { how },
        Some(item) => of_item(&item),
        None if files.progress.exists() => Removal::Stopped {
            how: "ended without a report".to_owned(),
        },
        None => Removal::NotBegun,
    })
}

fn aside(run: &Run, same_boot: bool) -> Result<Option<PathBuf>, Error> {
    if run.root.own_mount {
        // The aside directory is another one than the root, and was noted when it was made.
        return Ok(run.aside.clone().filter(|path| path.symlink_metadata().is_ok()));
    }
    Ok(match find_old(run, same_boot)? {
        Place::Aside(aside) => Some(aside.tree.path().to_owned()),
        Place::Home | Place::Nowhere => None,
    })
}

fn of_item(item: &Value) -> Removal {
    let how = item["state"].as_str().unwrap_or("unknown").to_owned();
    if how != "refused" {
        return Removal::Stopped { how };
    }
    let refusals = item["refusals"].as_array().cloned().unwrap_or_default();
    let words = |refusal: &Value| {
        let of = |key: &str| refusal[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", of("detail"), of("help"))
    };
    Removal::Refused {
        why: refusals.iter().map(words).collect(),
    }
}

/// The one item of the report of `mend-rm`, or what is wrong with it.
fn report(path: &Path) -> Option<Value> {
    let bytes = fs::read(path).ok()?;
    let report: Option<Value> = serde_json::from_slice(&bytes).ok();
    let item = report.and_then(|report| report["items"].get(0).cloned());
    Some(item.unwrap_or_else(|| Value::String("ended with a report that cannot be read".to_owned())))
}

/// The process that has locked a directory, by /proc/locks (proc(5)): a lock of our own would be in its way.
fn lock_holder(path: &Path) -> Result<Option<u32>, Error> {
    let Some(id) = RootId::at(path)? else {
        return Ok(None);
    };
    let dev = format!(
        "{:02x}:{:02x}:{}",
        rustix::fs::major(id.dev),
        rustix::fs::minor(id.dev),
        id.ino
    );
    let locks = fs::read_to_string("/proc/locks").map_err(Error::io("read", "/proc/locks"))?;
    let holder = locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, _, access) = (fields.next()?, fields.next()?, fields.next()?);
        let (pid, file) = (fields.next()?, fields.next()?);
        (kind == "FLOCK" && access == "WRITE" && file == dev).then(|| pid.parse().ok())?
    });
    Ok(holder)
}

/// Whether a directory was set aside by this toolkit: nothing else of an old root's name may be removed.
///
/// # Errors
/// If the directory above it cannot be read.
pub fn is_set_aside(path: &Path) -> Result<bool, Error> {
    let Some(parent) = path.parent() else {
        return Ok(false);
    };
    let found = nodemend_rmtree::find(parent)?.trees;
    Ok(found.iter().any(|aside| aside.tree.path() == path))
}

/// Locks an old root, as its removal does. What is gone by now needs no lock.
pub(crate) fn lock(path: &Path) -> Result<Option<File>, Error> {
    let Some(_there) = RootId::at(path)? else {
        return Ok(None);
    };
    let dir = File::from(open_dir(path)?);
    match dir.try_lock() {
        Ok(()) => Ok(Some(dir)),
        Err(TryLockError::WouldBlock) => Err(Error::Unfit(format!(
            "{}: somebody removes it at this moment",
            path.display()
        ))),
        // A file system that knows no locks keeps nobody from anything.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn last_line(path: &Path) -> Option<Value> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = String::new();
    file.read_to_string(&mut tail).ok()?;
    tail.lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
}

/// Starts the removal, unless it is at work or done.
pub(crate) fn launch(
    run: &Run,
    options: &Options,
    state: &StateDir,
    same_boot: bool,
) -> Result<Vec<String>, Error> {
    let files = RemovalFiles::of(state, run);
    let Some(aside) = aside(run, same_boot)? else {
        return Ok(vec!["the old root is gone".to_owned()]);
    };
    if lock_holder(&aside)?.is_some() {
        return Ok(vec![format!("{} is being removed", aside.display())]);
    }
    let _ = fs::remove_file(&files.report);
    let how = begin(run, options)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match removal(run, state, same_boot)? {
            Removal::Running { .. } => {
                return Ok(vec![format!("{} is being removed {how}", aside.display())]);
            }
            Removal::Gone => return Ok(vec!["the old root is gone".to_owned()]),
            Removal::Refused { why } => {
                let first = format!("{} stays for now, as something uses it", aside.display());
                return Ok(std::iter::once(first).chain(why).collect());
            }
            Removal::NotBegun | Removal::Stopped { .. } if aside.symlink_metadata().is_err() => {
                return Ok(vec!["the old root is gone".to_owned()]);
            }
            Removal::NotBegun | Removal::Stopped { .. } if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Removal::NotBegun | Removal::Stopped { .. } => {
                return Err(Error::Unfit(format!(
                    "the removal of {} was started {how}, and is not at work; see {}",
                    aside.display(),
                    files.progress.display()
                )));
            }
        }
    }
}

/// In a transient unit where there is systemd: it outlives the session, and its weight is low. Else as a process of its own.
fn begin(run: &Run, options: &Options) -> Result<String, Error> {
    let Some((program, arguments)) = options.remover.split_first() else {
        return Err(Error::Unfit("nobody was named to remove the old root".to_owned()));
    };
    if Path::new(BOOTED).is_dir() {
        // A unit that failed keeps its name, so each try has its own.
        let unit = format!("nodemend-containerd-{}-{}", run.id, std::process::id());
        // Older systemds do not know the weights (before 230 and 232); they do without.
        for weights in [&["CPUWeight=20", "IOWeight=20"][..], &[]] {
            let mut command = Command::new("systemd-run");
            command.args([
                "--unit",
                &unit,
                "--description",
                "Removal of containerd's old root",
            ]);
            for weight in weights {
                command.args(["--property", weight]);
            }
            command.arg("--").arg(program).args(arguments);
            command.stdin(Stdio::null());
            if command.output().is_ok_and(|output| output.status.success()) {
                return Ok(format!("by the unit {unit}"));
            }
        }
    }
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::Command {
            command: program.to_string_lossy().into_owned(),
            reason: source.to_string(),
        })?;
    Ok(format!("by process {}", child.id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_the_lock_of_a_directory_is_seen_without_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lock_holder(dir.path()).unwrap(), None);
        let file = File::open(dir.path()).unwrap();
        file.lock().unwrap();
        assert_eq!(lock_holder(dir.path()).unwrap(), Some(std::process::id()));
    }

    #[test]
    fn a_refused_removal_says_why_and_what_to_do() {
        let item = serde_json::json!({
            "state": "refused",
            "refusals": [{"reason": "overlays", "detail": "overlays live from layers in it", "help": "end what runs in them"}],
        });
        let why = vec!["overlays live from layers in it: end what runs in them".to_owned()];
        assert_eq!(of_item(&item), Removal::Refused { why });
        let left = serde_json::json!({"state": "left"});
        let how = "left".to_owned();
        assert_eq!(of_item(&left), Removal::Stopped { how });
    }

    #[test]
    fn the_last_whole_line_of_the_progress_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress");
        fs::write(&path, "{\"a\":1}\n{\"a\":2}\nnot json {\"a\"").unwrap();
        assert_eq!(last_line(&path), Some(serde_json::json!({"a": 2})));
        assert_eq!(last_line(&dir.path().join("none")), None);
    }
}
