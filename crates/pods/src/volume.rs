//! What a volume of a pod directory is, and what its removal would lose.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One volume, subpath, block device or piece of plugin data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The plugin, unescaped: `kubernetes.io/csi`, `ceph.rook.io/rook`. For a subpath, `subpath`.
    pub plugin: String,
    /// The name of the volume.
    pub name: String,
    /// The leaf that is, or was, the volume: below the pod directory. For CSI its `mount` directory.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub path: PathBuf,
    /// Of which part of the pod directory it is.
    pub part: Part,
    /// What its removal would lose.
    pub class: Class,
    /// What is there, below what is mounted on it.
    pub content: Content,
    /// CSI: what `vol_data.json` says, and whether its global mount is there.
    pub csi: Option<Box<CsiVolume>>,
}

/// The parts of a pod directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// `volumes/`.
    Volume,
    /// `volume-subpaths/`.
    Subpath,
    /// `volumeDevices/`.
    Device,
    /// `plugins/`.
    PluginData,
}

/// What the removal of a volume would lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Nothing: secrets, projected volumes, config maps, tokens; anything that is empty.
    NothingLost,
    /// Data that has no other copy, and that ends with its pod by contract: emptyDir, git-repo.
    Ephemeral,
    /// Data that is kept elsewhere: something is mounted here. It is unmounted, never deleted through.
    DurableElsewhere,
    /// A non-empty, unmounted directory of a plugin whose data outlives pods, or of a driver that does not mount.
    MaybeOnlyCopy,
}

/// What is in a volume's directory, by lstat alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "is",
    content = "detail",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Content {
    /// Something is mounted on it: nobody looked.
    Mounted,
    /// Nothing.
    Empty,
    /// Files.
    Files {
        /// How many entries.
        entries: u64,
        /// Their sizes together, in bytes.
        bytes: u64,
        /// The newest modification, in seconds since 1970.
        newest: i64,
        /// True if counting was ended by the deadline or the bound: there may be more.
        more: bool,
    },
    /// It is no directory: an empty file, a symlink, a device. (A file that is not empty is `Files` with one entry.)
    Other(String),
    /// It could not be read in time, or not at all.
    Unread(String),
}

/// A CSI volume's own record: `vol_data.json` (`pkg/volume/csi/csi_mounter.go`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsiVolume {
    /// `driverName`.
    pub driver: String,
    /// `volumeHandle`.
    pub handle: String,
    /// `volumeLifecycleMode`: `Persistent` or `Ephemeral`.
    pub lifecycle: String,
    /// Where its global mount would be, if there is one now.
    #[serde(default, with = "nodemend_hostfs::text")]
    #[schemars(with = "Option<PathBuf>")]
    pub global_mount: Option<PathBuf>,
}
