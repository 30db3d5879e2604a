//! Removing: a file, and a directory when the last of its entries is done.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Worker;
use crate::dir::Dir;
use crate::queue::Task;
use crate::report::{Reason, Step};
use crate::{flags, subvolume};

impl Worker<'_> {
    pub(super) fn unlink(&mut self, dir: &Arc<Dir>, fd: BorrowedFd<'_>, name: &CStr, attempt: u32) {
        let gone = self.remove_entry(dir, fd, name, AtFlags::empty());
        match gone {
            Ok(()) => self.tally.file(),
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if attempt <= self.run.options.rescans => {
                dir.expect(1);
                let task = Task::Enter(Arc::clone(dir), Box::from(name), attempt);
                self.run.queue.push(task);
            }
            Err(Errno::ISDIR) => self.problem(Step::Open, Errno::NOTEMPTY, dir, fd, name),
            Err(error) => self.problem(Step::Unlink, error, dir, fd, name),
        }
    }

    /// Removes an entry, with the flags off that protect it, if that is wanted.
    fn remove_entry(
        &self,
        dir: &Arc<Dir>,
        fd: BorrowedFd<'_>,
        name: &CStr,
        how: AtFlags,
    ) -> Result<(), Errno> {
        let gone = rustix::fs::unlinkat(fd, name, how);
        if gone != Err(Errno::PERM) || !self.run.options.clear_flags {
            return gone;
        }
        let outcome = flags::remove_protected(fd, name, how, flags::Directory::Goes);
        if let Some((_, error)) = outcome.bare {
            let path = || dir.path_of(self.run.root, Some(name));
            self.run
                .problems
                .add(Step::Unlink, Some(error), Reason::FlagsLost, path);
        }
        outcome.in_errno()
    }

    /// Before Linux 4.18 rmdir does not take a subvolume, not even an empty one.
    fn destroy_emptied(&self, parent: BorrowedFd<'_>, dir: &Dir) -> bool {
        let child = dir.held().fd.clone();
        self.run.btrfs
            && self.run.options.subvolumes
            && child.is_some_and(|child| subvolume::destroy(parent, &dir.name, child.as_fd()).is_ok())
    }

    /// A task of a directory is done. The last one removes it, and then its parent has a task less.
    pub(super) fn done(&mut self, mut dir: Arc<Dir>) {
        while dir.done() {
            let Some(parent) = dir.parent.clone() else { return };
            let stays = dir.stays() || !self.rmdir(&parent, &dir);
            let again = stays && !dir.stays();
            self.run.openings.close(&dir);
            if again {
                let task = Task::Enter(parent, dir.name.clone(), dir.attempt + 1);
                return self.run.queue.push(task);
            }
            if stays {
                parent.keep();
            }
            dir = parent;
        }
    }

    /// Removes an empty directory. False if it must be looked into again, or if it stays and was marked so.
    fn rmdir(&mut self, parent: &Arc<Dir>, dir: &Arc<Dir>) -> bool {
        let fd = match self.run.openings.parent_of(dir, parent) {
            Ok(fd) => fd,
            Err(error) => {
                dir.keep();
                self.problem_at(Step::Open, error, parent, Some(&dir.name));
                return false;
            }
        };
        let gone = self.remove_entry(parent, fd.as_fd(), &dir.name, AtFlags::REMOVEDIR);
        match gone {
            Ok(()) => self.tally.directory(),
            Err(Errno::NOENT) => {}
            // Somebody has put something into it, or something else in its place.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) if dir.attempt < self.run.options.rescans => {
                return false;
            }
            Err(Errno::PERM) if self.destroy_emptied(fd.as_fd(), dir) => self.tally.subvolume(),
            Err(error) => {
                dir.keep();
                self.problem(Step::Rmdir, error, parent, fd.as_fd(), &dir.name);
                return false;
            }
        }
        true
    }
}
