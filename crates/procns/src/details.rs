//! More of some processes than a census holds: what they are, and what they use.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nodemend_hostfs::Host;
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::path::DecInt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::census::Process;
use crate::error::Error;
use crate::pool::{self, PATIENCE, Pulse};
use crate::procfs::{LinkText, is_gone, numbers, open_dir, open_proc, read};
use crate::stat::Stat;
use crate::take::own;

/// The most of a small file of /proc that is read, in bytes.
const SMALL: usize = 1 << 20;
/// The most of a command line that is read, in bytes. The rest is not needed to know a program.
const COMMAND: usize = 4096;

/// One process in detail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// Its pid.
    pub pid: u32,
    /// Its start in clock ticks since boot: with the pid, its identity.
    pub start_time: u64,
    /// The pid of its parent.
    pub parent: u32,
    /// True if it has a pid namespace other than that of the reader.
    pub own_pids: bool,
    /// Its command line; any byte may be in it. Empty if it has none, as a zombie.
    pub command: Vec<OsString>,
    /// Its program, as /proc/PID/exe names it.
    pub program: Option<PathBuf>,
    /// Its resident memory, in bytes.
    pub memory: u64,
    /// Its cgroups.
    pub cgroups: Vec<Membership>,
    /// The inodes of the sockets that it has open.
    pub sockets: Vec<u64>,
}

/// The cgroup of a process in one hierarchy: a line of /proc/PID/cgroup (cgroups(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The controllers, as `cpu,cpuacct` or `name=systemd`; empty for cgroup v2.
    pub controllers: String,
    /// The path in the hierarchy.
    pub path: PathBuf,
}

/// The details of some processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Those that are still there, by pid.
    pub processes: Vec<Detail>,
    /// What could not be read, each with its process.
    pub unread: Vec<String>,
}

impl Details {
    /// Reads the details of the processes that are still the same as in their census.
    ///
    /// # Errors
    /// As [`crate::Census::take`].
    pub fn of(host: &Host, processes: &[&Process]) -> Result<Self, Error> {
        if !host.is_running() {
            return Err(Error::NotRunning {
                root: host.root().to_owned(),
            });
        }
        let proc = open_proc().map_err(Error::proc("open", "/proc"))?;
        let own = LinkText::read(&proc, format!("{}/ns/pid", own(&proc)));
        let own = own.ok().and_then(|link| link.namespace(b"pid"));
        let jobs: Vec<(u32, u64)> = processes
            .iter()
            .map(|process| (process.pid, process.start_time))
            .collect();
        let pids: Vec<u32> = jobs.iter().map(|(pid, _)| *pid).collect();
        let work = move |job: &(u32, u64), pulse: &Pulse, answer: &mut dyn FnMut(Result<Detail, String>)| {
            match detail(&proc, own, *job, pulse) {
                Ok(Some(detail)) => answer(Ok(detail)),
                Ok(None) => {}
                Err(errno) if is_gone(errno) => {}
                Err(errno) => answer(Err(format!("process {}: {errno}", job.0))),
            }
        };
        let done = pool::run(jobs, Box::new(work)).map_err(Error::Thread)?;
        let mut details = Self::default();
        for said in done.answers {
            match said {
                Ok(detail) => details.processes.push(detail),
                Err(reason) => details.unread.push(reason),
            }
        }
        let silent = done.given_up.iter().filter_map(|at| pids.get(*at));
        details.unread.extend(
            silent.map(|pid| format!("process {pid}: the kernel did not answer within {PATIENCE} s")),
        );
        details.processes.sort_unstable_by_key(|detail| detail.pid);
        details.unread.sort_unstable();
        Ok(details)
    }
}

