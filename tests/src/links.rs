//! The node's network interfaces.

use serde::Deserialize;

use crate::error::{LabError, Result};
use crate::node::Node;

/// An interface, as `ip -json` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// Its hardware address.
    pub address: Option<String>,
    /// The index of its peer, in the peer's namespace.
    pub link_index: Option<u32>,
    /// This namespace's id for the peer's namespace.
    pub link_netnsid: Option<i32>,
    /// `UP`, `DOWN`, `LOWERLAYERDOWN`.
    pub operstate: String,
}

impl Node {
    /// Every interface of the node.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn links(&self) -> Result<Vec<Link>> {
        let text = self.exec(&["ip", "-json", "link"])?;
        serde_json::from_str(&text).map_err(|error| LabError::Odd(format!("ip -json link: {error}")))
    }

    /// The names of the node's veth ends.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn veths(&self) -> Result<Vec<String>> {
        let links = self.links()?.into_iter().map(|link| link.ifname);
        Ok(links.filter(|name| name.starts_with("veth")).collect())
    }
}
