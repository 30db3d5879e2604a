//! How the work is spread, by file system.

use std::fmt;
use std::num::NonZero;

use crate::options::{Options, Urgency};
use crate::sys;
use crate::tree::Tree;

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
    /// Whether the entries of a directory are removed in a lane for one thread at a time.
    pub lanes: Lanes,
}

/// The lanes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// None: any thread removes anything.
    None,
    /// One for all.
    One,
    /// One for each allocation group of XFS, each for one thread at a time.
    Groups {
        /// How many groups there are.
        count: usize,
        /// The group of an inode is its number, shifted right by this.
        shift: u32,
    },
}

impl Policy {
    /// For a tree: what it lies on, and this machine's processors.
    pub(crate) fn of(tree: &Tree) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let groups = match tree.file_system() {
            FileSystem::Xfs => sys::xfs_geometry(tree.dir()).ok().map(|geometry| Lanes::Groups {
                count: usize::try_from(geometry.groups).unwrap_or(1).max(1),
                shift: geometry.shift,
            }),
            FileSystem::Ext | FileSystem::Btrfs | FileSystem::Other(_) => None,
        };
        Self::for_system(tree.file_system(), groups, cores)
    }

    /// As a caller wants it. Others who write to the disk wait for the journal, which carries what all threads have changed:
    /// measured, half of the threads cost them half as much and the run a quarter of its time.
    pub(crate) fn with(self, options: &Options) -> Self {
        let cold = match options.urgency {
            Urgency::Urgent => self.cold,
            Urgency::Background => self.warm.max(self.cold / 2),
        };
        Self { cold, ..self }.at_most(options.threads.map_or(usize::MAX, NonZero::get))
    }

    /// With no more than so many threads.
    pub(crate) fn at_most(self, threads: usize) -> Self {
        let threads = threads.max(1);
        Self {
            warm: self.warm.min(threads),
            cold: self.cold.min(threads),
            ..self
        }
    }

    /// Measured: see docs/benchmarks.md.
    fn for_system(system: FileSystem, groups: Option<Lanes>, cores: usize) -> Self {
        let waiting = (8 * cores).clamp(16, 64);
        let policy = |warm, cold, split, lanes| Self {
            warm,
            cold,
            split,
            lanes,
        };
        match (system, groups) {
            (FileSystem::Ext, _) => policy(cores, waiting, true, Lanes::None),
            // Every change takes locks of the same trees: a second thread that removes only waits for the first. Those that
            // have no lane read directories ahead while there is a disk to wait for; so on XFS.
            (FileSystem::Btrfs, _) => policy(1, waiting, false, Lanes::One),
            (FileSystem::Xfs, Some(lanes)) => policy(lanes.count().min(2 * cores), waiting, false, lanes),
            _ => policy(cores, waiting, false, Lanes::None),
        }
    }
}

impl Lanes {
    /// How many there are for one worker at a time.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::Groups { count, .. } => count,
        }
    }

    /// The lane of an inode, if there are lanes.
    pub(crate) fn of_inode(self, inode: u64) -> Option<usize> {
        match self {
            Self::None => None,
            Self::One => Some(0),
            Self::Groups { count, shift } => {
                let group = inode.checked_shr(shift).unwrap_or(0);
                // A number from another group than there are is a file system's lie: any lane will do.
                usize::try_from(group).unwrap_or(0).checked_rem(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_system_gets_what_was_measured_for_it() {
        let groups = Some(Lanes::Groups { count: 4, shift: 20 });
        let of = |system, groups| Policy::for_system(system, groups, 2);
        let ext = of(FileSystem::Ext, None);
        assert_eq!((ext.warm, ext.cold, ext.split), (2, 16, true));
        let xfs = of(FileSystem::Xfs, groups);
        assert_eq!((xfs.warm, xfs.cold, xfs.split), (4, 16, false));
        let btrfs = of(FileSystem::Btrfs, None);
        assert_eq!((btrfs.warm, btrfs.cold, btrfs.split), (1, 16, false));
        assert_eq!(of(FileSystem::Xfs, None).lanes, Lanes::None);
        assert_eq!(Policy::for_system(FileSystem::Ext, None, 96).cold, 64);
    }

    #[test]
    fn a_run_in_the_background_has_half_of_the_threads_while_it_waits() {
        let policy = Policy::for_system(FileSystem::Ext, None, 2);
        let with = |urgency, threads| {
            let options = Options {
                urgency,
                threads: NonZero::new(threads),
                ..Options::default()
            };
            let policy = policy.with(&options);
            (policy.warm, policy.cold)
        };
        assert_eq!(with(Urgency::Urgent, 0), (2, 16));
        assert_eq!(with(Urgency::Background, 0), (2, 8));
        assert_eq!(with(Urgency::Background, 1), (1, 1));
    }

    #[test]
    fn an_inode_finds_its_group_and_a_false_number_still_a_lane() {
        let lanes = Lanes::Groups { count: 4, shift: 20 };
        assert_eq!(lanes.of_inode(3 << 20 | 17), Some(3));
        assert!(lanes.of_inode(u64::MAX) < Some(4));
        assert_eq!(Lanes::None.of_inode(u64::MAX), None);
        assert_eq!(Lanes::One.of_inode(u64::MAX), Some(0));
    }
}
