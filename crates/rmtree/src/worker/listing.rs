//! Reading a directory: its files go, or are handed over in portions; its children are put on the queue.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::{Run, Worker};
use crate::dir::Dir;
use crate::names::{Files, Names};
use crate::queue::{Portion, Task};
use crate::report::Step;

/// How much of a directory is known before its files are removed and its children entered, in bytes. Bounds the memory.
const BATCH: usize = 256 << 10;

/// From how many files on a directory is worked on by several threads, and in which portions.
const WIDE: usize = 512;
const PORTION: usize = 256;

/// How many entries are removed between two measurements.
const STRIDE: u32 = 32;

/// Whether there is more to read.
#[derive(PartialEq, Eq)]
struct More(bool);

/// How the listing of a directory goes on.
enum Listed {
    /// There is more to read.
    On,
    /// Read to its end, or its rest is on the queue.
    Over,
    /// The run has ended.
    Ended,
}

/// What is known of a directory at once.
#[derive(Default)]
struct Batch {
    files: Files,
    /// The room that was lent for the names.
    room: usize,
}

impl Run<'_> {
    /// Room for so many bytes of names more. False if there is none.
    fn lend(&self, bytes: usize) -> bool {
        let take = |room: usize| room.checked_sub(bytes);
        let lent = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        lent.is_ok()
    }
}

impl Worker<'_> {
    /// Reads a directory, removes its files, and puts its children on the queue.
    pub(super) fn list(&mut self, dir: Arc<Dir>) {
        match self.run.openings.of(&dir) {
            Ok(fd) => {
                let mut children = Names::default();
                loop {
                    match self.list_batch(&dir, &fd, &mut children) {
                        Listed::On => {}
                        Listed::Over => break,
                        Listed::Ended => return,
                    }
                }
            }
            Err(error) => self.problem_at(Step::List, error, &dir, None),
        }
        self.done(dir);
    }

    /// One batch of a directory. What is left of it goes on with this call's children, or is put on the queue.
    fn list_batch(&mut self, dir: &Arc<Dir>, fd: &Arc<OwnedFd>, children: &mut Names) -> Listed {
        let mut batch = Batch::default();
        let read = self.read(fd.as_fd(), &mut batch, children);
        // A directory that somebody else has removed has no entries: it says NOENT.
        if let Err(error) = read
            && error != Errno::NOENT
        {
            self.problem_at(Step::List, error, dir, None);
        }
        let over = read != Ok(More(true));
        if over {
            self.run.openings.listed(dir);
        }
        let wide = batch.files.len() > WIDE;
        if wide {
            batch.files.sort();
        }
        let split = wide && self.run.split.load(Ordering::Relaxed);
        let hand_over = split || (dir.lane.is_some() && batch.files.len() > 0);
        // With many directories open, this one must come to its end, so that it may be closed.
        let later = !over && !self.run.openings.crowded() && (hand_over || children.len() > 0);
        if later {
            dir.expect(1);
            self.run.queue.push(Task::List(Arc::clone(dir)));
        }
        if over || later {
            self.push_children(dir, std::mem::take(children));
        }
        if hand_over && (over || later) {
            self.push_portions(dir, fd, &batch, if split { PORTION } else { usize::MAX });
        } else {
            let files = &batch.files;
            if !files
                .iter()
                .all(|name| self.passed_and_unlinked(dir, fd.as_fd(), name))
            {
                return Listed::Ended;
            }
            self.give_back(batch.room);
        }
        if over || later { Listed::Over } else { Listed::On }
    }

    /// Reads until the end, or until enough is known.
    fn read(&mut self, fd: BorrowedFd<'_>, batch: &mut Batch, children: &mut Names) -> Result<More, Errno> {
        let mut entries = RawDir::new(fd, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            match (entry.file_name(), entry.file_type()) {
                (name, _) if name == c"." || name == c".." => {}
                (name, FileType::Directory) => children.push(name),
                // If it is a directory, unlink says so.
                (name, _) => batch.files.push(entry.ino(), name),
            }
            if !entries.is_buffer_empty() {
                continue;
            }
            let known = batch.files.size() + children.size();
            let more = known.saturating_sub(BATCH + batch.room);
            if !self.run.gate.passed() || (more > 0 && !self.run.lend(more)) {
                return Ok(More(true));
            }
            batch.room += more;
        }
        Ok(More(false))
    }

    fn give_back(&self, room: usize) {
        self.run.room.fetch_add(room, Ordering::Relaxed);
    }

    fn push_children(&self, dir: &Arc<Dir>, children: Names) {
        if children.len() > 0 {
            dir.expect(children.len());
            self.run.queue.push_children(Arc::clone(dir), children);
        }
    }

    /// The first portion on top; the one that is done last gives the room back.
    fn push_portions(&self, dir: &Arc<Dir>, fd: &Arc<OwnedFd>, batch: &Batch, size: usize) {
        let mut room = batch.room;
        for names in batch.files.portions(size).rev() {
            dir.expect(1);
            let portion = Portion {
                dir: Arc::clone(fd),
                names,
                room: std::mem::take(&mut room),
            };
            self.run.queue.push(Task::Unlink(Arc::clone(dir), portion));
        }
    }

    pub(super) fn unlink_portion(&mut self, dir: Arc<Dir>, portion: Portion) {
        let fd = portion.dir.as_fd();
        if !portion
            .names
            .iter()
            .all(|name| self.passed_and_unlinked(&dir, fd, name))
        {
            return;
        }
        self.give_back(portion.room);
        drop(portion);
        self.done(dir);
    }

    /// False if the run has ended.
    fn passed_and_unlinked(&mut self, dir: &Arc<Dir>, fd: BorrowedFd<'_>, name: &CStr) -> bool {
        if !self.run.gate.passed() {
            return false;
        }
        self.unlink(dir, fd, name, 0);
        self.since_note += 1;
        if self.since_note >= STRIDE {
            self.note();
        }
        true
    }
}
