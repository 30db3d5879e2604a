//! What runc keeps of each container, which outlives the processes, the shim and the bundle.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bundles::{is_missing, names};
use crate::knowledge::Pod;
use crate::metadata::Specification;

/// Where every containerd has runc keep its state, whatever its own state directory is: `<namespace>/<id>` below it
/// (cmd/containerd-shim-runc-v2/process/utils.go, `RuncRoot`). An option of the runtime (`Root`) puts it elsewhere; that is
/// not looked for.
const RUNC_ROOT: &str = "/run/containerd/runc";
const STATE: &str = "state.json";
/// What runc makes before it writes its state (libcontainer/container_linux.go, `execFifoFilename`).
const BEFORE_STATE: &str = "exec.fifo";
const STATE_LIMIT: u64 = 16 << 20;

/// The directory in which runc keeps the state of a container, and what its `state.json` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuncState {
    /// The directory.
    pub path: PathBuf,
    /// Which directory that is.
    pub dir: FileId,
    /// When something in it was last made or removed, in seconds since 1970.
    pub modified: u64,
    /// The container.
    pub id: String,
    /// The namespace of containerd.
    pub namespace: String,
    /// Why its state could not be read: then nothing below is known of it.
    pub unreadable: Option<String>,
    /// The first process of the container, by pid and by its start in clock ticks since boot.
    pub init: Option<(u32, u64)>,
    /// The bundle that the container was started from.
    pub bundle: Option<PathBuf>,
    /// The directories of its cgroups, in every controller.
    pub cgroups: Vec<PathBuf>,
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
}

/// The parts of `state.json` that tell whose a container is (libcontainer/container.go, `BaseState`;
/// libcontainer/container_linux.go, `State`; the same in runc 1.0 to 1.3).
#[derive(Deserialize)]
struct Raw {
    init_process_pid: u32,
    init_process_start: u64,
    config: Config,
    #[serde(default)]
    cgroup_paths: Option<HashMap<String, PathBuf>>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    labels: Option<Vec<String>>,
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    source: String,
}

/// Every state of runc on the host. One that goes meanwhile is left out.
pub(crate) fn states(host: &Host) -> Result<Vec<RuncState>, String> {
    let root = Path::new(RUNC_ROOT);
    let mut found = Vec::new();
    for namespace in names(host, root)? {
        for id in names(host, &root.join(&namespace))? {
            let path = root.join(&namespace).join(&id);
            found.extend(state(host, path, &namespace, id)?);
        }
    }
    Ok(found)
}

