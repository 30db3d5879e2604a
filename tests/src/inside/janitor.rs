//! The janitor: a small process outside the node that ends it when its owner ends, however that happened.
//!
//! The owner holds the write end of a pipe. The janitor waits for its end, kills the node's first process (the kernel then kills all others
//! and drops every namespace and mount), and removes the cgroups. Should the janitor itself be killed, the first process dies with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroups;
use crate::error::{Doing, LabError, Result};
use crate::machine::nspawn;
use crate::{loops, tools};

/// The first line that a ready node says.
const READY: &str = "ready";

/// The owner's end.
pub(crate) struct Janitor {
    child: Child,
    /// Its end is the signal: dropped on purpose, or by the kernel.
    leash: Option<ChildStdin>,
    init: u32,
}

impl Janitor {
    /// Starts a janitor and, through it, a node whose cgroups lie below `cgroup`. Returns when the node's mounts stand.
    pub(crate) fn start(cgroup: &str) -> Result<Janitor> {
        Self::told(&["--cgroup", cgroup])
    }

    /// The same for a machine with systemd, whose files are a copy of `template`.
    pub(crate) fn start_machine(cgroup: &str, template: &Path) -> Result<Janitor> {
        Self::told(&["--cgroup", cgroup, "--machine", &template.to_string_lossy()])
    }

    fn told(how: &[&str]) -> Result<Janitor> {
        let binary = tools::lab_binary()?;
        let mut child = Command::new(&binary)
            .arg("janitor")
            .args(how)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .at("start", &binary)?;
        let leash = child.stdin.take();
        let line = first_line(child.stdout.take());
        match line.strip_prefix(READY).and_then(|pid| pid.trim().parse().ok()) {
            Some(init) => Ok(Janitor { child, leash, init }),
            None => {
                drop(leash);
                let _ = child.wait();
                Err(LabError::Missing(format!("no node could be made: {line}")))
            }
        }
    }

    /// The node's first process, as seen from outside.
    pub(crate) fn init(&self) -> u32 {
        self.init
    }

    /// The janitor's own process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the node and waits until nothing of it remains.
    pub(crate) fn finish(&mut self) {
        drop(self.leash.take());
        let _ = self.child.wait();
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.finish();
    }
}

/// One line, and no more: what follows belongs to nobody.
fn first_line(from: Option<impl Read>) -> String {
    let mut line = String::new();
    if let Some(from) = from {
        let _ = BufReader::new(from).read_line(&mut line);
    }
    line.trim().to_owned()
}

/// The janitor's whole life. It says `ready <pid>` or what went wrong on standard output.
///
/// # Errors
///
/// Only when not even its standard output can be written.
pub fn run(cgroup: &str, machine: Option<&Path>) -> Result<()> {
    // Of a session of its own, so that an interrupt at the terminal ends the owner and not the cleaning.
    let _ = nix::unistd::setsid();
    let outcome = match machine {
        Some(template) => nspawn::launch(cgroup, template),
        None => launch(),
    };
    let said = match &outcome {
        Ok(started) => format!("{READY} {}", started.first),
        Err(error) => error.to_string().replace('\n', " "),
    };
    writeln!(std::io::stdout(), "{said}").doing(|| "report to the owner".to_owned())?;
    if let Ok(mut started) = outcome {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // While the node's mounts stand: later the kernel has no path for a device file that was bound in it.
        loops::detach(cgroup);
        let _ = pidfd_send_signal(&started.handle, Signal::KILL);
        // Returns when every process of the pid namespace is gone. systemd-nspawn ends with the machine in it.
        let _ = started.child.wait();
        // Those on which another lay.
        loops::detach(cgroup);
        cgroups::remove(cgroup);
    }
    Ok(())
}

/// A node that was started.
pub(crate) struct Started {
    /// Its first process.
    pub(crate) first: u32,
    /// The same one, for ever: whoever has its number later is not meant.
    handle: OwnedFd,
    /// That process, or the program that started it and ends with it.
    child: Child,
}

impl Started {
    pub(crate) fn new(first: u32, child: Child) -> Result<Started> {
        let pid = i32::try_from(first).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| LabError::Odd(format!("no process id: {first}")))?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).doing(|| format!("open process {first}"))?;
        Ok(Started { first, handle, child })
    }
}

fn launch() -> Result<Started> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWPID).doing(|| "make a pid namespace".to_owned())?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).doing(|| {
            "make a user namespace (the kernel or a policy forbids it to ordinary users)".to_owned()
        })?;
        write_map("/proc/self/setgroups", "deny")?;
        write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write_map("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    let mut init = Command::new(tools::lab_binary()?)
        .arg("init")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| "start the node's first process".to_owned())?;
    let line = first_line(init.stdout.take());
    if line == READY {
        return Started::new(init.id(), init);
    }
    let _ = init.kill();
    let _ = init.wait();
    Err(LabError::Missing(line))
}

fn write_map(path: &str, content: &str) -> Result<()> {
    fs::write(path, content).doing(|| format!("write {path}"))
}
