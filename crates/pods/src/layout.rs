//! What lies on the disk: kubelet's root and its pod directories.

use std::path::PathBuf;

use nodemend_hostfs::FileId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod::PodDir;

/// kubelet's root and its pod directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The root, without symlinks.
    pub root: PathBuf,
    /// Who says that it is the root: `--kubelet-root`, `kubelet (pid 812) --root-dir`, `the default`.
    pub known_by: String,
    /// What the root is.
    pub root_id: FileId,
    /// Other paths by which the same root is seen, by mounts.
    pub also_at: Vec<PathBuf>,
    /// The pod directories, by UID.
    pub pods: Vec<PodDir>,
    /// What else lies in `pods/`, each with the reason why it is not ours.
    pub strangers: Vec<(PathBuf, String)>,
    /// What could not be read of the mount tables or of the root, so that nothing is known of any pod.
    pub unread: Vec<String>,
}
