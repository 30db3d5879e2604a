//! Who keeps a mount busy, in words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// How long all processes together may take: a read of one that is stuck does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are named.
const NAMED: usize = 5;

/// The processes that hold something on a mount; "nobody that can be seen" if it cannot be told.
pub(crate) fn of(path: &Path, mount: u64) -> String {
    let (tell, told) = mpsc::channel();
    let place = path.to_owned();
    let ask = move || {
        for pid in numbers("/proc") {
            if let Some(said) = of_process(pid, &place, mount) {
                let _ = tell.send(said);
            }
        }
    };
    let thread = std::thread::Builder::new().name("holders".into()).spawn(ask);
    let mut words = Vec::new();
    if thread.is_ok() {
        while words.len() < NAMED {
            match told.recv_timeout(PATIENCE) {
                Ok(said) => words.push(said),
                Err(_) => break,
            }
        }
    }
    match words.is_empty() {
        true => "nobody that can be seen".to_owned(),
        false => words.join(", "),
    }
}

fn of_process(pid: u32, path: &Path, mount: u64) -> Option<String> {
    let by = ["cwd", "root", "exe"]
        .into_iter()
        .find(|link| target(pid, link).is_some_and(|target| target.starts_with(path)))
        .map(str::to_owned)
        .or_else(|| by_file(pid, path, mount))
        .or_else(|| by_mapping(pid, path))?;
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let comm = String::from_utf8_lossy(&comm);
    Some(format!("process {pid} ({}) by its {by}", comm.trim_end()))
}

/// The path is that of the process's own namespace; the mount id is not.
fn by_file(pid: u32, path: &Path, mount: u64) -> Option<String> {
    let on_it = |fd: &u32| {
        target(pid, &format!("fd/{fd}")).is_some_and(|target| target.starts_with(path))
            || mount_of(pid, *fd) == Some(mount)
    };
    let fd = numbers(&format!("/proc/{pid}/fd")).into_iter().find(on_it)?;
    Some(format!("open file {fd}"))
}

fn by_mapping(pid: u32, path: &Path) -> Option<String> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let mut names = maps
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.splitn(6, |&byte| byte == b' ').nth(5));
    let below = |name: &[u8]| Path::new(OsStr::from_bytes(name.trim_ascii_start())).starts_with(path);
    names.any(below).then(|| "memory".to_owned())
}

fn target(pid: u32, link: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/{link}")).ok()
}

fn mount_of(pid: u32, fd: u32) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

fn numbers(dir: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
