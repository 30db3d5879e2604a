//! A node with systemd: a whole Debian in a container of its own, where containerd and kubelet are services.
//!
//! [`Node`] has its runtime as a plain process, which is enough for what comes after the incident. The incident itself is about a service that
//! systemd starts again and again, so it needs this. A machine is a node: everything that [`Node`] can do works here as well.
//!
//! ```no_run
//! use nodemend_lab::machine::{Machine, Shims, Suite};
//!
//! # fn main() -> nodemend_lab::Result<()> {
//! let machine = Machine::boot(Suite::Bookworm)?;
//! let pod = machine.run_sandbox("web")?;
//! machine.break_metadata(Shims::Live)?;
//! assert_eq!(machine.unit("containerd.service")?.active, "activating");
//! # Ok(())
//! # }
//! ```

mod breakage;
mod kubelet;
pub mod nspawn;
mod others;
mod service;
mod suite;

use std::io::Write;
use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

use crate::application::Application;
use crate::cgroups;
use crate::error::{Doing, LabError, Result};
use crate::inside::init;
use crate::kubelet::Kubelet;
use crate::network;
use crate::node::Node;
use crate::options::{Engine, Options};
use crate::sandbox::Sandbox;
use crate::tools;

pub use breakage::{LEAKED, METADATA, Shims};
pub use others::{Another, Other};
pub use service::Unit;
pub use suite::Suite;

/// A Debian of 250 MB is copied first, on a disk that others use as well.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// A node whose first process is systemd. Dropping it, or dying, ends all its processes and removes its files and cgroups.
pub struct Machine {
    node: Node,
    suite: Suite,
}

impl Deref for Machine {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Machine {
    /// Boots a machine of this suite, and waits until its runtime, its network and its kubelet are ready.
    ///
    /// The first of a suite takes a minute or more: its packages are downloaded, once.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] when this machine or this user cannot run one.
    pub fn boot(suite: Suite) -> Result<Machine> {
        for (program, package) in [
            ("systemd-nspawn", "systemd-container"),
            ("nsenter", "util-linux"),
            ("setpriv", "util-linux"),
            ("ip", "iproute2"),
            ("mkfs.ext4", "e2fsprogs"),
        ] {
            tools::need(program, package)?;
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::Missing("a machine with systemd needs root".to_owned()));
        }
        cgroups::sweep();
        let options = Options {
            hook: false,
            ..Options::on(Engine::Containerd)
        };
        let node = Node::with_systemd(options, suite.cri(), &suite.tree()?)?;
        let machine = Machine { node, suite };
        machine.await_systemd()?;
        machine.prepare()?;
        Ok(machine)
    }

    /// The machine of a test, of the suite that `NODEMEND_MACHINE_SUITE` names. None, with a loud word, where there can be none; but not in CI.
    ///
    /// # Errors
    ///
    /// As [`Machine::boot`].
    pub fn for_test() -> Result<Option<Machine>> {
        match Machine::boot(Suite::asked()?) {
            Err(LabError::Missing(what)) if std::env::var_os("CI").is_none() => {
                let thread = std::thread::current();
                let test = thread.name().unwrap_or("a test").to_owned();
                // Past the capturing of a test's output, which hides what a test says that passes.
                let _ = writeln!(std::io::stderr(), "\n*** {test} DID NOT RUN: {what} ***\n");
                Ok(None)
            }
            booted => booted.map(Some),
        }
    }

    /// Which Debian it is.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Runs a pod with an application, which listens on 8080 in it.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn run_pod(&self, name: &str) -> Result<(Sandbox, Application)> {
        let pod = self.run_sandbox(name)?;
        let app = self.run_application(&pod, 8080, false)?;
        Ok((pod, app))
    }

    /// Ends the machine and waits until nothing of it remains. Dropping does the same.
    pub fn stop(self) {
        self.node.stop();
    }

    fn await_systemd(&self) -> Result<()> {
        self.await_that("machine that is up", BOOT_LIMIT, "", || {
            let state = self.output(&["systemctl", "is-system-running"]);
            let state = state.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            // Degraded: a unit failed that needs what a container has not.
            state.is_ok_and(|state| state == "running" || state == "degraded")
        })
    }

    fn prepare(&self) -> Result<()> {
        // runc makes cgroups in each controller, and systemd-nspawn mounts those of cgroup v1 read-only.
        self.shell(
            "for top in /sys/fs/cgroup /sys/fs/cgroup/*/; do
               grep -q \" ${top%/} cgroup2\\? \" /proc/mounts && mount -o remount,bind,rw ${top%/} || true
             done",
        )?;
        self.write(init::OPT_IS_OURS, "")?;
        network::install(self)?;
        self.prepare_runtime()?;
        self.exec(&["systemctl", "enable", "--quiet", "containerd.service"])?;
        self.start_runtime()?;
        self.start_kubelet_service(&Kubelet::default())
    }
}

/// Runs a program of the machine that must succeed.
fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let done = command.output().doing(|| format!("run {line}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: line,
        status: done.status.to_string(),
        output: String::from_utf8_lossy(&[done.stderr, done.stdout].concat())
            .trim()
            .to_owned(),
    })
}
