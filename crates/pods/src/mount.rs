//! A mount that has to do with a pod directory.

use std::sync::Arc;

use nodemend_hostfs::mountinfo::Mount;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A mount in a pod directory, or of something in it, in whichever mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMount {
    /// The row of the table.
    pub mount: Mount,
    /// How it has to do with the directory.
    pub tie: Tie,
    /// None in this process's own mount namespace; else a process that sees it.
    pub seen_by: Option<Arc<Seer>>,
}

/// How a mount has to do with a pod directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Tie {
    /// It is mounted in it.
    In,
    /// Something of it is mounted elsewhere: the root of the mount lies in it.
    From,
}

/// A process in another mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seer {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The inode of its mount namespace.
    pub namespace: u64,
}
