//! One look at containerd: what it is, how it is, what lies in its root and what runs. Changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nodemend_hostfs::mountinfo::Mount;
use nodemend_hostfs::{FileId, Host};
use nodemend_runtime::Pod;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ready::Healthz;
use crate::service::{Manager, Service, ServiceState};
use crate::settings::Settings;

/// Whom to look at, and how long to wait.
#[derive(Clone, Debug)]
pub struct LookOptions {
    /// `--config`: containerd's configuration, if it is not found by the process or the unit.
    pub config: Option<PathBuf>,
    /// containerd as a service.
    pub containerd: Service,
    /// kubelet as a service. None where there is none to be stopped.
    pub kubelet: Option<Service>,
    /// How long each source may take.
    pub deadline: Duration,
    /// How long the estimate of the root may take.
    pub estimate_within: Duration,
}

impl Default for LookOptions {
    fn default() -> Self {
        let unit = |name: &str| Service {
            name: name.to_owned(),
            manager: Manager::Systemd,
        };
        Self {
            config: None,
            containerd: unit("containerd.service"),
            kubelet: Some(unit("kubelet.service")),
            deadline: nodemend_runtime::DEFAULT_DEADLINE,
            estimate_within: Duration::from_secs(2),
        }
    }
}

/// What one look saw: plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// Where containerd lives.
    pub settings: Settings,
    /// containerd's service.
    pub containerd: ServiceState,
    /// kubelet's service; None if there is no such unit, or it was not to be looked at.
    pub kubelet: Option<ServiceState>,
    /// Where kubelet tells its health.
    pub healthz: Healthz,
    /// How containerd is.
    pub health: Health,
    /// What else was seen, worst first.
    pub findings: Vec<Finding>,
    /// How much lies in the root.
    pub estimate: Estimate,
    /// The root directory; None if there is none.
    pub root: Option<RootFacts>,
    /// containerd's databases: `meta.db` first, then those of its snapshotters. One bad one keeps it from working.
    pub databases: Vec<Database>,
    /// The pods of this containerd that have a process.
    pub pods: Vec<RunningPod>,
    /// Why `pods` may not be all of them.
    pub pods_unseen: Vec<String>,
    /// What is mounted below the root, the deepest last.
    pub mounts_below: Vec<Mount>,
    /// Mounts elsewhere that have their files in the root.
    pub mounts_of_root: Vec<MountOfRoot>,
}

/// How containerd is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "health", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Health {
    /// Its CRI answered, and its process is older than a minute and was not restarted lately.
    Healthy {
        /// `containerd 1.7.24`.
        runtime: String,
        /// Seconds since its process was started.
        age: u64,
    },
    /// It does not work.
    Broken {
        /// Each reason, the strongest first.
        why: Vec<String>,
    },
    /// It cannot be told.
    Unknown {
        /// Each reason.
        why: Vec<String>,
    },
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A sentence.
    pub text: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It breaks containerd.
    Fault,
    /// It bears on what is to be done.
    Warning,
    /// Good to know.
    Note,
}

/// How much lies in the root. It is never walked whole: see [`Amount`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Files and directories.
    pub entries: Amount,
    /// Bytes on the disk.
    pub bytes: Amount,
    /// Directories of snapshots, of all snapshotters.
    pub snapshots: Amount,
}

/// A number, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "known", content = "amount", rename_all = "camelCase")]
pub enum Amount {
    /// Counted to the end.
    Exactly(u64),
    /// Reckoned from a sample, or from the counters of a file system of its own.
    About(u64),
    /// Counted so far.
    AtLeast(u64),
    /// Not known, because …
    Unknown(String),
}

/// The root directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootFacts {
    /// Where it is, links resolved: the directory that would be renamed.
    pub path: PathBuf,
    /// Which directory it is.
    pub id: FileId,
    /// The id of the mount that it lies on.
    pub mount_id: u64,
    /// True if something is mounted on it: then it cannot be renamed.
    pub is_mount_point: bool,
    /// The type of its file system.
    pub filesystem: String,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permission bits, with those above them.
    pub mode: u32,
    /// `security.selinux`, if it has one.
    pub selinux: Option<String>,
    /// Bytes that root may still write on its file system.
    pub free_bytes: u64,
    /// Inodes that are free; None if the file system does not count them.
    pub free_inodes: Option<u64>,
}

/// A bbolt database of containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes; None if there is no such file.
    pub size: Option<u64>,
    /// Its two meta pages. bbolt opens a database of which one is sound.
    pub pages: Vec<MetaPage>,
    /// Everything that is wrong with it as far as its first pages tell. Empty does not prove the rest.
    pub faults: Vec<String>,
    /// Who holds its lock.
    pub lock: Lock,
}

/// A meta page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetaPage {
    /// 0 or 1.
    pub number: u8,
    /// What is wrong with it; None if it is sound.
    pub fault: Option<String>,
    /// Its transaction, if it is sound.
    pub transaction: Option<u64>,
}

/// Who holds the lock of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "lock", content = "what", rename_all = "camelCase")]
pub enum Lock {
    /// Nobody.
    Free,
    /// That process.
    Held(u32),
    /// Not known, because …
    Unknown(String),
}

/// A pod of this containerd that has a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningPod {
    /// The sandbox's id; of a container that belongs to none, its own.
    pub sandbox: String,
    /// The namespace of containerd: `k8s.io`.
    pub namespace: Option<String>,
    /// The pod, if anything tells it.
    pub pod: Option<Pod>,
    /// Its shims.
    pub shims: Vec<u32>,
    /// Its containers that have a process, the sandbox's own included.
    pub containers: Vec<String>,
    /// How many processes run in them.
    pub processes: usize,
    /// Who answered for it: names of sources.
    pub sources: Vec<String>,
}

/// A mount that has its files in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountOfRoot {
    /// The mount.
    pub mount: Mount,
    /// What of the root it uses: a layer of an overlay, or what it binds.
    pub uses: PathBuf,
}

/// Takes one look at the running host. Read-only; a source that does not answer is told, and the look goes on.
///
/// # Errors
/// If it cannot be told which containerd is meant or where its root is, or the processes cannot be read.
pub fn look(host: &Host, options: &LookOptions) -> Result<Look, Error> {
    let _ = (host, options, Path::new("/"));
    todo!()
}
