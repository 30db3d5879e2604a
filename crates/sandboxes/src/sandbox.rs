//! One sandbox, with everything on the node that belongs to it.

use std::net::IpAddr;
use std::path::PathBuf;

use nodemend_cni::CacheEntry;
use nodemend_evidence::Subject;
use nodemend_hostfs::FileId;
use nodemend_procns::NetnsId;
use nodemend_runtime::Pod;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::describe;

/// A sandbox, by what is left of it on the node. Any part may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// The sandbox's id; of a container that belongs to none, its own.
    pub id: String,
    /// The namespace of containerd that it is in.
    pub namespace: Option<String>,
    /// The pod, by the bundle's annotations, the cgroup's path or the runtime.
    pub pod: Option<Pod>,
    /// A record that a runtime has of the same pod under another id: the pod was started again.
    pub twin: Option<String>,
    /// Its containers, the sandbox's own (pause) first.
    pub containers: Vec<Container>,
    /// The processes that watch over it.
    pub shims: Vec<Shim>,
    /// The processes of its containers.
    pub processes: Vec<Process>,
    /// What containerd's task service still lists of it.
    pub tasks: Vec<Task>,
    /// Its bundle directories.
    pub bundles: Vec<Bundle>,
    /// What runc keeps of its containers.
    #[serde(default)]
    pub runc_states: Vec<RuncState>,
    /// Its mounts on this host, but for those of its network namespace.
    pub mounts: Vec<SandboxMount>,
    /// Its network. None if it uses the host's, or nothing is left of it.
    pub network: Option<Network>,
    /// Its cgroups, in every controller.
    pub cgroups: Vec<Cgroup>,
    /// Its files in libcni's cache.
    pub attachments: Vec<CacheEntry>,
    /// Seconds since the newest sign that it was made: its youngest container, by the oldest process of it; its cache
    /// file; if nothing of it runs, its bundle and what runc keeps of it.
    pub age: Option<u64>,
    /// True if its processes are to be ended (`--reap`).
    pub reap: bool,
}

/// A container of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name in the pod (`io.kubernetes.container.name`, `io.kubernetes.cri.container-name`), if anything says it.
    pub name: Option<String>,
    /// True for the sandbox's own container.
    pub pause: bool,
}

/// A process that watches over containers: containerd's shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shim {
    /// Its pid.
    pub pid: u32,
    /// Its start in clock ticks since boot: with the pid, its identity.
    pub start_time: u64,
    /// Its program, as /proc/PID/exe names it.
    pub program: PathBuf,
    /// The socket of the containerd that started it (`-address`).
    pub containerd: Option<PathBuf>,
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its start in clock ticks since boot: with the pid, its identity.
    pub start_time: u64,
    /// The container.
    pub container: String,
    /// Its command line, words joined by blanks, cut after 200 characters.
    pub command: String,
    /// Its resident memory, in bytes.
    pub memory: u64,
    /// True for the sandbox's own process (pause): it does nothing.
    pub pause: bool,
    /// Where it listens: `0.0.0.0:8080/tcp`.
    pub listens: Vec<String>,
}

/// A task of containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The containerd.
    pub endpoint: PathBuf,
    /// The namespace in it.
    pub namespace: String,
    /// The container.
    pub id: String,
}

/// A bundle directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The directory below containerd's state directory.
    pub path: PathBuf,
    /// Which directory that is.
    pub dir: FileId,
    /// The container.
    pub container: String,
}

/// The directory in which runc keeps the state of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuncState {
    /// The directory.
    pub path: PathBuf,
    /// Which directory that is.
    pub dir: FileId,
    /// The container.
    pub container: String,
    /// Its first process, by pid and by its start in clock ticks since boot.
    pub init: Option<(u32, u64)>,
    /// The directories of its cgroups, as runc wrote them down.
    pub cgroups: Vec<PathBuf>,
}

/// A mount that was made for a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMount {
    /// Where.
    pub mountpoint: PathBuf,
    /// The id of the mount in mountinfo.
    pub id: u64,
    /// `overlay`, `tmpfs` …
    pub fstype: String,
    /// A layer of the overlay, a lower directory or the upper one, that is not there any more.
    pub lost_layer: Option<PathBuf>,
}

/// The network of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The namespace.
    pub netns: NetnsId,
    /// Where it is mounted on this host.
    pub paths: Vec<PathBuf>,
    /// The host's ends of its veth pairs.
    pub veths: Vec<String>,
    /// Its addresses, but for loopback and link-local ones.
    pub addresses: Vec<IpAddr>,
}

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Which directory that is.
    pub dir: FileId,
}

/// What makes it this sandbox and no other: what lives on under the id. Processes of the application come and go and
/// are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxIdentity {
    /// The sandbox's id.
    pub id: String,
    /// The namespace of containerd.
    pub namespace: Option<String>,
    /// Its shims, as pid and start time.
    pub shims: Vec<(u32, u64)>,
    /// Its bundles.
    pub bundles: Vec<FileId>,
    /// What runc keeps of its containers.
    pub runc_states: Vec<FileId>,
    /// Its network namespace.
    pub netns: Option<NetnsId>,
}

impl Sandbox {
    /// True if a process of it still runs, its shims and pause included.
    pub fn runs(&self) -> bool {
        !self.shims.is_empty() || !self.processes.is_empty()
    }
}

impl Subject for Sandbox {
    type Identity = SandboxIdentity;

    fn identity(&self) -> SandboxIdentity {
        SandboxIdentity {
            id: self.id.clone(),
            namespace: self.namespace.clone(),
            shims: self
                .shims
                .iter()
                .map(|shim| (shim.pid, shim.start_time))
                .collect(),
            bundles: self.bundles.iter().map(|bundle| bundle.dir).collect(),
            runc_states: self.runc_states.iter().map(|state| state.dir).collect(),
            netns: self.network.as_ref().map(|network| network.netns),
        }
    }

    fn title(&self) -> String {
        describe::title(self)
    }

    fn action(&self) -> String {
        describe::action(self)
    }
}
