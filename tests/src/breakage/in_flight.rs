//! A sandbox in the making, which no list of the runtime shows.

use std::fs;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::inside::hook;
use crate::node::Node;
use crate::options::Engine;
use crate::sandbox::{CNI_CACHE, Sandbox};

/// Longer than any plugin takes to be called, shorter than the call's own deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// An ADD that waits in its last plugin: the veth is up, the addresses are reserved, and `ListPodSandbox` does not know of it.
///
/// Dropping it lets the ADD end.
pub struct InFlight<'n> {
    node: &'n Node,
    id: String,
    call: Option<JoinHandle<Result<String>>>,
}

impl Node {
    /// Begins to run a sandbox, and holds its ADD back after bridge and host-local are done.
    ///
    /// # Errors
    ///
    /// When the node has no hook plugin, or the ADD does not come that far.
    pub fn in_flight_add(&self, name: &str) -> Result<InFlight<'_>> {
        if !self.options.hook {
            return Err(LabError::Odd(
                "the node was made without the hook plugin".to_owned(),
            ));
        }
        self.write(hook::HOLD_ADD, "")?;
        let before = self.names(hook::WAITING);
        let config = self.pod_config(name)?;
        let runtime = self.cri();
        let call = thread::spawn(move || runtime.run(config));
        let mut guard = InFlight {
            node: self,
            id: String::new(),
            call: Some(call),
        };
        self.await_that("ADD in the hook plugin", PATIENCE, crate::runtime::LOG, || {
            let new = self
                .names(hook::WAITING)
                .into_iter()
                .find(|id| !before.contains(id));
            guard.id = new.unwrap_or_default();
            !guard.id.is_empty()
        })?;
        if self.options.engine == Engine::Containerd {
            // go-cni calls the loopback plugin beside the others, and libcni's file of it would come at any moment.
            let file = format!("cni-loopback-{}-lo", guard.id);
            self.await_that("ADD of the loopback", PATIENCE, crate::runtime::LOG, || {
                self.names(CNI_CACHE).contains(&file)
            })?;
        }
        Ok(guard)
    }
}

impl InFlight<'_> {
    /// The id of the sandbox in the making.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Lets the ADD end and waits for the sandbox.
    ///
    /// # Errors
    ///
    /// The runtime's own: a tool that took something away meanwhile shows here.
    pub fn finish(mut self) -> Result<Sandbox> {
        let id = self
            .release()
            .unwrap_or_else(|| Err(LabError::Odd("the call is over".to_owned())))?;
        self.node.sandbox(&id)
    }

    fn release(&mut self) -> Option<Result<String>> {
        let _ = fs::remove_file(self.node.path(hook::HOLD_ADD));
        let joined = self.call.take()?.join();
        Some(joined.unwrap_or_else(|_panic| Err(LabError::Odd("the call panicked".to_owned()))))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let _ = self.release();
    }
}
