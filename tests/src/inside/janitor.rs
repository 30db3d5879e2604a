//! The janitor: a small process outside the node that ends it when its owner ends, however that happened.
//!
//! The owner holds the write end of a pipe. The janitor waits for its end, kills the node's first process (the kernel then kills all others
//! and drops every namespace and mount), and removes the cgroups. Should the janitor itself be killed, the first process dies with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use crate::cgroups;
use crate::error::{Doing, LabError, Result};
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
        let binary = tools::lab_binary()?;
        let mut child = Command::new(&binary)
            .args(["janitor", "--cgroup", cgroup])
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
pub fn run(cgroup: &str) -> Result<()> {
    // Of a session of its own, so that an interrupt at the terminal ends the owner and not the cleaning.
    let _ = nix::unistd::setsid();
    let outcome = launch();
    let said = match &outcome {
        Ok((pid, _)) => format!("{READY} {pid}"),
        Err(error) => error.to_string().replace('\n', " "),
    };
    writeln!(std::io::stdout(), "{said}").doing(|| "report to the owner".to_owned())?;
    if let Ok((_, mut init)) = outcome {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // While the node's mounts stand: later the kernel has no path for a device file that was bound in it.
        loops::detach(cgroup);
        let _ = init.kill();
        // Returns when every process of the pid namespace is gone.
        let _ = init.wait();
        // Those on which another lay.
        loops::detach(cgroup);
        cgroups::remove(cgroup);
    }
    Ok(())
}

fn launch() -> Result<(u32, Child)> {
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
        return Ok((init.id(), init));
    }
    let _ = init.kill();
    let _ = init.wait();
    Err(LabError::Missing(line))
}

fn write_map(path: &str, content: &str) -> Result<()> {
    fs::write(path, content).doing(|| format!("write {path}"))
}
