//! One thread's work: read directories, remove what is in them, and them after it.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{AtFlags, FileType, RawDir};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::gate::Gate;
use crate::names::{Files, Names};
use crate::openings::Openings;
use crate::options::{Options, Urgency};
use crate::policy::{Lanes, Policy};
use crate::problems::{Problems, read_only, reason};
use crate::queue::{Queue, Task};
use crate::report::{Reason, Step};
use crate::subvolume::Refusal;
use crate::tally::{Meter, Tally};
use crate::{flags, subvolume, sys};

/// How much of a directory is read at once, in bytes: about 8,000 entries.
const BUFFER: usize = 256 << 10;

/// How much of a directory is known before its files are removed and its children entered, in bytes of names. Bounds the memory.
const BATCH: usize = 256 << 10;

/// How much more may be known of wide directories, in the whole run: so that their files can be sorted. About 400,000 names.
pub(crate) const WIDE_BATCHES: usize = 8 << 20;

/// From how many files on a directory is worked on by several threads, and in which portions.
const WIDE: usize = 512;
const PORTION: usize = 256;

/// How many entries are removed between two measurements.
const STRIDE: u32 = 32;

/// What all threads of a run share.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) root: &'a Path,
    pub(crate) options: &'a Options,
    pub(crate) policy: Policy,
    pub(crate) btrfs: bool,
    pub(crate) openings: Openings,
    pub(crate) queue: Queue,
    pub(crate) problems: Problems,
    pub(crate) gate: Gate,
    /// How many more bytes of names may be known: see [`WIDE_BATCHES`].
    pub(crate) room: AtomicUsize,
    /// Whether several threads in one directory are worth it now.
    pub(crate) split: AtomicBool,
}

impl Run<'_> {
    /// Room for so many bytes of names more. False if there is none.
    fn lend(&self, bytes: usize) -> bool {
        let take = |room: usize| room.checked_sub(bytes);
        let lent = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        lent.is_ok()
    }
}