/// None if another process has that pid now. Its files are read below one directory, which stays that of this process.
fn detail(
    proc: &OwnedFd,
    own: Option<u64>,
    (pid, start_time): (u32, u64),
    pulse: &Pulse,
) -> Result<Option<Detail>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(proc, DecInt::new(pid), flags, Mode::empty())?;
    let mut buffer = Vec::new();
    read(&dir, c"stat", &mut buffer, SMALL)?;
    let Some(stat) = Stat::parse(&buffer).filter(|stat| stat.start_time == start_time) else {
        return Ok(None);
    };
    read(&dir, c"cgroup", &mut buffer, SMALL)?;
    let cgroups = memberships(&buffer);
    let mut detail = Detail {
        pid,
        start_time,
        parent: stat.parent,
        cgroups,
        ..Detail::default()
    };
    pulse.beat();
    if stat.is_dead() {
        return Ok(Some(detail));
    }
    let pids = LinkText::read(&dir, c"ns/pid")?.namespace(b"pid");
    detail.own_pids = own.is_some() && pids != own;
    read(&dir, c"status", &mut buffer, SMALL)?;
    detail.memory = resident(&buffer);
    detail.program = readlinkat(&dir, c"exe", Vec::new())
        .ok()
        .map(|text| PathBuf::from(OsString::from_vec(text.into_bytes())));
    detail.sockets = sockets(dir.as_fd(), pulse)?;
    // A longer one is cut, which is no fault.
    read(&dir, c"cmdline", &mut buffer, COMMAND)?;
    buffer.truncate(COMMAND);
    detail.command = words(&buffer);
    Ok(Some(detail))
}

/// `VmRSS` of /proc/PID/status, which is in KiB (proc_pid_status(5)); nothing for a kernel thread.
fn resident(status: &[u8]) -> u64 {
    let mut lines = status.split(|&byte| byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(b"VmRSS:"));
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let kibibytes = text.and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

fn words(cmdline: &[u8]) -> Vec<OsString> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline
        .split(|&byte| byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// `hierarchy:controllers:path`, one a line. A path may hold colons.
fn memberships(cgroup: &[u8]) -> Vec<Membership> {
    let lines = cgroup.split(|&byte| byte == b'\n');
    let parse = |line: &[u8]| {
        let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
        let controllers = String::from_utf8_lossy(fields.next()?).into_owned();
        let path = PathBuf::from(OsStr::from_bytes(fields.next()?));
        Some(Membership { controllers, path })
    };
    lines.filter_map(parse).collect()
}

fn sockets(dir: BorrowedFd<'_>, pulse: &Pulse) -> Result<Vec<u64>, Errno> {
    let files = match open_dir(dir, c"fd") {
        Ok(files) => files,
        Err(errno) if is_gone(errno) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut sockets = Vec::new();
    numbers(&files, |_, name| {
        pulse.beat();
        if let Ok(text) = LinkText::read(&files, name) {
            sockets.extend(text.namespace(b"socket"));
        }
        Ok::<(), Errno>(())
    })?;
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::Census;

    #[test]
    fn a_process_is_told_with_its_parent_its_sockets_and_its_cgroups() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = {
            use std::os::fd::AsRawFd;
            let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            let text = link.to_string_lossy().into_owned();
            text["socket:[".len()..text.len() - 1].parse::<u64>().unwrap()
        };
        let census = Census::take(&Host::local()).unwrap();
        let own = census.process(std::process::id()).unwrap();
        let gone = Process {
            start_time: own.start_time + 1,
            ..own.clone()
        };
        let details = Details::of(&Host::local(), &[own, &gone]).unwrap();
        assert_eq!(details.unread, Vec::<String>::new());
        assert_eq!(
            details.processes.len(),
            1,
            "another process with that pid is not this one"
        );
        let detail = &details.processes[0];
        assert_eq!(detail.parent, std::os::unix::process::parent_id());
        assert!(detail.memory > 100_000 && !detail.own_pids && !detail.command.is_empty());
        assert_eq!(detail.program, std::env::current_exe().ok());
        assert!(detail.sockets.contains(&inode));
        assert!(!detail.cgroups.is_empty());
    }

    #[test]
    fn a_cgroup_s_path_may_hold_a_colon() {
        let told = memberships(b"11:cpu,cpuacct:/kubepods/x\n1:name=systemd:/a.slice:cri:8f\n0::/\n");
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.controllers.as_str(), one.path.to_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("cpu,cpuacct", "/kubepods/x"),
                ("name=systemd", "/a.slice:cri:8f"),
                ("", "/")
            ]
        );
    }
}
