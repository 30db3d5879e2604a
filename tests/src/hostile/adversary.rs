//! Somebody who changes a tree while it is removed, as fast as the processors allow.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rustix::fs::{RenameFlags, renameat_with};

use crate::error::{Doing, LabError, Result};
use crate::hostile::build::Dir;

/// Two names, in any two directories of one file system, that are exchanged again and again. Both directories are held open: the
/// adversary's own way is never the one that is changed.
#[derive(Debug)]
pub struct Pair {
    one: (Arc<Dir>, OsString),
    other: (Arc<Dir>, OsString),
}

impl Pair {
    /// A name in one directory and a name in another.
    pub fn of(one: &Arc<Dir>, name: &str, other: &Arc<Dir>, other_name: &str) -> Self {
        Self {
            one: (Arc::clone(one), name.into()),
            other: (Arc::clone(other), other_name.into()),
        }
    }

    fn exchange(&self) -> bool {
        let Self { one, other } = self;
        renameat_with(&one.0, &one.1, &other.0, &other.1, RenameFlags::EXCHANGE).is_ok()
    }

    /// The name of one goes to the other, and back.
    fn move_over(&self) -> bool {
        let Self { one, other } = self;
        let flags = RenameFlags::NOREPLACE;
        renameat_with(&one.0, &one.1, &other.0, &other.1, flags).is_ok()
            || renameat_with(&other.0, &other.1, &one.0, &one.1, flags).is_ok()
    }
}

/// Threads, one on each processor, that change something until they are told to stop.
#[derive(Debug)]
pub struct Adversary {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Adversary {
    /// Exchanges the two names of each pair.
    ///
    /// # Errors
    /// If a processor cannot be had.
    pub fn exchanging(pairs: Vec<Pair>) -> Result<Self> {
        Self::start(pairs, Pair::exchange)
    }

    /// Moves the first name of each pair to the second, which must be free, and back.
    ///
    /// # Errors
    /// If a processor cannot be had.
    pub fn moving(pairs: Vec<Pair>) -> Result<Self> {
        Self::start(pairs, Pair::move_over)
    }

    /// Mounts a directory on each of these, and unmounts it.
    ///
    /// # Errors
    /// If a processor cannot be had.
    pub fn mounting(directory: &Path, on: Vec<PathBuf>) -> Result<Self> {
        let directory = directory.to_owned();
        Self::start(on, move |point: &PathBuf| {
            let none: Option<&str> = None;
            let mounted = mount(Some(&directory), point, none, MsFlags::MS_BIND, none);
            // The other thread may have mounted there as well: each takes one off again.
            mounted.is_ok() && umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok()
        })
    }

    /// Creates files in a directory: those of 64 names that are not there. So the directory stays small, and is hardly ever empty.
    ///
    /// # Errors
    /// If a processor cannot be had.
    pub fn writing(into: &Arc<Dir>) -> Result<Self> {
        let file = |number| (Arc::clone(into), format!("written-{number}"));
        Self::start((0..64).map(file).collect(), |(dir, name): &(Arc<Dir>, String)| {
            dir.file(name, "").is_ok()
        })
    }

    /// `change` says whether it changed something.
    fn start<T: Send + Sync + 'static>(
        targets: Vec<T>,
        change: impl Fn(&T) -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        let processors = sched_getaffinity(Pid::from_raw(0)).doing(|| "list processors".to_owned())?;
        let processors = (0..CpuSet::count()).filter(|number| processors.is_set(*number).unwrap_or(false));
        let stop = Arc::new(AtomicBool::new(false));
        let changes = Arc::new(AtomicU64::new(0));
        let shared = Arc::new((targets, change));
        let one = |(index, processor): (usize, usize)| {
            let (stop, changes, shared) = (Arc::clone(&stop), Arc::clone(&changes), Arc::clone(&shared));
            std::thread::spawn(move || {
                let mut only = CpuSet::new();
                if only.set(processor).is_ok() {
                    let _ = sched_setaffinity(Pid::from_raw(0), &only);
                }
                let (targets, change) = &*shared;
                // Half of the threads come from the other end.
                let order: Vec<usize> = if index % 2 == 0 {
                    (0..targets.len()).collect()
                } else {
                    (0..targets.len()).rev().collect()
                };
                for index in order.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if targets.get(*index).is_some_and(change) {
                        changes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads: Vec<_> = processors.take(2).enumerate().map(one).collect();
        if threads.is_empty() {
            return Err(LabError::Missing("no processor to race on".to_owned()));
        }
        Ok(Self {
            stop,
            changes,
            threads,
        })
    }

    /// How many changes were made so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Ends it; how many changes were made.
    ///
    /// # Errors
    /// If one of its threads panicked.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_panic| io::Error::other("it panicked"))
                .doing(|| "end the adversary".to_owned())?;
        }
        Ok(self.changes())
    }
}

/// Also when a test fails.
impl Drop for Adversary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
