//! The report, as `--output json` prints it. Within v1 fields are only added.

use nodemend_evidence::API_VERSION;
use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use crate::estimate::Estimate;

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovalReport {
    /// `nodemend/v1`.
    pub api_version: String,
    /// `RemovalReport`.
    pub kind: String,
    /// True if nothing was to be changed: the plan.
    pub dry_run: bool,
    /// True if anything was changed.
    pub changed: bool,
    /// How many items are in each state.
    pub summary: Summary,
    /// One for each PATH, in the order given; with `--resume`, one for each tree found.
    pub items: Vec<RemovalItem>,
    /// With `--resume`: what is named like a tree that was set aside, and is none. It is left alone.
    pub lookalikes: Vec<LookalikeFact>,
    /// The signal that ended the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
}

impl RemovalReport {
    pub(crate) fn new(dry_run: bool, items: Vec<RemovalItem>) -> Self {
        let mut report = Self {
            api_version: API_VERSION.to_owned(),
            kind: "RemovalReport".to_owned(),
            dry_run,
            changed: false,
            summary: Summary::default(),
            items,
            lookalikes: Vec::new(),
            signal: None,
        };
        report.count();
        report
    }

    /// Makes the summary what the items say.
    pub(crate) fn count(&mut self) {
        let count = |state| self.items.iter().filter(|item| item.state == state).count();
        self.summary = Summary {
            planned: count(State::Planned),
            absent: count(State::Absent),
            refused: count(State::Refused),
            removed: count(State::Removed),
            left: count(State::Left) + count(State::ReadOnly) + count(State::Failed),
            stopped: count(State::Stopped),
            not_tried: count(State::NotTried),
        };
        self.changed = self
            .items
            .iter()
            .filter_map(|item| item.outcome.as_ref())
            .any(|outcome| outcome.set_aside.is_some() || outcome.removed.any());
    }
}

/// How many items are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Would be removed.
    pub planned: usize,
    /// Nothing is there.
    pub absent: usize,
    /// May not be removed.
    pub refused: usize,
    /// Removed, and nothing is left.
    pub removed: usize,
    /// Removed in part, as something could not go.
    pub left: usize,
    /// Removed in part, as a signal ended the run.
    pub stopped: usize,
    /// Not touched, as the run ended before.
    pub not_tried: usize,
}

/// What becomes of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It would be removed.
    Planned,
    /// Nothing is there.
    Absent,
    /// It may not be removed; the refusals say why. Nothing of it was touched.
    Refused,
    /// It is gone; with `--keep-root`, it is empty.
    Removed,
    /// Something of it could not go; the problems say what.
    Left,
    /// The file system became read-only meanwhile.
    ReadOnly,
    /// It could not be begun: renamed, or entered in the journal.
    Failed,
    /// A signal ended the run while it was removed.
    Stopped,
    /// The run ended before its turn, or another tree was refused.
    NotTried,
}

/// A tree.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovalItem {
    /// Where it is. What is not UTF-8 is replaced.
    pub path: String,
    /// What becomes of it.
    pub state: State,
    /// Where it was before it was set aside by an earlier run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// What is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Why it may not be removed.
    pub refusals: Vec<Refusal>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What is known of a tree before it is removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The type of its file system.
    pub file_system: String,
    /// The mount it lies on.
    pub mount: Option<MountFact>,
    /// How the work is spread.
    pub policy: PolicyFact,
    /// What is mounted in it.
    pub mounts_inside: Vec<MountFact>,
    /// The btrfs subvolumes in it.
    pub subvolumes: Vec<SubvolumeFact>,
    /// The inodes in use on the whole file system, if it counts them.
    pub inodes_used: Option<u64>,
    /// The bytes in use on the whole file system.
    pub bytes_used: u64,
    /// The size of the file system in bytes.
    pub bytes_total: u64,
    /// How long the removal takes at most, where that can be said.
    pub estimate: Option<Estimate>,
    /// The processes that use it.
    pub users: Vec<UserFact>,
    /// The container runtimes and kubelets that have to do with it.
    pub daemons: Vec<DaemonFact>,
    /// The overlay mounts that live from it.
    pub overlays: Vec<OverlayFact>,
    /// Mounts outside of it that show it or a part of it.
    pub shown_elsewhere: Vec<MountFact>,
    /// What could not be seen.
    pub unseen: Vec<String>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountFact {
    /// Where it is.
    pub mountpoint: String,
    /// What is mounted: the source; of a bind mount, with the directory in brackets.
    pub source: String,
    /// The type of its file system.
    pub file_system: String,
    /// A process that sees it, if it is in another mount namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_by: Option<u32>,
}

