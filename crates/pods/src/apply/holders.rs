//! Who keeps something busy: processes, loop devices, swap.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deadline::within;
use super::namespaces::numbers;
use crate::error::Error;

/// How long all processes together may take: a read of one that is stuck does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are named.
const NAMED: usize = 5;

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) pid: u32,
    /// `cwd`, `root`, `exe`, `fd 7`, `a mapping`.
    pub(crate) by: String,
    pub(crate) path: PathBuf,
}

/// Who holds something below a path, in words; "nobody that can be seen" if it cannot be told.
pub(crate) fn of(path: &Path, mount: Option<u64>) -> String {
    let place = path.to_owned();
    let held = within(PATIENCE, move || holds(&place, mount));
    let mut words: Vec<String> = match held {
        Ok(Some(holds)) => holds.iter().map(said).collect(),
        Ok(None) | Err(_) => vec!["a process that did not let itself be looked at".to_owned()],
    };
    words.extend(backing(path));
    words.dedup();
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    match words.is_empty() {
        true => "nobody that can be seen".to_owned(),
        false => words.join(", "),
    }
}

fn said(hold: &Hold) -> String {
    let comm = std::fs::read(format!("/proc/{}/comm", hold.pid)).unwrap_or_default();
    let comm = String::from_utf8_lossy(&comm).trim_end().to_owned();
    format!(
        "process {} ({comm}) by its {} {}",
        hold.pid,
        hold.by,
        hold.path.display()
    )
}

/// Everything that processes hold below a path, or through a mount.
pub(crate) fn holds(path: &Path, mount: Option<u64>) -> Vec<Hold> {
    let mut holds = Vec::new();
    for pid in numbers("/proc").unwrap_or_default() {
        of_process(pid, path, mount, &mut holds);
    }
    holds
}

fn of_process(pid: u32, path: &Path, mount: Option<u64>, holds: &mut Vec<Hold>) {
    let mut add = |by: String, target: &Path| {
        let path = target.to_owned();
        holds.push(Hold { pid, by, path });
    };
    for by in ["cwd", "root", "exe"] {
        if let Ok(target) = std::fs::read_link(format!("/proc/{pid}/{by}"))
            && target.starts_with(path)
        {
            add(by.to_owned(), &target);
        }
    }
    for fd in numbers(&format!("/proc/{pid}/fd")).unwrap_or_default() {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
        // The path is that of the process's own namespace; the mount id is not.
        if target.starts_with(path) || (mount.is_some() && mount == mount_of_fd(pid, fd)) {
            add(format!("fd {fd}"), &target);
        }
    }
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.splitn(6, |&byte| byte == b' ').nth(5))
        .map(|name| Path::new(OsStr::from_bytes(name.trim_ascii_start())));
    if let Some(file) = mapped.into_iter().find(|file| file.starts_with(path)) {
        add("mapping of".to_owned(), file);
    }
}

fn mount_of_fd(pid: u32, fd: u32) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Loop devices and swap below a path.
fn backing(path: &Path) -> Vec<String> {
    let loops = super::loops::all().unwrap_or_default();
    let loops = loops
        .into_iter()
        .filter(|device| device.backing.starts_with(path))
        .map(|device| {
            format!(
                "{} by its backing file {}",
                device.node.display(),
                device.backing.display()
            )
        });
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    let swaps: Vec<String> = swaps
        .filter(|swap| Path::new(swap).starts_with(path))
        .map(|swap| format!("swap {swap}"))
        .collect();
    loops.chain(swaps).collect()
}

/// Every open file of every process, by its path: taken once for many questions.
pub(crate) fn open_files() -> Result<Option<Vec<Hold>>, Error> {
    within(PATIENCE, || {
        let mut open = Vec::new();
        for pid in numbers("/proc").unwrap_or_default() {
            for fd in numbers(&format!("/proc/{pid}/fd")).unwrap_or_default() {
                if let Ok(path) = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
                    let by = format!("fd {fd}");
                    open.push(Hold { pid, by, path });
                }
            }
        }
        open
    })
}
