//! What a caller may choose.

use std::num::NonZero;

/// What a caller may choose. The default removes the whole tree, politely.
#[derive(Clone, Debug)]
pub struct Options {
    /// Empty the root and leave it in place. Default: no.
    pub keep_root: bool,
    /// Take the immutable and append-only flags off what they protect. Default: no, it is reported. A flag of a file that
    /// has another name, which may be outside the tree, is put back. Needs `CAP_LINUX_IMMUTABLE`.
    pub clear_flags: bool,
    /// Destroy btrfs subvolumes and snapshots, read-only ones included. Default: no, they are reported.
    pub subvolumes: bool,
    /// How the run stands with the other users of the disk. Default: [`Urgency::Background`].
    pub urgency: Urgency,
    /// How many threads there may be at most. Default: as [`Policy`](crate::Policy) says.
    pub threads: Option<NonZero<usize>>,
    /// How many directories may be open at once; beyond it they are closed and opened again. At least 32. Default: half
    /// of the process's soft limit of open files, 4,096 at most.
    pub open_dirs: Option<usize>,
    /// How often a directory is listed again that is not empty although all of its entries were removed, as somebody writes
    /// into it. Default: 8.
    pub rescans: u32,
    /// How many problems are kept for the report; all are counted. Default: 1,000.
    pub problems: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_root: false,
            clear_flags: false,
            subvolumes: false,
            urgency: Urgency::Background,
            threads: None,
            open_dirs: None,
            rescans: 8,
            problems: 1000,
        }
    }
}

/// How a run stands with the other users of the disk and of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Its threads have the idle I/O class and nice 19, and while they wait for the disk they are half as many.
    Background,
    /// Its threads have what the caller has.
    Urgent,
}
