//! The node's processes, read from its own /proc.

use std::fs;
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::node::Node;
use crate::tools;

/// A process of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id inside the node.
    pub pid: u32,
    /// Its command line.
    pub argv: Vec<String>,
    /// Ended, but not yet reaped.
    pub zombie: bool,
}

impl Process {
    /// Whether it is the shim of that container.
    pub fn is_shim_of(&self, id: &str) -> bool {
        let named = self
            .argv
            .first()
            .is_some_and(|name| name.contains("containerd-shim"));
        named && self.argv.windows(2).any(|pair| pair[0] == "-id" && pair[1] == id)
    }
}

impl Node {
    /// Every process of the node.
    pub fn processes(&self) -> Vec<Process> {
        let pids = self
            .names("/proc")
            .into_iter()
            .filter_map(|name| name.parse().ok());
        pids.filter_map(|pid| self.process(pid)).collect()
    }

    /// One process of the node, by its id inside.
    pub fn process(&self, pid: u32) -> Option<Process> {
        let dir = self.path(format!("/proc/{pid}"));
        let line = fs::read(dir.join("cmdline")).ok()?;
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        let argv = line.split(|byte| *byte == 0).filter(|part| !part.is_empty());
        Some(Process {
            pid,
            argv: argv
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect(),
            zombie: stat
                .rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('Z')),
        })
    }

    /// Whether a process of the node runs.
    pub fn is_alive(&self, pid: u32) -> bool {
        self.process(pid).is_some_and(|process| !process.zombie)
    }

    /// Sends a signal, by its name without SIG, to processes of the node. One that is gone is no error.
    ///
    /// # Errors
    ///
    /// When no shell can be run.
    pub fn signal(&self, name: &str, pids: &[u32]) -> Result<()> {
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        self.shell(&format!("kill -{name} {} 2>/dev/null || true", list.join(" ")))
            .map(drop)
    }

    /// Kills processes of the node and waits until they are gone.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] when one of them stays.
    pub fn kill(&self, pids: &[u32]) -> Result<()> {
        if pids.is_empty() {
            return Ok(());
        }
        self.signal("KILL", pids)?;
        self.await_that("end of killed processes", Duration::from_secs(10), "", || {
            !pids.iter().any(|pid| self.is_alive(*pid))
        })
    }

    /// Starts a process that stays, in the node's namespaces; its id inside.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn<S: AsRef<str>>(&self, argv: &[S]) -> Result<u32> {
        self.detach(&[], argv)
    }

    /// Starts a process as [`Node::spawn`] does, with options of the `detach` subcommand.
    pub(crate) fn detach<S: AsRef<str>>(&self, options: &[&str], argv: &[S]) -> Result<u32> {
        let lab = tools::lab_binary()?;
        let lab = lab.to_string_lossy();
        let mut line = vec![lab.as_ref(), "detach"];
        line.extend(options);
        line.push("--");
        line.extend(argv.iter().map(AsRef::as_ref));
        let said = self.exec(&line)?;
        said.trim()
            .parse()
            .map_err(|_error| LabError::Odd(format!("no process id: {said}")))
    }
}
