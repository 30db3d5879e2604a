//! Sandboxes that the runtime, or the kernel, has lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::inside::hook;
use crate::node::Node;
use crate::options::Engine;
use crate::runtime;
use crate::sandbox::Sandbox;

impl Node {
    /// The incident: the runtime is killed, its data set aside, and started on an empty directory. The pods run on, known to nobody.
    ///
    /// Returns where the old data lies, inside the node: the lower layers of the running pods' root file systems are in it.
    ///
    /// # Errors
    ///
    /// When the runtime cannot be killed or does not start again.
    pub fn wipe_metadata(&self) -> Result<PathBuf> {
        self.kill_runtime()?;
        let aside = (1..).map(|n| PathBuf::from(format!("{}.aside-{n}", runtime::ROOT)));
        let aside = aside
            .into_iter()
            .find(|path| !self.path(path).exists())
            .unwrap_or_default();
        let root = self.path(runtime::ROOT);
        fs::rename(&root, self.path(&aside)).at("set aside", &root)?;
        self.make_dirs(runtime::ROOT)?;
        self.start_runtime()?;
        Ok(aside)
    }

    /// The shims of a sandbox, by their ids inside the node.
    pub fn shims(&self, sandbox: &Sandbox) -> Vec<u32> {
        let all = self.processes().into_iter();
        all.filter(|process| process.is_shim_of(&sandbox.id) && !process.zombie)
            .map(|shim| shim.pid)
            .collect()
    }

    /// Kills shim and pause of sandboxes, as `systemctl kill` of the unit does: only the mount holds the network namespace, and
    /// reservations and cache stay.
    ///
    /// # Errors
    ///
    /// When a process does not end.
    pub fn end_processes(&self, sandboxes: &[Sandbox]) -> Result<()> {
        // The shims first: one that sees its pause die tells the runtime.
        let shims: Vec<u32> = sandboxes.iter().flat_map(|sandbox| self.shims(sandbox)).collect();
        self.kill(&shims)?;
        self.kill(&sandboxes.iter().map(|sandbox| sandbox.pause).collect::<Vec<_>>())?;
        sandboxes
            .iter()
            .try_for_each(|sandbox| self.await_clean_up(sandbox))
    }

    /// A containerd that runs removes the bundle of a shim that died; one that does not leaves it until it starts.
    fn await_clean_up(&self, sandbox: &Sandbox) -> Result<()> {
        let bundle = self.path(Path::new(runtime::BUNDLES).join(&sandbox.id));
        if self.runtime_pid().is_none() || !bundle.exists() {
            return Ok(());
        }
        if self.options.engine == Engine::StandIn {
            return fs::remove_dir_all(&bundle).at("remove", &bundle);
        }
        self.await_that(
            "removal of a dead shim's bundle",
            Duration::from_secs(20),
            runtime::LOG,
            || !bundle.exists(),
        )
    }

    /// Kills the pause process only: the sandbox is still in the runtime's list, NotReady, and its network is still kubelet's.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill_pause(&self, sandbox: &Sandbox) -> Result<()> {
        self.kill(&[sandbox.pause])
    }

    /// Makes every DEL fail with this message, until [`Node::mend_del`].
    ///
    /// The lab's plugin is last in the chain and so first in a DEL: bridge and host-local are not reached.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn fail_del(&self, message: &str) -> Result<()> {
        self.write(hook::FAIL_DEL, message)
    }

    /// Ends [`Node::fail_del`].
    pub fn mend_del(&self) {
        let _ = fs::remove_file(self.path(hook::FAIL_DEL));
    }

    /// Removes sandboxes through the runtime while DEL fails with "not found", which the runtime takes for success: the addresses and the
    /// cache stay, the sandboxes are gone.
    ///
    /// # Errors
    ///
    /// The runtime's own, if it does not take it for success.
    pub fn leak_addresses(&self, sandboxes: &[Sandbox]) -> Result<()> {
        self.fail_del("device not found")?;
        let removed = sandboxes.iter().try_for_each(|sandbox| {
            self.stop_sandbox(&sandbox.id)?;
            self.remove_sandbox(&sandbox.id)
        });
        self.mend_del();
        removed
    }

    /// Takes the file of a network namespace away: unmounted lazily, and unlinked. What else holds it keeps it.
    ///
    /// # Errors
    ///
    /// When it is not mounted.
    pub fn drop_netns_file(&self, netns: &Path) -> Result<()> {
        let path = netns.to_string_lossy();
        self.exec(&["umount", "--lazy", path.as_ref()])?;
        self.exec(&["rm", path.as_ref()]).map(drop)
    }
}