fn state(host: &Host, path: PathBuf, namespace: &str, id: String) -> Result<Option<RuncState>, String> {
    let fd = match host.open_dir(&path) {
        Ok(fd) => fd,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let stat = rustix::fs::fstat(fd.as_fd()).map_err(|errno| format!("{}: {errno}", path.display()))?;
    let mut state = RuncState {
        dir: FileId::from(&stat),
        modified: u64::try_from(stat.st_mtime).unwrap_or_default(),
        id,
        namespace: namespace.to_owned(),
        ..RuncState::default()
    };
    match raw(host, &path)? {
        Ok(Some(raw)) => state.fill(raw),
        Ok(None) => {}
        Err(reason) => state.unreadable = Some(reason),
    }
    state.path = path;
    Ok(Some(state))
}

/// What the state says; nothing if runc was stopped before it wrote any. Inside, why it cannot be read.
fn raw(host: &Host, dir: &Path) -> Result<Result<Option<Raw>, String>, String> {
    let bytes = match host.read(&dir.join(STATE), STATE_LIMIT) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) => {
            let others = names(host, dir)?;
            let mut others = others.iter().filter(|name| *name != BEFORE_STATE);
            return Ok(match others.next() {
                None => Ok(None),
                Some(other) => Err(format!("it has no {STATE}, but {other}: runc did not write this")),
            });
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    let parsed = serde_json::from_slice(&bytes);
    Ok(parsed
        .map(Some)
        .map_err(|error| format!("its {STATE} cannot be read: {error}")))
}

impl RuncState {
    fn fill(&mut self, raw: Raw) {
        let Config {
            labels,
            namespaces,
            mounts,
        } = raw.config;
        let labels = labels.unwrap_or_default();
        // runc appends it to the annotations, of which one may have the same name.
        let bundle = labels
            .iter()
            .rev()
            .find_map(|label| label.strip_prefix("bundle="));
        self.bundle = bundle.map(PathBuf::from);
        let pairs = labels.iter().filter_map(|label| label.split_once('='));
        let sources = mounts.into_iter().flatten().map(|mount| mount.source);
        let specification = Specification::of(pairs, sources);
        self.sandbox_id = specification.sandbox_id();
        self.name = specification.container_name();
        self.is_sandbox = specification.is_sandbox();
        self.pod = specification.pod();
        let mut namespaces = namespaces.into_iter().flatten();
        let network = namespaces.find(|namespace| namespace.kind == "NEWNET");
        self.netns = network
            .map(|namespace| namespace.path)
            .filter(|path| !path.as_os_str().is_empty());
        self.init = (raw.init_process_pid > 0).then_some((raw.init_process_pid, raw.init_process_start));
        self.cgroups = raw.cgroup_paths.unwrap_or_default().into_values().collect();
        self.cgroups.sort_unstable();
        self.cgroups.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As runc 1.1 writes it, cut to the parts that are read.
    const JSON: &str = r#"{"id":"9c","init_process_pid":4711,"init_process_start":123456,"created":"2026-01-01T00:00:00Z",
        "config":{"rootfs":"/x","mounts":[{"source":"proc","destination":"/proc"}],
        "labels":["bundle=/of/an/annotation","io.kubernetes.cri.container-type=container",
        "io.kubernetes.cri.sandbox-id=8f3a","io.kubernetes.cri.container-name=app","io.kubernetes.cri.sandbox-uid=u",
        "io.kubernetes.cri.sandbox-name=web-1","io.kubernetes.cri.sandbox-namespace=default",
        "bundle=/run/containerd/io.containerd.runtime.v2.task/k8s.io/9c"],
        "namespaces":[{"type":"NEWPID","path":""},{"type":"NEWNET","path":"/var/run/netns/cni-1"}]},
        "rootless":false,"cgroup_paths":{"cpu":"/sys/fs/cgroup/cpu,cpuacct/kubepods/9c",
        "cpuacct":"/sys/fs/cgroup/cpu,cpuacct/kubepods/9c","memory":"/sys/fs/cgroup/memory/kubepods/9c"}}"#;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join("run/containerd/runc").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    #[test]
    fn a_node_without_runc_has_no_state() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(states(&Host::at(dir.path())), Ok(vec![]));
    }

    #[test]
    fn a_state_tells_its_sandbox_its_bundle_and_its_first_process() {
        let (dir, host) = tree(&[("k8s.io/9c/state.json", JSON)]);
        let found = states(&host).unwrap();
        let path = "run/containerd/runc/k8s.io/9c";
        let wanted = RuncState {
            path: Path::new("/").join(path),
            dir: FileId::from(&rustix::fs::stat(dir.path().join(path)).unwrap()),
            modified: found[0].modified,
            id: "9c".into(),
            namespace: "k8s.io".into(),
            unreadable: None,
            init: Some((4711, 123_456)),
            bundle: Some("/run/containerd/io.containerd.runtime.v2.task/k8s.io/9c".into()),
            cgroups: vec![
                "/sys/fs/cgroup/cpu,cpuacct/kubepods/9c".into(),
                "/sys/fs/cgroup/memory/kubepods/9c".into(),
            ],
            sandbox_id: Some("8f3a".into()),
            name: Some("app".into()),
            is_sandbox: false,
            pod: Some(Pod {
                uid: "u".into(),
                namespace: "default".into(),
                name: "web-1".into(),
            }),
            netns: Some("/var/run/netns/cni-1".into()),
        };
        assert!(found[0].modified > 0);
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn a_state_that_tells_nothing_still_has_its_id() {
        let (dir, host) = tree(&[
            ("default/cut/state.json", &JSON[..JSON.len() / 2]),
            ("default/of-crun/status", "{}"),
            ("default/early/exec.fifo", ""),
            ("default/no-directory", ""),
        ]);
        std::fs::create_dir(dir.path().join("run/containerd/runc/default/empty")).unwrap();
        let found = states(&host).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|state| (state.id.as_str(), state.unreadable.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                ("cut", true),
                ("early", false),
                ("empty", false),
                ("of-crun", true)
            ]
        );
        assert!(
            found
                .iter()
                .all(|state| state.init.is_none() && state.bundle.is_none())
        );
    }

    #[test]
    fn a_directory_that_cannot_be_listed_leaves_everything_open() {
        let (dir, host) = tree(&[("default/a/state.json", JSON)]);
        std::os::unix::fs::symlink("loop", dir.path().join("run/containerd/runc/loop")).unwrap();
        assert!(states(&host).unwrap_err().contains("loop"));
    }
}
