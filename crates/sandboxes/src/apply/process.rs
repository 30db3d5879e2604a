//! A process that is held by what cannot become another one: a pidfd, or its pid with its start time.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nodemend_procns::cgroup::Cgroup;
use nodemend_procns::standing;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::error::Error;

/// How often a process is looked at that no pidfd tells of.
const TICK: Duration = Duration::from_millis(10);

/// How many processes are named in a sentence.
const NAMED: usize = 5;

/// A process that was there when this was made. A pid is used again; this is not.
#[derive(Debug)]
pub(crate) struct Target {
    pid: u32,
    start_time: u64,
    /// None where the kernel has no pidfds (before Linux 5.3), or no more of them to give: then the start time is compared
    /// just before each signal.
    fd: Option<OwnedFd>,
}

impl Target {
    /// Holds a process. None if it has ended, or if the pid is another's by now.
    pub(crate) fn open(pid: u32, start_time: u64) -> Result<Option<Self>, Error> {
        let Some(number) = number(pid) else {
            return Ok(None);
        };
        let fd = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(fd) => Some(fd),
            Err(Errno::SRCH) => return Ok(None),
            // A thread that is no process, on kernels that know it (EINVAL, ENOENT): nothing of ours.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(None),
            Err(Errno::NOSYS | Errno::PERM | Errno::MFILE | Errno::NFILE) => None,
            Err(errno) => return Err(refused(pid)(errno)),
        };
        let target = Self { pid, start_time, fd };
        // After the pidfd was had: it is that of the process which has this start time.
        Ok(target.is_the_same()?.then_some(target))
    }

    /// Holds the processes of a cgroup and those below it, but for some. A pid was read from a file, so it is looked for
    /// there once more when the process is held.
    pub(crate) fn in_cgroup(cgroup: &Cgroup, but: &HashSet<u32>) -> Result<Vec<Self>, Error> {
        let mut held = Vec::new();
        for pid in cgroup.all_processes()? {
            let now = standing(pid)?.filter(|_| !but.contains(&pid));
            if let Some(now) = now
                && let Some(target) = Self::open(pid, now.start_time)?
            {
                held.push(target);
            }
        }
        if !held.is_empty() {
            let still: HashSet<u32> = cgroup.all_processes()?.into_iter().collect();
            held.retain(|target| still.contains(&target.pid) && target.is_there());
        }
        Ok(held)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its pid and start time.
    pub(crate) fn identity(&self) -> (u32, u64) {
        (self.pid, self.start_time)
    }

    /// Sends a signal, if it is still there.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let sent = match (&self.fd, number(self.pid)) {
            (Some(fd), _) => pidfd_send_signal(fd, signal),
            (None, Some(number)) if self.is_the_same()? => kill_process(number, signal),
            (None, _) => Ok(()),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(refused(self.pid)(errno)),
        }
    }

    /// True until it has ended. A zombie has; what cannot be looked at has not.
    pub(crate) fn is_there(&self) -> bool {
        match &self.fd {
            Some(fd) => {
                let now = Timespec::default();
                // A pidfd becomes readable when the last thread of the process has ended.
                poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)) == Ok(0)
            }
            None => self.is_the_same().unwrap_or(true),
        }
    }

    fn is_the_same(&self) -> Result<bool, Error> {
        let now = standing(self.pid)?;
        Ok(now.is_some_and(|now| now.start_time == self.start_time && !now.has_ended()))
    }

    /// `process 4711 (nginx), state D`.
    fn said(&self) -> String {
        let comm = std::fs::read(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        let comm = String::from_utf8_lossy(&comm).trim_end().to_owned();
        let state = standing(self.pid).ok().flatten();
        let state = state.map_or_else(String::new, |now| format!(", state {}", now.state));
        format!("process {} ({comm}){state}", self.pid)
    }
}

/// Several processes in words.
pub(crate) fn said(targets: &[Target]) -> String {
    let mut words: Vec<String> = targets.iter().take(NAMED).map(Target::said).collect();
    if targets.len() > NAMED {
        words.push(format!("{} more", targets.len() - NAMED));
    }
    words.join(", ")
}

/// Waits until all have ended, or until a moment. Gives those that are still there.
pub(crate) fn wait(mut targets: Vec<Target>, until: Instant) -> Vec<Target> {
    loop {
        targets.retain(Target::is_there);
        let left = until.saturating_duration_since(Instant::now());
        if targets.is_empty() || left.is_zero() {
            return targets;
        }
        pause(&targets, left);
    }
}

/// Returns when one of them ends, or after a while.
fn pause(targets: &[Target], most: Duration) {
    let fds = targets.iter().filter_map(|target| target.fd.as_ref());
    let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let all = fds.len() == targets.len();
    let most = if all { most } else { most.min(TICK) };
    let Ok(time) = Timespec::try_from(most) else {
        return;
    };
    if poll(&mut fds, Some(&time)).is_err() {
        std::thread::sleep(TICK);
    }
}

/// A pid that a signal may go to: not every process there is (0, -1), not the first one, not this one.
fn number(pid: u32) -> Option<Pid> {
    let number = i32::try_from(pid).ok().filter(|pid| *pid > 1)?;
    Pid::from_raw(number).filter(|_| pid != std::process::id())
}

fn refused(pid: u32) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Signal {
        pid,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, u64) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let start_time = standing(child.id()).unwrap().unwrap().start_time;
        (child, start_time)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_pid_that_is_another_processs_by_now_is_never_signalled() {
        let (mut child, start_time) = sleeper();
        assert!(Target::open(child.id(), start_time - 1).unwrap().is_none());
        // On an old kernel nothing holds the process: the time is compared again before the signal.
        let late = Target {
            pid: child.id(),
            start_time: start_time - 1,
            fd: None,
        };
        late.signal(Signal::KILL).unwrap();
        assert!(!late.is_there());
        assert_eq!(child.try_wait().unwrap(), None, "it runs on");
        end(child);
    }

    #[test]
    fn with_and_without_a_pidfd_a_process_is_ended_and_awaited() {
        for old in [false, true] {
            let (mut child, start_time) = sleeper();
            let mut target = Target::open(child.id(), start_time).unwrap().unwrap();
            assert!(target.fd.is_some(), "this kernel is a newer one");
            if old {
                target.fd = None;
            }
            let soon = Instant::now() + Duration::from_millis(50);
            let still = wait(vec![target], soon);
            assert_eq!(still.len(), 1);
            still[0].signal(Signal::TERM).unwrap();
            let left = wait(still, Instant::now() + Duration::from_secs(10));
            assert!(left.is_empty(), "a zombie has ended");
            assert_eq!(child.wait().unwrap().signal(), Some(15));
        }
    }

    #[test]
    fn a_process_that_has_ended_is_not_held() {
        let (child, start_time) = sleeper();
        let pid = child.id();
        end(child);
        assert!(Target::open(pid, start_time).unwrap().is_none());
    }

    #[test]
    fn the_first_process_and_this_one_are_never_signalled() {
        for pid in [0, 1, std::process::id(), u32::MAX] {
            let start_time = standing(pid).unwrap().map_or(0, |now| now.start_time);
            assert!(Target::open(pid, start_time).unwrap().is_none(), "{pid}");
        }
    }
}
