//! Finding something in a census, and asking again for one process.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use nodemend_hostfs::Host;
use rustix::fs::CWD;
use rustix::io::Errno;

use crate::census::{Census, Holder, Netns, NetnsId, Process};
use crate::error::Error;
use crate::pool::{self, PATIENCE};
use crate::procfs::{LinkText, is_gone, numbers, open_dir, open_proc, read, read_records};
use crate::stat::Stat;

/// The most of a command line that is read, in bytes: more than execve(2) lets through by default.
const CMDLINE: usize = 16 << 20;

impl Census {
    /// The network namespace of that identity, if something is known to hold it.
    pub fn namespace(&self, id: NetnsId) -> Option<&Netns> {
        self.namespaces
            .binary_search_by_key(&id, |netns| netns.id)
            .ok()
            .and_then(|at| self.namespaces.get(at))
    }

    /// The process of that pid.
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes
            .binary_search_by_key(&pid, |process| process.pid)
            .ok()
            .and_then(|at| self.processes.get(at))
    }

    /// The network namespace that the main thread of a process lives in.
    pub fn of_pid(&self, pid: u32) -> Option<NetnsId> {
        self.process(pid)?.netns
    }

    /// The processes whose main thread lives in a network namespace. Unlike the holders, they are all there for the
    /// host's namespace too.
    pub fn processes_in(&self, id: NetnsId) -> impl Iterator<Item = &Process> {
        self.processes
            .iter()
            .filter(move |process| process.netns == Some(id))
    }

    /// The CNI plugins at work, with their processes.
    pub fn cni_calls(&self) -> impl Iterator<Item = (&Process, &crate::census::CniCall)> {
        self.processes
            .iter()
            .filter_map(|process| Some((process, process.cni.as_ref()?)))
    }

    /// True if nothing was left unread: then what is not here was not there, but for what only sockets hold.
    pub fn is_complete(&self) -> bool {
        self.unread.is_empty()
    }
}

impl Netns {
    /// True if nothing but mounts in our mount namespace is known to keep it alive.
    pub fn is_mount_only(&self) -> bool {
        !self.holders.is_empty()
            && self
                .holders
                .iter()
                .all(|holder| matches!(holder, Holder::Mount { .. }))
    }
}

impl Process {
    /// True if both are the same process: a pid is used again, a pid with its start time is not.
    pub fn same_as(&self, other: &Self) -> bool {
        (self.pid, self.start_time) == (other.pid, other.start_time)
    }

    /// True if this process is still there, as a zombie perhaps.
    ///
    /// # Errors
    /// As [`Census::take`].
    pub fn is_there(&self, host: &Host) -> Result<bool, Error> {
        Ok(start_time(host, self.pid)? == Some(self.start_time))
    }
}

/// The start time of a process, in clock ticks since boot; None if there is no such process.
///
/// # Errors
/// As [`Census::take`].
pub fn start_time(host: &Host, pid: u32) -> Result<Option<u64>, Error> {
    Ok(file(host, pid, "stat")?
        .and_then(|line| Stat::parse(&line))
        .map(|stat| stat.start_time))
}

/// How a process stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its start in clock ticks since boot: with the pid, its identity.
    pub start_time: u64,
    /// Its parent.
    pub parent: u32,
    /// The letter of its state: `S`, `D` …; see proc(5).
    pub state: char,
}

