//! What a run did, and what it left.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

/// What a run did, and what it left.
#[derive(Debug)]
pub struct Report {
    /// The root of the tree.
    pub path: PathBuf,
    /// How the run ended.
    pub end: End,
    /// What is gone.
    pub removed: Removed,
    /// What stayed, and why: the first [`Options::problems`](crate::Options::problems) of them. Directories that stay only
    /// because something in them stays are not listed.
    pub problems: Vec<Problem>,
    /// How many problems there were of each kind, in the order in which each kind first came.
    pub counts: Vec<(Reason, u64)>,
    /// The most threads that worked at once.
    pub threads: usize,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// True if nothing is left of what was to go.
    pub fn gone(&self) -> bool {
        matches!(self.end, End::Gone)
    }

    /// How many problems there were.
    pub fn problem_count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is left; with [`Options::keep_root`](crate::Options::keep_root), nothing but the root.
    Gone,
    /// Something stayed: see the problems.
    Left,
    /// The observer stopped the run.
    Stopped,
    /// The file system became read-only, so nothing more can go.
    ReadOnly,
}

/// How much is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files, symlinks, devices, fifos and sockets.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// btrfs subvolumes that were destroyed as a whole; what was in them is not counted.
    pub subvolumes: u64,
}

impl Removed {
    /// All of them.
    pub fn entries(self) -> u64 {
        self.files + self.directories + self.subvolumes
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            directories: self.directories + other.directories,
            subvolumes: self.subvolumes + other.subvolumes,
        }
    }
}

/// Something that stayed.
#[derive(Debug)]
pub struct Problem {
    /// What stayed: the path of the root, as it was given, and the names below it.
    pub path: PathBuf,
    /// What was tried.
    pub step: Step,
    /// What the kernel said, if it was the kernel that refused.
    pub error: Option<Errno>,
    /// Why, as far as it could be found out.
    pub reason: Reason,
    /// What more is known: the source of a mount, what the flags are.
    pub detail: Option<String>,
}

impl Problem {
    /// What would help, if anything that can be said here would.
    pub fn help(&self) -> Option<&'static str> {
        self.reason.help()
    }
}

/// `path: what was tried: why (detail)`. The path is not escaped.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.path.display(), self.step, self.reason)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        match self.error {
            Some(error) => write!(f, ": {}", io::Error::from(error)),
            None => Ok(()),
        }
    }
}

/// What was tried when a problem came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening a directory.
    Open,
    /// Reading a directory.
    List,
    /// Removing a file.
    Unlink,
    /// Removing a directory.
    Rmdir,
    /// Destroying a subvolume.
    Destroy,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::List => "list",
            Self::Unlink => "unlink",
            Self::Rmdir => "rmdir",
            Self::Destroy => "destroy subvolume",
        })
    }
}

/// Why something stayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Something is mounted on it.
    Mount,
    /// It, or the directory it is in, is immutable.
    Immutable,
    /// It, or the directory it is in, is append-only.
    AppendOnly,
    /// A btrfs subvolume.
    Subvolume,
    /// A btrfs subvolume that is mounted somewhere.
    SubvolumeInUse,
    /// It lies in a read-only btrfs snapshot.
    ReadOnlySnapshot,
    /// The file system is read-only.
    ReadOnly,
    /// It is gone, but another name of the same file has lost its flags: they could not be put back.
    FlagsLost,
    /// Somebody writes into the directory.
    WrittenTo,
    /// It was moved while the run worked in it.
    Moved,
    /// The caller may not.
    Denied,
    /// The file system has no room for what removing needs.
    Full,
    /// Something else, as the error says.
    Other,
}

impl Reason {
    /// A word for scripts, which does not change.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Immutable => "immutable",
            Self::AppendOnly => "appendOnly",
            Self::Subvolume => "subvolume",
            Self::SubvolumeInUse => "subvolumeInUse",
            Self::ReadOnlySnapshot => "readOnlySnapshot",
            Self::ReadOnly => "readOnly",
            Self::FlagsLost => "flagsLost",
            Self::WrittenTo => "writtenTo",
            Self::Moved => "moved",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::Other => "other",
        }
    }

    /// What would help, if anything that can be said here would.
    pub fn help(self) -> Option<&'static str> {
        match self {
            Self::Mount => Some("unmount it"),
            Self::Immutable | Self::AppendOnly => Some("clear the flag (chattr -i -a)"),
            Self::Subvolume => Some("destroy the subvolume"),
            Self::SubvolumeInUse => Some("unmount it first"),
            Self::ReadOnlySnapshot => Some("destroy the snapshot as a whole"),
            Self::ReadOnly => Some("see in the kernel's log why, and mount it writable"),
            Self::FlagsLost => {
                Some("find its other names (find -inum) and set the flags again (chattr +i, +a)")
            }
            Self::WrittenTo => Some("end whoever writes there"),
            Self::Denied => Some("run as root"),
            Self::Full => Some("free some space on the file system first"),
            Self::Moved | Self::Other => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mount => "something is mounted on it",
            Self::Immutable => "immutable",
            Self::AppendOnly => "append-only",
            Self::Subvolume => "a btrfs subvolume",
            Self::SubvolumeInUse => "a btrfs subvolume that is mounted",
            Self::ReadOnlySnapshot => "in a read-only btrfs snapshot",
            Self::ReadOnly => "the file system is read-only",
            Self::FlagsLost => "gone, but its other names have lost their flags",
            Self::WrittenTo => "somebody writes into it",
            Self::Moved => "it was moved meanwhile",
            Self::Denied => "not permitted",
            Self::Full => "the file system is full",
            Self::Other => "failed",
        })
    }
}
