//! Which directories hold reservations, and which of them are this node's own.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_cni::{CacheEntry, Configurations, DEFAULT_DATA_DIR, FlannelEntry, Network};
use nodemend_hostfs::{FileId, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::read::{Place, reservations};
use crate::reservation::Reservation;

/// Where kindnet keeps them.
const KIND_DATA_DIR: &str = "/run/cni-ipam-state";

/// One directory of reservations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkDir {
    /// The network: the name of the directory.
    pub network: Arc<str>,
    /// The directory, for people: bytes that are no text are replaced. Exact if `configured`.
    pub dir: Arc<str>,
    /// True if a CNI configuration of this node keeps its reservations here. All others are somebody else's.
    pub configured: bool,
    /// Why its files could not be listed. Nobody knows then what it reserves.
    pub problem: Option<String>,
}

/// A directory that may hold reservations.
struct Candidate {
    network: String,
    path: PathBuf,
    configured: bool,
}

/// Finds every network directory and reads it: those of the configurations first, then those that the attachments
/// in libcni's cache and flannel's scratch files used, then all others in the usual places.
pub(crate) fn look(
    host: &Host,
    configurations: &Configurations,
    cache: &[CacheEntry],
    now: u64,
) -> (Vec<NetworkDir>, Vec<Reservation>) {
    let scratch = nodemend_cni::flannel_scratch(host).entries;
    let mut seen = HashSet::new();
    let mut networks = Vec::new();
    let mut found = Vec::new();
    for candidate in candidates(host, configurations, cache, &scratch) {
        let fd = match host.open_dir(&candidate.path) {
            Ok(fd) => fd,
            Err(error) => {
                if candidate.configured && !error.is_not_found() {
                    networks.push(candidate.into_dir(Some(error.to_string())));
                }
                continue;
            }
        };
        // The same directory may be reached by two paths (/var/run is a link to /run).
        if FileId::of(&fd).is_ok_and(|id| seen.insert(id)) {
            networks.push(read(&fd, candidate, now, &mut found));
        }
    }
    (networks, found)
}

fn read(fd: &OwnedFd, candidate: Candidate, now: u64, found: &mut Vec<Reservation>) -> NetworkDir {
    let mut network = candidate.into_dir(None);
    let place = Place {
        network: network.network.clone(),
        dir: network.dir.clone(),
        now,
    };
    match reservations(fd, &place) {
        Ok(read) => found.extend(read),
        Err(error) => network.problem = Some(error.to_string()),
    }
    network
}

impl Candidate {
    fn new(network: &str, data_dir: &Path, configured: bool) -> Option<Self> {
        let path = is_network_name(network).then(|| data_dir.join(network))?;
        Some(Self {
            network: network.to_owned(),
            path,
            configured,
        })
    }

    fn into_dir(self, problem: Option<String>) -> NetworkDir {
        let dir = self.path.to_string_lossy().into();
        NetworkDir {
            network: self.network.into(),
            dir,
            configured: self.configured,
            problem,
        }
    }
}

fn candidates(
    host: &Host,
    configurations: &Configurations,
    cache: &[CacheEntry],
    scratch: &[FlannelEntry],
) -> Vec<Candidate> {
    let mut candidates: Vec<_> = configurations.networks.iter().flat_map(own).collect();
    let cached = cache
        .iter()
        .flat_map(|entry| cached(entry).map(|dir| (&*entry.network, dir)));
    let delegated = scratch
        .iter()
        .map(|entry| (&*entry.network, or_default(entry.data_dir.as_deref())));
    let used: BTreeSet<(&str, &Path)> = cached.chain(delegated).collect();
    candidates.extend(
        used.into_iter()
            .filter_map(|(network, dir)| Candidate::new(network, dir, false)),
    );
    for base in [DEFAULT_DATA_DIR, KIND_DATA_DIR].map(Path::new) {
        candidates.extend(
            host.list(base)
                .unwrap_or_default()
                .into_iter()
                .map(|name| Candidate {
                    network: name.to_string_lossy().into_owned(),
                    path: base.join(name),
                    configured: false,
                }),
        );
    }
    candidates
}

/// The directories of one configured network.
fn own(network: &Network) -> impl Iterator<Item = Candidate> {
    let ipams = network.ipam.iter().filter(|ipam| ipam.kind == "host-local");
    ipams.filter_map(|ipam| Candidate::new(&network.name, ipam.data_dir(), true))
}

/// The data directories of an attachment in libcni's cache.
fn cached(entry: &CacheEntry) -> impl Iterator<Item = &Path> {
    let default = entry.data_dirs.is_empty().then_some(Path::new(DEFAULT_DATA_DIR));
    entry.data_dirs.iter().map(PathBuf::as_path).chain(default)
}

fn or_default(dir: Option<&Path>) -> &Path {
    dir.unwrap_or(Path::new(DEFAULT_DATA_DIR))
}

/// The names that libcni accepts for a network (`validateNetworkName` in pkg/utils/utils.go). Anything else could
/// lead out of the data directory.
fn is_network_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_name_never_leads_out_of_the_data_directory() {
        for good in ["cbr0", "k8s-pod-network", "gke_net.1"] {
            assert!(is_network_name(good));
        }
        for bad in [
            "",
            ".",
            "..",
            "../../etc",
            "a/b",
            "/etc",
            "-x",
            "new\nline",
            "a b",
        ] {
            assert!(!is_network_name(bad), "{bad}");
            assert!(Candidate::new(bad, Path::new(DEFAULT_DATA_DIR), true).is_none());
        }
    }
}