impl Standing {
    /// True if it has ended, and only waits to be reaped.
    pub fn has_ended(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// How a process stands now; None if there is no such process. For the moment before a signal: it reads
/// `/proc/PID/stat`, which the kernel writes without a lock that a stuck process could hold, in the calling thread.
///
/// # Errors
/// [`Error::Proc`] if it cannot be read.
pub fn standing(pid: u32) -> Result<Option<Standing>, Error> {
    let mut line = Vec::new();
    let path = format!("/proc/{pid}/stat");
    match read(CWD, path.as_str(), &mut line, 1 << 16) {
        Ok(_) => {}
        Err(errno) if is_gone(errno) => return Ok(None),
        Err(errno) => return Err(Error::proc("read", path)(errno)),
    }
    Ok(Stat::parse(&line).map(|stat| Standing {
        start_time: stat.start_time,
        parent: stat.parent,
        state: char::from(stat.state),
    }))
}

/// The processes that have this one as their parent now, those that have ended included.
///
/// # Errors
/// [`Error::Proc`] if /proc cannot be read.
pub fn children(pid: u32) -> Result<Vec<u32>, Error> {
    if let Some(told) = told_children(pid) {
        return Ok(told);
    }
    let mut found = Vec::new();
    every(|other| {
        if standing(other)?.is_some_and(|standing| standing.parent == pid) {
            found.push(other);
        }
        Ok(())
    })?;
    Ok(found)
}

/// From `/proc/PID/task/TID/children`, where the kernel has it (`CONFIG_PROC_CHILDREN`).
fn told_children(pid: u32) -> Option<Vec<u32>> {
    let tasks = open_dir(CWD, format!("/proc/{pid}/task").as_str()).ok()?;
    let (mut found, mut text) = (Vec::new(), Vec::new());
    numbers(&tasks, |thread, _| {
        match read_records(&tasks, format!("{thread}/children").as_str(), &mut text, 1 << 20) {
            Ok(_) => {}
            Err(Errno::SRCH) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        let pids = text.split(u8::is_ascii_whitespace);
        found.extend(pids.filter_map(|pid| std::str::from_utf8(pid).ok()?.parse::<u32>().ok()));
        Ok(())
    })
    .ok()?;
    Some(found)
}

/// The processes whose main thread lives in a network namespace now. Unlike a [`Census`] it asks for nothing else, and so
/// can be asked just before a change.
///
/// # Errors
/// [`Error::Proc`] if /proc, or the namespace of a process, cannot be read.
pub fn residents(netns: NetnsId) -> Result<Vec<u32>, Error> {
    let mut found = Vec::new();
    every(|pid| {
        let path = format!("/proc/{pid}/ns/net");
        match LinkText::read(CWD, path.as_str()) {
            Ok(text) if text.namespace(b"net") == Some(netns.ino) => found.push(pid),
            Ok(_) => {}
            Err(errno) if is_gone(errno) => {}
            Err(errno) => return Err(Error::proc("read", path)(errno)),
        }
        Ok(())
    })?;
    Ok(found)
}

fn every(mut each: impl FnMut(u32) -> Result<(), Error>) -> Result<(), Error> {
    let proc = open_proc().map_err(Error::proc("open", "/proc"))?;
    let mut pids = Vec::new();
    numbers(&proc, |pid, _| {
        pids.push(pid);
        Ok::<(), Errno>(())
    })
    .map_err(Error::proc("list", "/proc"))?;
    pids.into_iter().try_for_each(&mut each)
}

/// The command line of a process, which may have overwritten it. Empty for kernel threads and zombies, and for a
/// process that has ended.
///
/// # Errors
/// [`Error::Silent`] if the kernel does not answer within two seconds: reading it needs the memory map of the process;
/// otherwise as [`Census::take`].
pub fn cmdline(host: &Host, pid: u32) -> Result<Vec<OsString>, Error> {
    let bytes = file(host, pid, "cmdline")?.unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(bytes
        .split(|&byte| byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect())
}

/// A file of a process, read by a thread that can be left behind. None if the process has ended.
fn file(host: &Host, pid: u32, name: &'static str) -> Result<Option<Vec<u8>>, Error> {
    if !host.is_running() {
        return Err(Error::NotRunning {
            root: host.root().to_owned(),
        });
    }
    let path = format!("/proc/{pid}/{name}");
    let proc = open_proc().map_err(Error::proc("open", "/proc"))?;
    let done = pool::run(
        vec![format!("{pid}/{name}")],
        Box::new(move |path: &String, _, answer| {
            let mut buffer = Vec::new();
            answer(read(proc.as_fd(), path.as_str(), &mut buffer, CMDLINE).map(|_| buffer));
        }),
    )
    .map_err(Error::Thread)?;
    match done.answers.into_iter().next() {
        Some(Ok(bytes)) => Ok(Some(bytes)),
        Some(Err(errno)) if is_gone(errno) => Ok(None),
        Some(Err(errno)) => Err(Error::proc("read", path)(errno)),
        None => Err(Error::Silent {
            path: path.into(),
            seconds: PATIENCE,
        }),
    }
}
