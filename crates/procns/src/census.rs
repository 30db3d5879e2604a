//! The types of a census.

use std::path::PathBuf;

use nodemend_hostfs::FileId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The identity of a network namespace: device and inode on nsfs. Shown as its inode, as lsns(8) does.
pub type NetnsId = FileId;

/// The processes and network namespaces of a node, as one walk over /proc saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    /// The namespace of this process: the host's, see `nodemend_hostfs::vantage`.
    pub host: NetnsId,
    /// Every process that was seen, by pid.
    pub processes: Vec<Process>,
    /// Every network namespace with a known holder, the host's included, by identity.
    pub namespaces: Vec<Netns>,
    /// Every mount namespace that a process lives in, by its inode. What is mounted in them: [`mount_tables`](crate::mount_tables).
    #[serde(default)]
    pub mount_namespaces: Vec<MountNamespace>,
    /// What could not be read although its process was still there: then nobody can say who holds what.
    pub unread: Vec<String>,
}

/// One mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountNamespace {
    /// Its inode on nsfs.
    pub inode: u64,
    /// Processes and threads that live in it: eight at most, in case some of them end.
    pub viewers: Vec<u32>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its pid in this pid namespace.
    pub pid: u32,
    /// `comm`: the first 15 bytes of its name; any byte may be in it.
    pub comm: String,
    /// Start time in clock ticks since boot: with the pid, its identity.
    pub start_time: u64,
    /// The network namespace of its main thread. None if that has ended (a zombie, or a process of which only
    /// other threads go on), or if it could not be read.
    pub netns: Option<NetnsId>,
    /// The container ids in its cgroup paths: 64 hex digits each.
    pub container_ids: Vec<String>,
    /// The CNI call that it carries out, if it is a plugin.
    pub cni: Option<CniCall>,
}

/// A CNI plugin at work, by its environment (CNI spec, section "Parameters").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CniCall {
    /// `CNI_COMMAND`: ADD, DEL, CHECK …
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`: a path.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Netns {
    /// Which one.
    pub id: NetnsId,
    /// Who keeps it alive, sorted. Sockets do too, and cannot be seen: a namespace that only they hold is not listed.
    ///
    /// Two lists are cut: of the processes in the host's own namespace three are named, and of mounts in other mount
    /// namespaces eight. All else is complete. What this process itself has open is here too.
    pub holders: Vec<Holder>,
}

/// Something that keeps a network namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "holder", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Holder {
    /// A process lives in it.
    Process {
        /// Its pid.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A thread lives in it, and the main thread of its process elsewhere.
    Thread {
        /// The process.
        pid: u32,
        /// The thread.
        tid: u32,
        /// The name of the thread.
        comm: String,
    },
    /// It is mounted, in the mount namespace of this process.
    Mount {
        /// Where.
        #[serde(with = "nodemend_hostfs::text")]
        #[schemars(with = "PathBuf")]
        path: PathBuf,
    },
    /// It is mounted in another mount namespace only, at a path that is not a mount of it in ours.
    ForeignMount {
        /// A process that sees the mount.
        pid: u32,
        /// Where, seen from that process.
        #[serde(with = "nodemend_hostfs::text")]
        #[schemars(with = "PathBuf")]
        path: PathBuf,
    },
    /// A process has it open.
    Fd {
        /// The process.
        pid: u32,
        /// The file descriptor.
        fd: u32,
        /// The name of the process.
        comm: String,
    },
}
