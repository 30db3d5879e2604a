//! One pair, made by hand.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::network::BRIDGE;
use crate::node::Node;

impl Node {
    /// Makes a network namespace as a runtime mounts it, with a veth pair to the bridge, and nobody who knows it. Its file.
    ///
    /// `options` go to `ip link add`, as `index 42`.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn make_pair(&self, veth: &str, options: &str, netns: &str) -> Result<PathBuf> {
        self.ensure_bridge()?;
        let file = Path::new("/run/netns").join(netns);
        let path = file.display();
        self.shell(&format!(
            "mkdir -p /run/netns; touch {path}; unshare --net={path} true
             ip link add {veth} {options} type veth peer name eth0 netns {path}
             ip link set {veth} master {BRIDGE} up"
        ))?;
        Ok(file)
    }
}
