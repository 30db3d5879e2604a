//! The containerds that nobody named but their own shims.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use nodemend_hostfs::Host;
use nodemend_procns::{Census, Process};

use crate::endpoint::{Discovery, Endpoint, discover, distinct, file_id, is_roots_socket};
use crate::greeting::{Mute, greet};
use crate::shims::{Keeper, Shim};
use crate::survey::{aside, look_for_shims};

const STATUS_LIMIT: u64 = 1 << 16;

/// [`discover`], and every containerd that a shim names which runs now (`-address`), if it answers.
///
/// One that does not answer is left out: it is a silent source of what its own shims keep, which name it, and of nothing
/// else. One without CRI is not kubelet's, and is asked for what it keeps itself. With `flags` in the discovery, those alone
/// are asked, as there. Where that finds nothing, this finds nothing: nobody knows the records of kubelet's runtime then.
///
/// A shim is heeded if it is root's, in no container, and in this process's mount namespace; what it names, if that is a
/// socket of root's: anybody may call a program `containerd-shim`.
///
/// Needs a tokio runtime with I/O and time.
pub async fn discover_with_shims(
    host: &Host,
    discovery: &Discovery,
    census: &Census,
    deadline: Duration,
) -> Vec<Endpoint> {
    let mut endpoints = discover(host, discovery);
    if endpoints.is_empty() || !discovery.flags.is_empty() || !host.is_running() {
        return endpoints;
    }
    // What cannot be read is told with the shims themselves.
    let shims = look_for_shims(host, census, &endpoints, deadline).await;
    let shims = outside(census, shims.unwrap_or_default());
    let (at, known) = (host.clone(), endpoints.clone());
    let named = aside(deadline, move || named(&at, known, &shims)).await;
    let named = named.unwrap_or_default();
    let greetings = named.iter().map(|endpoint| greet(host, endpoint, deadline));
    let greetings = join_all(greetings).await;
    let answering = named.into_iter().zip(greetings);
    endpoints.extend(answering.filter_map(|(endpoint, said)| match said {
        Ok(_) => Some(endpoint),
        Err(Mute::NoCri) => Some(endpoint.without_cri()),
        Err(reason @ (Mute::NobodyThere(_) | Mute::Silent(_) | Mute::Unreachable(_))) => {
            tracing::debug!(endpoint = endpoint.address(), %reason, "a shim names it");
            None
        }
    }));
    endpoints
}

/// The shims that are in no container. Ids that process 1 carries too are those of a node in a container.
fn outside(census: &Census, mut shims: Vec<Shim>) -> Vec<Shim> {
    let ids = |process: &Process| process.container_ids.clone();
    let outer = census.process(1).map(ids).unwrap_or_default();
    shims.retain(|shim| {
        let process = census.process(shim.pid);
        process.is_some_and(|process| process.container_ids.iter().all(|id| outer.contains(id)))
    });
    shims
}

/// The endpoints that shims name, and that are not known yet.
fn named(host: &Host, known: Vec<Endpoint>, shims: &[Shim]) -> Vec<Endpoint> {
    let addresses = shims.iter().filter_map(|shim| match &shim.keeper {
        Keeper::Containerd { address, .. } => Some((shim.pid, address.as_ref()?)),
        Keeper::Crio | Keeper::Other => None,
    });
    let asked: BTreeSet<&Path> = known
        .iter()
        .filter_map(|endpoint| endpoint.socket().ok())
        .collect();
    let addresses = addresses.filter(|(_, address)| !asked.contains(address.as_path()));
    let heeded = addresses.filter(|(pid, _)| sees_the_same_files(host, *pid) && is_roots(host, *pid));
    let sockets: BTreeSet<&PathBuf> = heeded.map(|(_, address)| address).collect();
    let sockets = sockets
        .into_iter()
        .filter(|address| is_roots_socket(host, address));
    let found = sockets.map(|address| Endpoint::new(&address.to_string_lossy()));
    let count = known.len();
    let all = distinct(host, known.into_iter().chain(found).collect());
    all.into_iter().skip(count).collect()
}

fn sees_the_same_files(host: &Host, pid: u32) -> bool {
    let its = file_id(host, Path::new(&format!("/proc/{pid}/ns/mnt")));
    its.is_some() && its == file_id(host, Path::new("/proc/self/ns/mnt"))
}

/// True if all its user ids are 0 (proc(5), `Uid`).
fn is_roots(host: &Host, pid: u32) -> bool {
    let status = host.read(Path::new(&format!("/proc/{pid}/status")), STATUS_LIMIT);
    let status = status.unwrap_or_default();
    let text = String::from_utf8_lossy(&status);
    let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().all(|id| id == "0"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn shim(pid: u32, address: &Path) -> Shim {
        Shim {
            pid,
            id: "8f3a".into(),
            keeper: Keeper::Containerd {
                namespace: Some("k8s.io".into()),
                address: Some(address.to_owned()),
            },
        }
    }

    #[test]
    fn a_shim_in_a_container_is_not_heeded() {
        let process = |pid, ids: &[&str]| Process {
            pid,
            comm: "containerd-shim".into(),
            start_time: 0,
            netns: None,
            container_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            cni: None,
        };
        let census = Census {
            processes: vec![
                process(1, &["node"]),
                process(7, &["node"]),
                process(8, &["node", "pod"]),
            ],
            ..Census::default()
        };
        let all = [7, 8, 9].map(|pid| shim(pid, Path::new("/run/x.sock")));
        let heeded = outside(&census, all.to_vec());
        assert_eq!(heeded.iter().map(|shim| shim.pid).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn only_a_socket_that_is_there_and_not_known_is_named() {
        let (host, own) = (Host::local(), std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let _sockets = ["one", "two"].map(|name| UnixListener::bind(at(name)).unwrap());
        std::os::unix::fs::symlink("two", at("link")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        let known = vec![Endpoint::new(&at("two").to_string_lossy())];
        let shims = ["one", "link", "file", "gone", "one"].map(|name| shim(own, &at(name)));
        let found = named(&host, known.clone(), &shims);
        let wanted = match is_roots(&host, own) {
            true => vec![Endpoint::new(&at("one").to_string_lossy())],
            false => vec![],
        };
        assert_eq!(found, wanted);
        // Nobody has this pid.
        assert_eq!(named(&host, known, &[shim(u32::MAX, &at("one"))]), []);
    }
}
