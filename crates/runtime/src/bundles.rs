//! The directories that runtimes keep beside running containers, which outlive both the records and the processes.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Error, FileId, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::knowledge::{Pod, Record, RecordKind};
use crate::metadata::Specification;

/// The state directories of containerd and of k3s's containerd.
const STATE_DIRS: [&str; 2] = ["/run/containerd", "/run/k3s/containerd"];
/// Below a state directory: `<namespace>/<id>` (core/runtime/v2/bundle.go; the second up to containerd 1.7).
const BELOW_STATE: [&str; 2] = ["io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"];
/// Of CRI-O and podman: `<id>/userdata` (containers-storage.conf, `runroot`).
const OVERLAY_CONTAINERS: &str = "/run/containers/storage/overlay-containers";
const CONFIG_LIMIT: u64 = 16 << 20;
/// The state of a bundle whose specification is there and cannot be read. Nobody can say which network it has.
pub(crate) const UNREADABLE: &str = "its config.json cannot be read";

/// Where a bundle keeps what is read of it.
struct Bundle {
    dir: PathBuf,
    id: String,
    namespace: Option<String>,
    pid_file: &'static str,
}

/// A bundle directory, and what its specification says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleDir {
    /// The directory; of CRI-O and podman, the `userdata` in it.
    pub path: PathBuf,
    /// Which directory that is.
    pub dir: FileId,
    /// When something in it was last made or removed, in seconds since 1970.
    pub modified: u64,
    /// The container.
    pub id: String,
    /// The namespace of containerd. None for a bundle of CRI-O or podman.
    pub namespace: Option<String>,
    /// Why its specification could not be read: then nothing below is known of it.
    pub unreadable: Option<String>,
    /// The sandbox that the container belongs to; its own id for a sandbox.
    pub sandbox_id: Option<String>,
    /// The container's name in the pod. None for a sandbox.
    pub name: Option<String>,
    /// True for a sandbox's own container (pause).
    pub is_sandbox: bool,
    /// The pod.
    pub pod: Option<Pod>,
    /// The path of its network namespace.
    pub netns: Option<PathBuf>,
    /// True if it uses the host's network.
    pub host_network: bool,
    /// Its cgroup, as it was given to runc: a path, or `slice:prefix:name` for systemd.
    pub cgroup: Option<String>,
}

/// Every bundle on the host as a record.
pub(crate) fn find(host: &Host, sockets: &[PathBuf]) -> Result<Vec<Record>, String> {
    let bundles = enumerate(host, sockets)?;
    Ok(bundles.iter().filter_map(|bundle| read(host, bundle)).collect())
}

/// Every bundle on the host, with its directory. One that goes meanwhile is left out.
pub(crate) fn directories(host: &Host, sockets: &[PathBuf]) -> Result<Vec<BundleDir>, String> {
    let mut found = Vec::new();
    for bundle in enumerate(host, sockets)? {
        found.extend(directory(host, bundle)?);
    }
    Ok(found)
}

fn directory(host: &Host, bundle: Bundle) -> Result<Option<BundleDir>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", bundle.dir.display());
    let fd = match host.open_dir(&bundle.dir) {
        Ok(fd) => fd,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let stat = rustix::fs::fstat(fd.as_fd()).map_err(|errno| failed(errno.into()))?;
    let (specification, unreadable) = match told(host, &bundle.dir.join("config.json")) {
        Some(Told::Specification(specification)) => (specification, None),
        Some(Told::Nothing) | None => (Specification::default(), None),
        Some(Told::Unreadable) => (Specification::default(), Some(UNREADABLE.to_owned())),
    };
    let network = specification.network();
    Ok(Some(BundleDir {
        dir: FileId::from(&stat),
        modified: u64::try_from(stat.st_mtime).unwrap_or_default(),
        unreadable,
        sandbox_id: specification.sandbox_id(),
        name: specification.container_name(),
        is_sandbox: specification.is_sandbox(),
        pod: specification.pod(),
        host_network: network.is_host(),
        netns: network.reference().map(|netns| netns.path),
        cgroup: specification.cgroup(),
        path: bundle.dir,
        id: bundle.id,
        namespace: bundle.namespace,
    }))
}

