//! A directory that still has something to do.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodemend_hostfs::FileId;

/// A directory that still has something to do. Its children hold it, so it is there until the last of them is done.
#[derive(Debug)]
pub(crate) struct Dir {
    /// None for the root.
    pub(crate) parent: Option<Arc<Dir>>,
    pub(crate) name: Box<CStr>,
    /// The lane in which its entries are removed, if there are lanes.
    pub(crate) lane: Option<usize>,
    /// How often it was found not empty before.
    pub(crate) attempt: u32,
    /// Tasks and child directories that are not done.
    pending: AtomicUsize,
    /// Something in it stays.
    stays: AtomicBool,
    held: Mutex<Held>,
}

/// What is known of the open directory.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Open, unless it was closed to save descriptors.
    pub(crate) fd: Option<Arc<OwnedFd>>,
    /// What it is: filled before it is closed, and compared when it is opened again.
    pub(crate) id: Option<FileId>,
    /// Being read: its position must not be lost.
    pub(crate) listing: bool,
}

impl Dir {
    /// With one task pending: its listing.
    pub(crate) fn new(parent: Option<Arc<Dir>>, name: Box<CStr>, fd: OwnedFd, lane: Option<usize>) -> Self {
        let held = Held {
            fd: Some(Arc::new(fd)),
            id: None,
            listing: true,
        };
        Self {
            parent,
            name,
            lane,
            attempt: 0,
            pending: AtomicUsize::new(1),
            stays: AtomicBool::new(false),
            held: Mutex::new(held),
        }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        // What it guards is whole at any moment.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More tasks.
    pub(crate) fn expect(&self, tasks: usize) {
        self.pending.fetch_add(tasks, Ordering::Relaxed);
    }

    /// One task less. True if it was the last.
    pub(crate) fn done(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Something in it stays, so it stays.
    pub(crate) fn keep(&self) {
        self.stays.store(true, Ordering::Release);
    }

    pub(crate) fn stays(&self) -> bool {
        self.stays.load(Ordering::Acquire)
    }

    /// The path of an entry of it, below the path of the root.
    pub(crate) fn path_of(&self, root: &Path, entry: Option<&CStr>) -> PathBuf {
        let mut names: Vec<&CStr> = entry.into_iter().collect();
        let mut dir = self;
        while let Some(parent) = &dir.parent {
            names.push(&dir.name);
            dir = parent;
        }
        let mut path = root.to_owned();
        path.extend(names.iter().rev().map(|name| OsStr::from_bytes(name.to_bytes())));
        path
    }
}

/// One by one: a chain of a million directories would overflow the stack.
impl Drop for Dir {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(dir) = next {
            next = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}
