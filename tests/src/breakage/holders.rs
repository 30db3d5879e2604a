//! Network namespaces that live on for reasons that are hard to see.

use std::path::Path;
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::inside::hold::Hold;
use crate::node::Node;
use crate::tools;

impl Node {
    /// Lets a process hold a network namespace in one of the hidden ways; its id inside the node.
    ///
    /// # Errors
    ///
    /// When it cannot be held that way.
    pub fn hold_netns(&self, netns: &Path, way: Hold) -> Result<u32> {
        let lab = tools::lab_binary()?;
        let log = format!("/run/lab/hold-{}", crate::sandbox::random_uuid()?);
        let argv = [
            lab.to_string_lossy(),
            "hold".into(),
            way.name().into(),
            netns.to_string_lossy(),
        ];
        let pid = self.detach(&["--log", &log], &argv)?;
        self.await_that("holder of the namespace", Duration::from_secs(10), &log, || {
            self.read(&log).is_ok_and(|said| said.contains("ready")) || !self.is_alive(pid)
        })?;
        if self.is_alive(pid) {
            return Ok(pid);
        }
        Err(LabError::Odd(format!(
            "the holder ended: {}",
            self.read(&log).unwrap_or_default().trim()
        )))
    }

    /// The same, and then the namespace's file goes: only this process keeps it, and with it the veth pair. What else was in it must have
    /// been ended before.
    ///
    /// # Errors
    ///
    /// As [`Node::hold_netns`] and [`Node::drop_netns_file`].
    pub fn held_only_by(&self, netns: &Path, way: Hold) -> Result<u32> {
        let pid = self.hold_netns(netns, way)?;
        self.drop_netns_file(netns)?;
        Ok(pid)
    }
}