/// Where the bundles are. `sockets` are where runtimes listen: their state is in the same directory, or in
/// `containerd` below it (microk8s).
fn enumerate(host: &Host, sockets: &[PathBuf]) -> Result<Vec<Bundle>, String> {
    let mut bundles = Vec::new();
    for state in state_dirs(host, sockets)? {
        for below in BELOW_STATE {
            of_containerd(host, &state.join(below), &mut bundles)?;
        }
    }
    for id in names(host, Path::new(OVERLAY_CONTAINERS))? {
        let dir = Path::new(OVERLAY_CONTAINERS).join(&id).join("userdata");
        bundles.push(Bundle {
            dir,
            id,
            namespace: None,
            pid_file: "pidfile",
        });
    }
    Ok(bundles)
}

/// The state directories that exist, each once.
fn state_dirs(host: &Host, sockets: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let beside = sockets.iter().filter_map(|socket| socket.parent());
    let beside = beside.flat_map(|dir| [dir.to_owned(), dir.join("containerd")]);
    let mut seen = HashSet::new();
    let mut dirs = Vec::new();
    for dir in STATE_DIRS.into_iter().map(PathBuf::from).chain(beside) {
        match host.open_dir(&dir) {
            Ok(fd) => {
                let id = FileId::of(fd).map_err(|error| format!("{}: {error}", dir.display()))?;
                if seen.insert(id) {
                    dirs.push(dir);
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(dirs)
}

fn of_containerd(host: &Host, tasks: &Path, bundles: &mut Vec<Bundle>) -> Result<(), String> {
    for namespace in names(host, tasks)? {
        for id in names(host, &tasks.join(&namespace))? {
            let dir = tasks.join(&namespace).join(&id);
            bundles.push(Bundle {
                dir,
                id,
                namespace: Some(namespace.clone()),
                pid_file: "init.pid",
            });
        }
    }
    Ok(())
}

/// The names in a directory; none if it is not there, or no directory.
pub(crate) fn names(host: &Host, dir: &Path) -> Result<Vec<String>, String> {
    match host.list(dir) {
        Ok(names) => Ok(names
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect()),
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a bundle says of itself.
enum Told {
    Specification(Specification),
    /// It has none: the runtime is about to write it, or to remove the bundle.
    Nothing,
    /// It has one that cannot be read.
    Unreadable,
}

/// A bundle has an id whatever it holds. What is no directory is no bundle.
fn read(host: &Host, bundle: &Bundle) -> Option<Record> {
    let told = told(host, &bundle.dir.join("config.json"))?;
    let state = matches!(told, Told::Unreadable).then(|| UNREADABLE.to_owned());
    let specification = match told {
        Told::Specification(specification) => specification,
        Told::Nothing | Told::Unreadable => Specification::default(),
    };
    let network = specification.network();
    Some(Record {
        kind: RecordKind::Bundle,
        id: bundle.id.clone(),
        sandbox_id: specification.sandbox_id(),
        namespace: bundle.namespace.clone(),
        state,
        pid: pid(host, &bundle.dir.join(bundle.pid_file)),
        host_network: network.is_host(),
        netns: network.reference(),
        pod: specification.pod(),
    })
}

fn told(host: &Host, config: &Path) -> Option<Told> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        tracing::warn!(config = %config.display(), %reason, "a bundle cannot be read");
        Some(Told::Unreadable)
    };
    match host.read(config, CONFIG_LIMIT) {
        Ok(bytes) => match Specification::parse(&bytes) {
            Ok(specification) => Some(Told::Specification(specification)),
            Err(error) => unreadable(&error),
        },
        Err(error) if error.is_not_found() => Some(Told::Nothing),
        Err(error) if is_missing(&error) => None,
        Err(error) => unreadable(&error),
    }
}

/// The pid may be another process's by now, so nothing depends on it, and not having it is no loss.
fn pid(host: &Host, path: &Path) -> Option<u32> {
    let bytes = host.read(path, 64).ok()?;
    std::str::from_utf8(&bytes)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
}

pub(crate) fn is_missing(error: &Error) -> bool {
    let no_directory =
        matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory);
    no_directory || error.is_not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.container-type":"sandbox",
        "io.kubernetes.cri.sandbox-id":"8f3a","io.kubernetes.cri.sandbox-uid":"u","io.kubernetes.cri.sandbox-name":"web-1",
        "io.kubernetes.cri.sandbox-namespace":"default"},
        "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/cni-1"}]}}"#;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    #[test]
    fn a_node_without_bundles_has_none() {
        let (_dir, host) = tree(&[]);
        assert_eq!(find(&host, &["/run/x/y.sock".into()]), Ok(vec![]));
    }

    #[test]
    fn a_bundle_tells_its_pod_its_network_and_its_pid() {
        let task = "run/containerd/io.containerd.runtime.v2.task/k8s.io/8f3a";
        let (_dir, host) = tree(&[
            (&format!("{task}/config.json"), CONFIG),
            (&format!("{task}/init.pid"), "4711"),
        ]);
        let found = find(&host, &["/run/containerd/containerd.sock".into()]).unwrap();
        assert_eq!(found.len(), 1, "each state directory is looked at once");
        let record = &found[0];
        assert_eq!(
            (record.id.as_str(), record.sandbox_id.as_deref(), record.pid),
            ("8f3a", Some("8f3a"), Some(4711))
        );
        assert_eq!(record.namespace.as_deref(), Some("k8s.io"));
        assert_eq!(
            record.netns.as_ref().unwrap().path,
            Path::new("/var/run/netns/cni-1")
        );
        assert_eq!(record.pod.as_ref().unwrap().name, "web-1");
    }

    #[test]
    fn bundles_are_found_beside_every_socket_and_of_cri_o() {
        let (_dir, host) = tree(&[
            (
                "srv/run/io.containerd.runtime.v2.task/default/a/config.json",
                "{}",
            ),
            (
                "snap/run/containerd/io.containerd.runtime.v1.linux/k8s.io/b/config.json",
                "{}",
            ),
            (
                "run/containers/storage/overlay-containers/c/userdata/config.json",
                "{}",
            ),
            ("run/containers/storage/overlay-containers/d/userdata/other", ""),
            ("run/containers/storage/overlay-containers/containers.lock", ""),
        ]);
        let found = find(
            &host,
            &["/srv/run/c.sock".into(), "/snap/run/containerd.sock".into()],
        )
        .unwrap();
        let ids: Vec<_> = found.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_bundle_that_was_cut_short_still_has_its_id() {
        let tasks = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
        let (_dir, host) = tree(&[
            (&format!("{tasks}/8f3a/config.json"), &CONFIG[..CONFIG.len() / 2]),
            (&format!("{tasks}/8f3a/init.pid"), "4711"),
            (&format!("{tasks}/9c/config.json/not-a-file"), ""),
            (&format!("{tasks}/ab/init.pid"), "12"),
        ]);
        let found = find(&host, &[]).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|record| (record.id.as_str(), record.state.as_deref(), record.pid))
            .collect();
        let unreadable = Some(UNREADABLE);
        assert_eq!(
            told,
            [
                ("8f3a", unreadable, Some(4711)),
                ("9c", unreadable, None),
                ("ab", None, Some(12))
            ]
        );
        assert!(
            found
                .iter()
                .all(|record| record.netns.is_none() && !record.host_network)
        );
    }

    #[test]
    fn a_directory_that_cannot_be_listed_leaves_everything_open() {
        // A loop of links: neither there nor missing.
        let (dir, host) = tree(&[("run/containerd/x", "")]);
        let tasks = dir.path().join("run/containerd/io.containerd.runtime.v2.task");
        std::os::unix::fs::symlink("io.containerd.runtime.v2.task", tasks).unwrap();
        assert!(
            find(&host, &[])
                .unwrap_err()
                .contains("io.containerd.runtime.v2.task")
        );
    }
}
