//! A pod directory, as it lies on the disk.

use std::path::PathBuf;

use nodemend_evidence::Subject;
use nodemend_hostfs::FileId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::block::BlockLink;
use crate::mount::PodMount;
use crate::uid::Uid;
use crate::volume::Volume;

/// One directory of `<kubelet root>/pods`, with everything in it that decides what may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDir {
    /// Its name, which is the pod's UID.
    pub uid: Uid,
    /// Where it is, by the root's real path.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub path: PathBuf,
    /// What it is.
    pub identity: PodIdentity,
    /// What people call the pod, if something on the node still tells.
    pub name: Option<PodName>,
    /// The newest of birth, change and modification of the directory and its first two levels, in seconds since 1970.
    pub changed: i64,
    /// Its volumes, those of `volumes/`, `volume-subpaths/`, `volumeDevices/` and `plugins/` alike, sorted by path.
    pub volumes: Vec<Volume>,
    /// Every mount in it or of something in it, in every mount namespace, in the order of the tables.
    pub mounts: Vec<PodMount>,
    /// What kubelet does not put into a pod directory, by path below it.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<PathBuf>")]
    pub strange: Vec<PathBuf>,
    /// What kubelet keeps of its block volumes elsewhere, sorted by path.
    #[serde(default)]
    pub outside: Vec<BlockLink>,
    /// What could not be read, each with the reason. Then nothing is known of what is there.
    pub unread: Vec<String>,
}

/// What makes a pod directory this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// The pod's UID.
    pub uid: Uid,
    /// Device and inode of the directory.
    pub dir: FileId,
    /// The id of the mount that the directory lies on.
    pub mount: u64,
}

/// What people call a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Its namespace, if that is known.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Who says so: `/var/log/pods`, `etc-hosts`, the runtime.
    pub from: String,
}

impl Subject for PodDir {
    type Identity = PodIdentity;

    fn identity(&self) -> PodIdentity {
        self.identity.clone()
    }

    fn title(&self) -> String {
        match &self.name {
            Some(PodName {
                namespace: Some(namespace),
                name,
                ..
            }) => format!("{}  {namespace}/{name}", self.uid),
            Some(PodName { name, .. }) => format!("{}  {name}", self.uid),
            None => self.uid.to_string(),
        }
    }

    fn action(&self) -> String {
        "remove what keeps kubelet from removing it".to_owned()
    }
}
