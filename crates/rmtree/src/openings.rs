//! The directories that are open: not too many of them, and each the one that it was.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nodemend_hostfs::FileId;
use rustix::io::Errno;

use crate::descent::Descent;
use crate::dir::{Dir, Held};

/// The fewest directories that a run can do with: a few for each thread.
const LEAST: usize = 32;

/// How many of its nearest ancestors each directory keeps open: they are needed again soon.
const NEAR: usize = 4;

/// Opens directories within a budget. Beyond it, ancestors are closed; they are opened again from below by `..`, or from
/// above by their names, and compared with what they were.
#[derive(Debug)]
pub(crate) struct Openings {
    descent: Descent,
    open: AtomicUsize,
    most: usize,
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
        }
    }

    /// How many threads can share the budget.
    pub(crate) fn threads(&self) -> usize {
        self.most / (2 * NEAR)
    }

    /// How many directories may be read ahead of their removal: it is worth it, but not without end.
    pub(crate) fn ahead(&self) -> usize {
        (self.most / 4).min(64)
    }

    /// Whether it is time to close some.
    pub(crate) fn crowded(&self) -> bool {
        self.open.load(Ordering::Relaxed) > self.most * 3 / 4
    }

    /// Opens a child for the first time.
    pub(crate) fn enter(&self, parent: &Arc<Dir>, name: &CStr) -> Result<OwnedFd, Errno> {
        let dir = self.of(parent)?;
        if self.crowded() {
            self.thin_out(parent);
        }
        let opened = self.with_room(parent, || self.descent.down(dir.as_fd(), name))?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    /// Tries again with fewer directories open, if somebody else in this process has taken what was left.
    fn with_room<T>(&self, dir: &Arc<Dir>, mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.thin_out(dir);
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
        dir: &Dir,
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
        self.open.fetch_add(1, Ordering::Relaxed);
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

    /// Closes the far ancestors of a directory.
    pub(crate) fn thin_out(&self, dir: &Arc<Dir>) {
        let mut far = Some(dir);
        for _ in 0..NEAR {
            far = far.and_then(|dir| dir.parent.as_ref());
        }
        while let Some(dir) = far {
            if dir.parent.is_some() {
                self.close_for_now(&mut dir.held());
            }
            far = dir.parent.as_ref();
        }
    }

    fn close_for_now(&self, held: &mut Held) {
        let Some(fd) = &held.fd else { return };
        if held.listing || Arc::strong_count(fd) > 1 {
            return;
        }
        let Ok(id) = FileId::of(fd.as_fd()) else { return };
        held.id = Some(id);
        held.fd = None;
        self.open.fetch_sub(1, Ordering::Relaxed);
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
