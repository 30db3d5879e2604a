//! One thread's work: enter directories, remove what is in them, and them after it.

mod leaving;
mod listing;

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::dir::Dir;
use crate::gate::Gate;
use crate::openings::Openings;
use crate::options::{Options, Urgency};
use crate::policy::{Lanes, Policy};
use crate::problems::{Problems, reason};
use crate::queue::{Queue, Task};
use crate::report::{Reason, Step};
use crate::subvolume::Refusal;
use crate::tally::{Meter, Tally};
use crate::{subvolume, sys};

/// How much of a directory is read at once, in bytes: about 8,000 entries.
const BUFFER: usize = 256 << 10;

/// How much more may be known of wide directories, in the whole run, in bytes: so that their files can be sorted. About 250,000
/// names, each with its inode number.
pub(crate) const WIDE_BATCHES: usize = 8 << 20;

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
    /// How many more bytes may be known of wide directories: see [`WIDE_BATCHES`].
    pub(crate) room: AtomicUsize,
    /// Whether several threads in one directory are worth it now.
    pub(crate) split: AtomicBool,
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
                Task::Unlink(dir, portion) => self.unlink_portion(dir, portion),
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
        let stat =
            (self.run.btrfs || matches!(lanes, Lanes::Groups { .. })).then(|| rustix::fs::fstat(&child));
        let stat = stat.and_then(Result::ok);
        let subvolume = self.run.btrfs && stat.as_ref().is_some_and(subvolume::is_root);
        if subvolume && !self.destroy(&parent, &name, child.as_fd()) {
            self.run.openings.forget(child);
            return self.done(parent);
        }
        let lane = lanes.of_inode(stat.map_or(0, |stat| stat.st_ino));
        let mut dir = Dir::new(Some(parent), name, child, lane);
        dir.attempt = attempt;
        let dir = Arc::new(dir);
        self.run.openings.register(&dir);
        self.list(dir);
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
        if reason == Reason::ReadOnly {
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