/// One of the threads.
pub(crate) struct Worker<'a> {
    run: &'a Run<'a>,
    tally: &'a Tally,
    meter: Meter,
    since_note: u32,
    buffer: Vec<MaybeUninit<u8>>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(run: &'a Run<'a>, tally: &'a Tally) -> Self {
        Self {
            run,
            tally,
            meter: Meter::new(),
            since_note: 0,
            buffer: vec![MaybeUninit::uninit(); BUFFER],
        }
    }

    /// Lowers the priority of the calling thread, if that is wanted. On Linux both are a thread's own.
    pub(crate) fn be_polite(&self) {
        if self.run.options.urgency == Urgency::Background {
            // A kernel that refuses leaves the run as it was: still right, only less polite.
            let _ = rustix::process::setpriority_process(None, 19);
            let _ = sys::set_io_idle();
        }
    }

    /// Works until all is done, or the run is ended.
    pub(crate) fn work(mut self, index: usize) {
        let mut lane = None;
        while let Some((turn, task)) = self.run.queue.take(index, lane) {
            lane = turn.lane.or(lane);
            self.meter.resume();
            match task {
                Task::List(dir) => self.list(dir),
                Task::Unlink(dir, names, room) => self.unlink_portion(dir, &names, room),
                Task::Enter(parent, name, attempt) => self.enter(parent, name, attempt),
            }
            self.note();
        }
    }

    fn note(&mut self) {
        self.since_note = 0;
        self.meter.note(self.tally);
    }

    fn enter(&mut self, parent: Arc<Dir>, name: Box<CStr>, attempt: u32) {
        if !self.run.gate.passed() {
            return;
        }
        let child = match self.run.openings.enter(&parent, &name) {
            Ok(child) => child,
            Err(error) => {
                self.not_entered(&parent, &name, error, attempt);
                return self.done(parent);
            }
        };
        let lanes = self.run.policy.lanes;
        // Not asked where nobody needs it.
        let stat = (self.run.btrfs || lanes != Lanes::One).then(|| rustix::fs::fstat(&child));
        let stat = stat.and_then(Result::ok);
        let subvolume = self.run.btrfs && stat.as_ref().is_some_and(subvolume::is_root);
        if subvolume && !self.destroy(&parent, &name, child.as_fd()) {
            self.run.openings.forget(child);
            return self.done(parent);
        }
        let lane = stat.and_then(|stat| lanes.of_inode(stat.st_ino));
        let mut dir = Dir::new(Some(parent), name, child, lane);
        dir.attempt = attempt;
        self.list(Arc::new(dir));
    }

    /// What stands under a directory's name cannot be entered.
    fn not_entered(&mut self, parent: &Arc<Dir>, name: &CStr, error: Errno, attempt: u32) {
        let fd = match self.run.openings.of(parent) {
            Ok(fd) => fd,
            Err(error) => return self.problem_at(Step::Open, error, parent, None),
        };
        match error {
            Errno::NOENT => {}
            // No directory any more.
            Errno::NOTDIR | Errno::LOOP => self.unlink(parent, fd.as_fd(), name, attempt + 1),
            Errno::XDEV => self.problem(Step::Open, error, parent, fd.as_fd(), name),
            // One that may not be read can still be empty.
            _ => match rustix::fs::unlinkat(&*fd, name, AtFlags::REMOVEDIR) {
                Ok(()) => self.tally.directory(),
                Err(_) => self.problem(Step::Open, error, parent, fd.as_fd(), name),
            },
        }
    }

    /// Reads a directory, removes its files, and puts its children on the queue.
    fn list(&mut self, dir: Arc<Dir>) {
        match self.run.openings.of(&dir) {
            Ok(fd) => {
                let mut children = Names::default();
                loop {
                    match self.list_batch(&dir, fd.as_fd(), &mut children) {
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
    fn list_batch(&mut self, dir: &Arc<Dir>, fd: BorrowedFd<'_>, children: &mut Names) -> Listed {
        let mut batch = Batch::default();
        let read = self.read(fd, &mut batch, children);
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
            self.push_portions(dir, &batch, if split { PORTION } else { usize::MAX });
        } else {
            let files = &batch.files;
            if !files.iter().all(|name| self.passed_and_unlinked(dir, fd, name)) {
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
    fn push_portions(&self, dir: &Arc<Dir>, batch: &Batch, size: usize) {
        let mut room = batch.room;
        for portion in batch.files.portions(size).rev() {
            dir.expect(1);
            let task = Task::Unlink(Arc::clone(dir), portion, std::mem::take(&mut room));
            self.run.queue.push(task);
        }
    }

    fn unlink_portion(&mut self, dir: Arc<Dir>, names: &Names, room: usize) {
        match self.run.openings.of(&dir) {
            Ok(fd) => {
                if !names
                    .iter()
                    .all(|name| self.passed_and_unlinked(&dir, fd.as_fd(), name))
                {
                    return;
                }
            }
            Err(error) => self.problem_at(Step::Open, error, &dir, None),
        }
        self.give_back(room);
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

    fn unlink(&mut self, dir: &Arc<Dir>, fd: BorrowedFd<'_>, name: &CStr, attempt: u32) {
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
    fn done(&mut self, mut dir: Arc<Dir>) {
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

    /// A subvolume goes as a whole, if it may. True if it must be emptied first.
    fn destroy(&mut self, parent: &Arc<Dir>, name: &CStr, child: BorrowedFd<'_>) -> bool {
        if !self.run.options.subvolumes {
            self.record(Step::Destroy, None, Reason::Subvolume, parent, Some(name));
            return false;
        }
        let fd = match self.run.openings.of(parent) {
            Ok(fd) => fd,
            Err(error) => {
                self.problem_at(Step::Open, error, parent, Some(name));
                return false;
            }
        };
        match subvolume::destroy(fd.as_fd(), name, child) {
            Ok(()) => self.tally.subvolume(),
            Err(Refusal::Kernel(Errno::NOTEMPTY)) => return true,
            Err(Refusal::Kernel(error)) => self.problem(Step::Destroy, error, parent, fd.as_fd(), name),
            Err(refusal) => self.record(Step::Destroy, None, refusal.reason(), parent, Some(name)),
        }
        false
    }

    fn problem(&self, step: Step, error: Errno, dir: &Arc<Dir>, fd: BorrowedFd<'_>, name: &CStr) {
        let reason = reason(error, fd, name);
        if reason == Reason::ReadOnly && read_only(fd) {
            self.run.gate.read_only();
            self.run.queue.close();
        }
        self.record(step, Some(error), reason, dir, Some(name));
    }

    /// Without a directory to look into for the reason.
    fn problem_at(&self, step: Step, error: Errno, dir: &Arc<Dir>, name: Option<&CStr>) {
        let reason = match error {
            Errno::STALE => Reason::Moved,
            Errno::ACCESS | Errno::PERM => Reason::Denied,
            _ => Reason::Other,
        };
        self.record(step, Some(error), reason, dir, name);
    }

    fn record(&self, step: Step, error: Option<Errno>, reason: Reason, dir: &Arc<Dir>, name: Option<&CStr>) {
        dir.keep();
        let path = || dir.path_of(self.run.root, name);
        self.run.problems.add(step, error, reason, path);
    }
}

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
