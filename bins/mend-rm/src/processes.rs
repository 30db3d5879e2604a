//! The processes of this machine and the mount namespaces they are in, read from /proc without touching a file of theirs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_hostfs::{Error, Host};
use rustix::io::Errno;

use crate::overlays::{self, Overlay};
use crate::sight::leads_to;

/// The most of a mount table that is read, in bytes.
const TABLE: u64 = 128 << 20;

/// What one look at all processes gave.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) namespaces: Vec<Namespace>,
    /// The overlay mounts of all namespaces, each once.
    pub(crate) overlays: Vec<Overlay>,
    /// What could not be seen.
    pub(crate) unseen: Vec<String>,
    /// Processes that cannot even be named: any of them may be a container runtime.
    pub(crate) nameless: Vec<String>,
}

/// A mount namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Who is in it.
    pub(crate) processes: Vec<Process>,
    /// Its mounts.
    pub(crate) mounts: Vec<Mount>,
    /// Whether it is the one of this process.
    pub(crate) own: bool,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its name, from `comm`.
    pub(crate) name: String,
    /// The file name of its program, if that can be read.
    pub(crate) program: Option<String>,
}

/// What a process has in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Open files.
    pub(crate) files: usize,
    /// `working directory`, `root`, `program`.
    pub(crate) others: Vec<&'static str>,
    /// One of the paths.
    pub(crate) example: PathBuf,
    /// Why its open files cannot be seen.
    pub(crate) unseen: Option<String>,
}

impl Held {
    pub(crate) fn anything(&self) -> bool {
        self.files > 0 || !self.others.is_empty()
    }
}

/// Looks at every process but this one.
pub(crate) fn scan() -> anyhow::Result<Scan> {
    let mut scan = Scan::default();
    let mut by_namespace: BTreeMap<Vec<u8>, Vec<Process>> = BTreeMap::new();
    for pid in pids()? {
        let Some(process) = look(pid, &mut scan) else {
            continue;
        };
        match link(pid, "ns/mnt") {
            Ok(namespace) => by_namespace
                .entry(namespace.into_os_string().into_encoded_bytes())
                .or_default()
                .push(process),
            Err(errno) if is_gone(errno) => {}
            Err(errno) => scan.unseen.push(format!(
                "process {pid} ({}): its mount namespace: {errno}",
                process.name
            )),
        }
    }
    let own = link(std::process::id(), "ns/mnt").context("/proc/self/ns/mnt: cannot be read")?;
    // Nobody else may be in it.
    by_namespace
        .entry(own.as_os_str().as_bytes().to_vec())
        .or_default();
    for (namespace, processes) in by_namespace {
        let own = namespace == own.as_os_str().as_bytes();
        read_namespace(processes, own, &mut scan)?;
    }
    // The own namespace first: its paths are the reader's.
    scan.namespaces.sort_by_key(|namespace| !namespace.own);
    scan.overlays.sort_by_key(|overlay| !overlay.own);
    let mut known = std::collections::HashSet::new();
    scan.overlays.retain(|overlay| known.insert(overlay.dev));
    Ok(scan)
}

fn pids() -> anyhow::Result<Vec<u32>> {
    let names = Host::local()
        .list(Path::new("/proc"))
        .context("who uses the tree cannot be seen without /proc")?;
    let own = std::process::id();
    Ok(names
        .iter()
        .filter_map(|name| name.to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .collect())
}

fn look(pid: u32, scan: &mut Scan) -> Option<Process> {
    let name = match std::fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => String::from_utf8_lossy(name.trim_ascii_end()).into_owned(),
        Err(error) if is_gone(Errno::from_io_error(&error)?) => return None,
        Err(error) => {
            scan.nameless
                .push(format!("process {pid}: its name cannot be read: {error}"));
            return None;
        }
    };
    let program = link(pid, "exe").ok().and_then(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        // After an upgrade the program of a running process has no name any more.
        Some(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
    });
    Some(Process { pid, name, program })
}

fn read_namespace(processes: Vec<Process>, own: bool, scan: &mut Scan) -> anyhow::Result<()> {
    let viewers = if own {
        vec![std::process::id()]
    } else {
        processes.iter().map(|process| process.pid).collect()
    };
    for pid in viewers {
        let path = PathBuf::from(format!("/proc/{pid}/mountinfo"));
        let table = match Host::local().read(&path, TABLE) {
            Ok(table) => table,
            // A task that is about to end has no mount namespace any more, and answers EINVAL.
            Err(error) if !own && has_ended(&error) => continue,
            Err(error) if !own => {
                scan.unseen
                    .push(format!("the mounts that process {pid} sees: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mounts = mountinfo::parse(&table)?;
        scan.overlays.extend(overlays::of_table(&table, pid, own));
        scan.namespaces.push(Namespace {
            processes,
            mounts,
            own,
        });
        return Ok(());
    }
    Ok(())
}

fn has_ended(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => {
            Errno::from_io_error(source).is_some_and(|errno| is_gone(errno) || errno == Errno::INVAL)
        }
        Error::TooLarge { .. }
        | Error::NotAFile { .. }
        | Error::MountTable { .. }
        | Error::Locked { .. }
        | Error::State { .. }
        | Error::NoScopedOpen { .. } => false,
    }
}

/// What a process has at or below these paths of its mount namespace. None if it has ended.
pub(crate) fn held(pid: u32, paths: &[PathBuf]) -> Option<Held> {
    let mut held = Held::default();
    for (name, what) in [("cwd", "working directory"), ("root", "root"), ("exe", "program")] {
        match link(pid, name) {
            Ok(path) if leads_to(&path, paths) => {
                held.others.push(what);
                held.example = path;
            }
            Ok(_) => {}
            // A kernel thread has no program.
            Err(errno) if is_gone(errno) => {}
            Err(errno) => held.unseen = Some(format!("its {what}: {errno}")),
        }
    }
    let fds = match Host::local().list(Path::new(&format!("/proc/{pid}/fd"))) {
        Ok(fds) => fds,
        Err(error) if has_ended(&error) => return held.anything().then_some(held),
        Err(error) => {
            held.unseen = Some(error.to_string());
            return Some(held);
        }
    };
    for fd in fds {
        match link(pid, &format!("fd/{}", fd.display())) {
            Ok(path) if leads_to(&path, paths) => {
                held.files += 1;
                held.example = path;
            }
            Ok(_) => {}
            Err(errno) if is_gone(errno) => {}
            // The path is longer than the kernel writes: which it is cannot be told.
            Err(errno) => held.unseen = Some(format!("its open file {}: {errno}", fd.display())),
        }
    }
    Some(held)
}

fn link(pid: u32, name: &str) -> Result<PathBuf, Errno> {
    let text = rustix::fs::readlink(format!("/proc/{pid}/{name}"), Vec::new())?;
    Ok(OsStr::from_bytes(text.to_bytes()).into())
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_and_a_working_directory_are_found() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch = scratch.path().canonicalize().unwrap();
        let file = std::fs::File::create(scratch.join("log")).unwrap();
        let mut sleep = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(&scratch)
            .stdout(file)
            .spawn()
            .unwrap();
        let held = held(sleep.id(), std::slice::from_ref(&scratch)).unwrap();
        let elsewhere = super::held(sleep.id(), &["/nowhere".into()]).unwrap();
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!((held.files, held.others), (1, vec!["working directory"]));
        assert!(!elsewhere.anything());
    }
}
