//! A veth pair, seen from the host.

use std::fmt::Write;
use std::path::Path;

use nodemend_evidence::Subject;
use nodemend_procns::{Holder, NetnsId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A veth pair with one end in the host's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VethPair {
    /// Index of the host's end.
    pub ifindex: u32,
    /// Name of the host's end.
    pub name: String,
    /// Hardware address of the host's end.
    pub mac: String,
    /// The bridge that the host's end is part of.
    pub master: Option<String>,
    /// Index of the inner end, in its own namespace.
    pub peer_ifindex: Option<u32>,
    /// Name of the inner end, where it was seen.
    pub peer_name: Option<String>,
    /// The namespace of the inner end. None if it could not be found.
    pub netns: Option<NetnsId>,
    /// Who keeps that namespace alive.
    pub holders: Vec<Holder>,
    /// The sandbox that owns that namespace: pod namespace and name, or its id.
    pub owner: Option<String>,
    /// Seconds since the newest sign of life: an address configured on either end, or the attachment's cache file.
    pub age: Option<u64>,
    /// True if it is to be cut from running processes (`--cut-running`).
    pub cut: bool,
}

impl VethPair {
    /// Where the inner end's namespace is mounted on this host.
    pub fn mounts(&self) -> impl Iterator<Item = &Path> {
        mounts(&self.holders)
    }

    /// True if mounts on this host are all that keeps the namespace alive, as far as can be seen.
    pub fn held_by_mounts_only(&self) -> bool {
        !self.holders.is_empty()
            && self
                .holders
                .iter()
                .all(|holder| matches!(holder, Holder::Mount { .. }))
    }
}

/// Where these holders have a namespace mounted on this host.
pub(crate) fn mounts(holders: &[Holder]) -> impl Iterator<Item = &Path> {
    holders.iter().filter_map(|holder| match holder {
        Holder::Mount { path } => Some(path.as_path()),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::ForeignMount { .. } | Holder::Fd { .. } => {
            None
        }
    })
}

/// What makes it this pair and no other. Names and indexes are used again by the kernel; all of these together
/// are not, while the pair lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VethIdentity {
    /// Index of the host's end.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// The namespace of the inner end.
    pub netns: Option<NetnsId>,
    /// Index of the inner end.
    pub peer_ifindex: Option<u32>,
}

impl Subject for VethPair {
    type Identity = VethIdentity;

    fn identity(&self) -> VethIdentity {
        VethIdentity {
            ifindex: self.ifindex,
            name: self.name.clone(),
            mac: self.mac.clone(),
            netns: self.netns,
            peer_ifindex: self.peer_ifindex,
        }
    }

    fn title(&self) -> String {
        let mut title = format!("{} (ifindex {}", self.name, self.ifindex);
        if let Some(master) = &self.master {
            let _ = write!(title, ", master {master}");
        }
        title.push(')');
        if let Some(netns) = &self.netns {
            let peer = self.peer_name.as_deref().unwrap_or("peer");
            let _ = write!(title, "  peer {peer} in netns {netns}");
        }
        for path in self.mounts() {
            let _ = write!(title, "  {}", path.display());
        }
        if let Some(owner) = &self.owner {
            let _ = write!(title, "  {owner}");
        }
        title
    }

    fn action(&self) -> String {
        if self.cut {
            return "remove the pair from under the processes that run in its namespace".to_owned();
        }
        if self.held_by_mounts_only() {
            return "unmount and remove the netns file; the pair goes with the namespace".to_owned();
        }
        "remove the pair".to_owned()
    }
}

/// The name that the CNI plugins bridge and ptp give to the host's end: `veth` and eight hex digits
/// (`RandomVethName` in containernetworking/plugins, pkg/ip/link_linux.go). Docker's has seven.
pub fn is_cni_name(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|rest| {
        rest.len() == 8
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_form_of_the_plugins_is_ours() {
        assert!(is_cni_name("veth7817d4e7"));
        for other in [
            "veth7817d4e",
            "veth7817D4E7",
            "vethwepl1234",
            "ve-web",
            "veth0",
            "cali12345678",
            "veth7817d4e70",
        ] {
            assert!(!is_cni_name(other), "{other}");
        }
    }
}
