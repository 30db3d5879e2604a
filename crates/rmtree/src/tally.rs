//! What the workers count and measure, each for itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::report::Removed;

/// A directory or an inode table is read in blocks of 4 KiB.
const BLOCKS_OF_A_READ: u64 = 8;

/// One worker's counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    files: AtomicU64,
    directories: AtomicU64,
    subvolumes: AtomicU64,
    /// Time in which it had something to do, in microseconds.
    busy: AtomicU64,
    /// Time on a processor, in microseconds.
    processor: AtomicU64,
    /// What it had to read from the disk, in blocks of 512 bytes.
    reads: AtomicU64,
}

impl Tally {
    pub(crate) fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn directory(&self) {
        self.directories.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn subvolume(&self) {
        self.subvolumes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn removed(&self) -> Removed {
        Removed {
            files: self.files.load(Ordering::Relaxed),
            directories: self.directories.load(Ordering::Relaxed),
            subvolumes: self.subvolumes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            busy: self.busy.load(Ordering::Relaxed),
            processor: self.processor.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
        }
    }
}

/// Where workers' time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) busy: u64,
    pub(crate) processor: u64,
    pub(crate) reads: u64,
}

impl Load {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            busy: self.busy + other.busy,
            processor: self.processor + other.processor,
            reads: self.reads + other.reads,
        }
    }

    /// Whether the workers waited, and reads explain it. A read may take 20 ms, as of a rotating disk; longer waits are for
    /// a journal, a lock or a processor, and more threads would only join them.
    pub(crate) fn waits_for_reads(self) -> bool {
        let waited = self.busy.saturating_sub(self.processor);
        waited * 5 > self.busy && waited < self.reads * 20_000 / BLOCKS_OF_A_READ
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            processor: self.processor.saturating_sub(earlier.processor),
            reads: self.reads.saturating_sub(earlier.reads),
        }
    }
}

/// Measures the thread that it was made on.
#[derive(Debug)]
pub(crate) struct Meter {
    at: Instant,
    processor: u64,
    reads: u64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        let (processor, reads) = usage();
        Self {
            at: Instant::now(),
            processor,
            reads,
        }
    }

    /// Idle time does not count: from here on it is work again.
    pub(crate) fn resume(&mut self) {
        self.at = Instant::now();
    }

    /// Adds what was used since the last time.
    pub(crate) fn note(&mut self, tally: &Tally) {
        let now = Instant::now();
        let (processor, reads) = usage();
        let busy = micros(now.duration_since(self.at));
        tally.busy.fetch_add(busy, Ordering::Relaxed);
        tally
            .processor
            .fetch_add(processor.saturating_sub(self.processor), Ordering::Relaxed);
        tally
            .reads
            .fetch_add(reads.saturating_sub(self.reads), Ordering::Relaxed);
        *self = Self {
            at: now,
            processor,
            reads,
        };
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Processor time in microseconds, and blocks read, of this thread. Reads are zero on a kernel without
/// `CONFIG_TASK_IO_ACCOUNTING`: there a run stays at the threads for warm caches.
fn usage() -> (u64, u64) {
    getrusage(UsageWho::RUSAGE_THREAD).map_or((0, 0), |usage| {
        let processor = (usage.user_time() + usage.system_time()).num_microseconds();
        (
            u64::try_from(processor).unwrap_or(0),
            u64::try_from(usage.block_reads()).unwrap_or(0),
        )
    })
}
