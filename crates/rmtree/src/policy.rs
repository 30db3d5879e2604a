//! How the work is spread, by file system.

use std::fmt;

/// The file systems for which there is a policy of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext2, ext3 or ext4: they share one number.
    Ext,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// Any other, by its number from statfs(2).
    Other(u64),
}

impl FileSystem {
    /// From the `f_type` of statfs(2); the numbers are those of `linux/magic.h`.
    pub fn of_magic(magic: u64) -> Self {
        match magic {
            0xEF53 => Self::Ext,
            0x5846_5342 => Self::Xfs,
            0x9123_683E => Self::Btrfs,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ext => f.write_str("ext4"),
            Self::Xfs => f.write_str("xfs"),
            Self::Btrfs => f.write_str("btrfs"),
            Self::Other(0x0102_1994) => f.write_str("tmpfs"),
            Self::Other(0x794c_7630) => f.write_str("overlay"),
            Self::Other(0x6969) => f.write_str("nfs"),
            Self::Other(0x6573_5546) => f.write_str("fuse"),
            Self::Other(magic) => write!(f, "type {magic:#x}"),
        }
    }
}

/// How the work is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Threads while nothing has to be read from the disk.
    pub warm: usize,
    /// Threads while they wait for the disk.
    pub cold: usize,
    /// Whether the entries of one directory may be removed by several threads. On ext4 the eviction of an inode runs outside
    /// the directory's lock; on XFS two threads in one allocation group only wait for each other.
    pub split: bool,
    /// Queues that one thread at a time works on: the allocation groups of XFS, one elsewhere.
    pub lanes: Lanes,
}

/// The queues of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// One, for any number of threads.
    One,
    /// One for each allocation group of XFS, each for one thread at a time.
    Groups {
        /// How many groups there are.
        count: usize,
        /// The group of an inode is its number, shifted right by this.
        shift: u32,
    },
}