/// How the work is spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFact {
    /// Threads while nothing has to be read from the disk.
    pub warm_threads: usize,
    /// Threads while they wait for the disk.
    pub cold_threads: usize,
    /// Whether several threads work in one directory.
    pub splits_directories: bool,
    /// In so many lanes one thread at a time removes: the allocation groups of XFS, one on btrfs. 0 if all threads remove.
    pub lanes: usize,
}

/// A btrfs subvolume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubvolumeFact {
    /// Where it is.
    pub path: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// A process that uses a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserFact {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How many open files it has in the tree.
    pub open_files: usize,
    /// What else of it is in the tree: `working directory`, `root`, `program`.
    pub others: Vec<String>,
    /// One of the paths.
    pub example: String,
}

/// A container runtime or kubelet that has to do with a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonFact {
    /// Its process id.
    pub pid: u32,
    /// `containerd`, `kubelet`.
    pub name: String,
    /// What it has to do with the tree.
    pub tie: Tie,
    /// The directory or file by which it is tied, or why it cannot be told.
    pub detail: String,
}

/// What a daemon has to do with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Tie {
    /// A directory that it lives in is the tree, or lies in it.
    LivesIn,
    /// It has files open in the tree.
    OpenFiles,
    /// The tree lies in a directory that it lives in. It is told, and no reason to refuse.
    Around,
    /// It cannot be told.
    Unknown,
}

/// An overlay mount that lives from a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverlayFact {
    /// Where it is mounted.
    pub mountpoint: String,
    /// A process that sees it, if it is in another mount namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_by: Option<u32>,
    /// The layer in the tree: `lowerdir`, `upperdir` or `workdir`.
    pub layer: String,
    /// Where that layer was when it was mounted.
    pub path: String,
    /// How it is known.
    pub known: String,
}

/// Why a tree may not be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// In a word.
    pub reason: RefusalReason,
    /// In a sentence.
    pub detail: String,
    /// What to do.
    pub help: String,
}

/// Why a tree may not be removed, in a word that does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RefusalReason {
    /// The root directory, or a path that ends in `.` or `..`.
    NoName,
    /// The path goes up behind a name.
    GoesUp,
    /// A symlink is in the path.
    Symlink,
    /// It is no directory.
    NotADirectory,
    /// Something is mounted there.
    MountPoint,
    /// The kernel cannot tell mounts apart.
    NoMountIdentity,
    /// The working directory is in it.
    WorkingDirectory,
    /// The journal is in it.
    StateDirectory,
    /// Another PATH is the same tree, or one of the two lies in the other.
    Overlap,
    /// A running container runtime or kubelet lives in it.
    Daemon,
    /// Whether a running container runtime or kubelet lives in it cannot be told.
    DaemonUnknown,
    /// Something is mounted in it.
    MountsInside,
    /// An overlay mount lives from it.
    Overlay,
    /// It, or a part of it, is mounted elsewhere.
    ShownElsewhere,
    /// What is there is another directory than in the plan.
    Changed,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The name it got by `--set-aside`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// What is gone.
    pub removed: RemovedFact,
    /// How many bytes the file system has more, by its own count. Others write and remove meanwhile.
    pub bytes_freed: u64,
    /// How long it took.
    pub seconds: f64,
    /// The most threads that worked at once.
    pub threads: usize,
    /// How many problems there were of each kind.
    pub problem_counts: Vec<ProblemCount>,
    /// What stayed and why: the first of them.
    pub problems: Vec<ProblemFact>,
    /// What made it fail as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedFact {
    /// Files, symlinks, devices, fifos and sockets.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// btrfs subvolumes, each as a whole.
    pub subvolumes: u64,
}

impl RemovedFact {
    fn any(self) -> bool {
        self.files + self.directories + self.subvolumes > 0
    }
}

impl From<nodemend_rmtree::Removed> for RemovedFact {
    fn from(removed: nodemend_rmtree::Removed) -> Self {
        Self {
            files: removed.files,
            directories: removed.directories,
            subvolumes: removed.subvolumes,
        }
    }
}

/// How many problems there were of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemCount {
    /// The kind, as in [`ProblemFact::reason`].
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// Something that stayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemFact {
    /// What stayed.
    pub path: String,
    /// What was tried: `open`, `list`, `unlink`, `rmdir`, `destroy subvolume`.
    pub step: String,
    /// Why, in a word that does not change: `mount`, `immutable`, `appendOnly`, `subvolume`, `subvolumeInUse`,
    /// `readOnlySnapshot`, `readOnly`, `writtenTo`, `moved`, `denied`, `full`, `other`.
    pub reason: String,
    /// What more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the kernel said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// What is named like a tree that was set aside, and is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LookalikeFact {
    /// Where it is.
    pub path: String,
    /// Why it is none.
    pub reason: String,
}
