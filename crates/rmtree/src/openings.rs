//! The directories that are open: not too many of them, and each the one that it was.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nodemend_hostfs::FileId;
use rustix::io::Errno;

use crate::descent::Descent;
use crate::dir::{Dir, Held};

/// The fewest directories that a run can do with: a few for each thread.
const LEAST: usize = 32;

/// How many directories each thread needs at once.
const NEEDED: usize = 8;

/// Opens directories within a budget. Beyond it, those that were opened first are closed: in a deep tree they are needed last.
/// They are opened again from below by `..`, or from above by their names, and compared with what they were.
#[derive(Debug)]
pub(crate) struct Openings {
    descent: Descent,
    open: AtomicUsize,
    most: usize,
    /// Those that may be open, and some that are done, in the order of their opening.
    order: Mutex<VecDeque<Weak<Dir>>>,
}

impl Openings {
    pub(crate) fn new(descent: Descent, most: Option<usize>) -> Self {
        let most = most.unwrap_or_else(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            limit.map_or(4096, |limit| usize::try_from(limit / 2).unwrap_or(4096))
        });
        Self {
            descent,
            open: AtomicUsize::new(0),
            most: most.clamp(LEAST, 4096),
            order: Mutex::default(),
        }
    }

    /// How many threads can share the budget.
    pub(crate) fn threads(&self) -> usize {
        self.most / NEEDED
    }

    /// How many directories may be read ahead of their removal: it is worth it, but not without end.
    pub(crate) fn ahead(&self) -> usize {
        (self.most / 4).min(64)
    }

    /// Whether so many are open that no more should be kept open.
    pub(crate) fn crowded(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.most * 3 / 4
    }

    /// Opens a child for the first time.
    pub(crate) fn enter(&self, parent: &Arc<Dir>, name: &CStr) -> Result<OwnedFd, Errno> {
        let dir = self.of(parent)?;
        if self.crowded() {
            self.thin_out();
        }
        let opened = self.with_room(|| self.descent.down(dir.as_fd(), name))?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    /// Makes it known that a directory is open, so that it can be closed for others.
    pub(crate) fn register(&self, dir: &Arc<Dir>) {
        let mut order = self.order();
        if order.len() > 2 * self.most {
            order.retain(|dir| dir.strong_count() > 0);
        }
        order.push_back(Arc::downgrade(dir));
    }

    fn order(&self) -> MutexGuard<'_, VecDeque<Weak<Dir>>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries again with fewer directories open, if somebody else in this process has taken what was left.
    fn with_room<T>(&self, mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.thin_out();
                open()
            }
            other => other,
        }
    }

    /// The open directory. Opens it again if it was closed.
    ///
    /// # Errors
    /// `STALE` if something else is there now.
    pub(crate) fn of(&self, dir: &Arc<Dir>) -> Result<Arc<OwnedFd>, Errno> {
        self.with_room(|| self.reach(dir))
    }

    fn reach(&self, dir: &Arc<Dir>) -> Result<Arc<OwnedFd>, Errno> {
        // From above: first up to the nearest one that is open, then down again by the names.
        let mut closed = Vec::new();
        let mut at = dir;
        let mut above = loop {
            if let Some(fd) = &at.held().fd {
                break Arc::clone(fd);
            }
            closed.push(at);
            // The root is never closed.
            at = at.parent.as_ref().ok_or(Errno::STALE)?;
        };
        if closed.is_empty() {
            return Ok(above);
        }
        // Those between are open for a moment only: there may be thousands.
        for between in closed.drain(1..).rev() {
            let fd = self.descent.down(above.as_fd(), &between.name)?;
            same(&fd, between.held().id)?;
            above = Arc::new(fd);
        }
        self.again(dir, |descent| descent.down(above.as_fd(), &dir.name))
    }

    /// The open parent of a directory. From below, if that one is still open: the way down may be long.
    pub(crate) fn parent_of(&self, dir: &Dir, parent: &Arc<Dir>) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = &parent.held().fd {
            return Ok(Arc::clone(fd));
        }
        let below = dir.held().fd.clone();
        match below.map(|fd| self.again(parent, |descent| descent.up(fd.as_fd()))) {
            Some(Ok(fd)) => Ok(fd),
            // It was moved away, or there was nothing to go up from.
            _ => self.of(parent),
        }
    }

    fn again(
        &self,
        dir: &Arc<Dir>,
        open: impl FnOnce(Descent) -> Result<OwnedFd, Errno>,
    ) -> Result<Arc<OwnedFd>, Errno> {
        let mut held = dir.held();
        if let Some(fd) = &held.fd {
            return Ok(Arc::clone(fd));
        }
        let opened = open(self.descent)?;
        same(&opened, held.id)?;
        let opened = Arc::new(opened);
        held.fd = Some(Arc::clone(&opened));
        drop(held);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.register(dir);
        Ok(opened)
    }

    /// The listing is over, so the position may be lost.
    pub(crate) fn listed(&self, dir: &Dir) {
        dir.held().listing = false;
    }

    /// Closes a directory that is done.
    pub(crate) fn close(&self, dir: &Dir) {
        if dir.held().fd.take().is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Closes one that was entered and is not worked on.
    pub(crate) fn forget(&self, child: OwnedFd) {
        drop(child);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Closes those that were opened first, until half of the budget is free.
    fn thin_out(&self) {
        let mut order = self.order();
        for _ in 0..order.len() {
            if self.open.load(Ordering::Relaxed) <= self.most / 2 {
                return;
            }
            let Some(dir) = order.pop_front() else { return };
            if let Some(dir) = dir.upgrade()
                && !self.close_for_now(&mut dir.held())
            {
                order.push_back(Arc::downgrade(&dir));
            }
        }
    }

    /// False if somebody works in it.
    fn close_for_now(&self, held: &mut Held) -> bool {
        let Some(fd) = &held.fd else { return true };
        if held.listing || Arc::strong_count(fd) > 1 {
            return false;
        }
        let Ok(id) = FileId::of(fd.as_fd()) else {
            return false;
        };
        held.id = Some(id);
        held.fd = None;
        self.open.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

/// An error if something else was opened than what was closed.
fn same(opened: &OwnedFd, closed: Option<FileId>) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(opened)?;
    if closed == Some(FileId::from(&stat)) {
        Ok(())
    } else {
        Err(Errno::STALE)
    }
}
