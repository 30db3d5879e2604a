//! The run, from the root's side: what is in it goes, then the root itself.

mod crew;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use rustix::fs::{AtFlags, SeekFrom};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::error::Error;
use crate::flags::{self, Flags};
use crate::gate::Gate;
use crate::observer::Observer;
use crate::openings::Openings;
use crate::options::Options;
use crate::policy::{FileSystem, Lanes};
use crate::problems::{Problems, reason};
use crate::queue::Queue;
use crate::report::{End, Reason, Report, Step};
use crate::subvolume::{self, Refusal};
use crate::tally::{Load, Tally};
use crate::tree::Tree;
use crate::worker::{Run, WIDE_BATCHES};

use self::crew::Crew;

/// Removes a tree. Returns when all threads have ended.
///
/// Errors do not end the run: they are in the report. The caller's thread removes nothing; it asks the observer about
/// every 50 ms.
pub fn remove(tree: Tree, options: &Options, observer: &mut dyn Observer) -> Report {
    let start = Instant::now();
    let openings = Openings::new(tree.descent(), options.open_dirs);
    let policy = tree.policy(options).at_most(openings.threads());
    let queue = Queue::new(policy.lanes.count(), policy.warm, openings.ahead());
    let run = Run {
        root: tree.path(),
        options,
        policy,
        btrfs: tree.file_system() == FileSystem::Btrfs,
        openings,
        queue,
        problems: Problems::new(options.problems),
        gate: Gate::default(),
        room: AtomicUsize::new(WIDE_BATCHES),
        split: AtomicBool::new(policy.split),
    };
    let tallies: Vec<Tally> = std::iter::repeat_with(Tally::default)
        .take(policy.cold.max(policy.warm))
        .collect();
    let mut crew = Crew {
        run: &run,
        tallies: &tallies,
        own: Tally::default(),
        wanted: policy.warm,
        most: 0,
        before: Load::default(),
        start,
    };
    let flags = crew.flags_to_keep(&tree);
    let end = crew.remove(&tree, observer);
    crew.put_back(&tree, flags);
    crew.tell(observer);
    let (removed, threads) = (crew.removed(), crew.most);
    let (problems, counts) = run.problems.into_parts();
    Report {
        path: tree.path().to_owned(),
        end,
        removed,
        problems,
        counts,
        threads,
        elapsed: start.elapsed(),
    }
}

/// What became of the root.
enum Root {
    Gone,
    Stays,
    /// There is something in it again.
    NotEmpty,
}

impl Crew<'_> {
    fn remove(&mut self, tree: &Tree, observer: &mut dyn Observer) -> End {
        match self.subvolume(tree) {
            Root::Gone => return End::Gone,
            Root::Stays => return End::Left,
            Root::NotEmpty => {}
        }
        for attempt in 0..=self.run.options.rescans {
            let before = self.removed();
            let stays = match root_dir(tree, self.run.policy.lanes) {
                Ok(root) => self.pass(root, observer),
                Err(error) => return self.left(tree, Step::List, error),
            };
            if let Some(end) = self.run.gate.ended() {
                return end;
            }
            if stays {
                return End::Left;
            }
            let last = attempt == self.run.options.rescans;
            // Nobody tells of an emptied root that it is empty but another look.
            let root = if !self.run.options.keep_root {
                self.rmdir(tree, last)
            } else if self.removed() == before {
                Root::Gone
            } else if last {
                self.left(tree, Step::List, Errno::NOTEMPTY);
                Root::Stays
            } else {
                Root::NotEmpty
            };
            match root {
                Root::Gone => return End::Gone,
                Root::Stays => return End::Left,
                Root::NotEmpty => {}
            }
        }
        End::Left
    }

    /// The flags of a root that stays: they come off for what is in it.
    fn flags_to_keep(&self, tree: &Tree) -> Flags {
        let stays = self.run.options.keep_root && self.run.options.clear_flags;
        let flags = stays.then(|| flags::directory_flags(tree.dir()).ok());
        flags.flatten().unwrap_or_default()
    }

    fn put_back(&self, tree: &Tree, flags: Flags) {
        if !flags.is_empty()
            && let Err(error) = flags::put_back(tree.dir(), flags)
        {
            self.record(tree, Step::Rmdir, Some(error), Reason::FlagsLost);
        }
    }

    /// A root that is a btrfs subvolume goes as a whole, if it may.
    fn subvolume(&mut self, tree: &Tree) -> Root {
        let is_one =
            self.run.btrfs && rustix::fs::fstat(tree.dir()).is_ok_and(|stat| subvolume::is_root(&stat));
        if !is_one || self.run.options.keep_root {
            return Root::NotEmpty;
        }
        if !self.run.options.subvolumes {
            self.record(tree, Step::Destroy, None, Reason::Subvolume);
            return Root::Stays;
        }
        if self.replaced(tree) {
            return Root::Stays;
        }
        match subvolume::destroy(tree.parent(), tree.c_name(), tree.dir()) {
            Ok(()) => {
                self.own.subvolume();
                return Root::Gone;
            }
            Err(Refusal::Kernel(Errno::NOTEMPTY)) => return Root::NotEmpty,
            Err(Refusal::Kernel(error)) => {
                self.left(tree, Step::Destroy, error);
            }
            Err(refusal) => self.record(tree, Step::Destroy, None, refusal.reason()),
        }
        Root::Stays
    }

    fn rmdir(&self, tree: &Tree, last: bool) -> Root {
        if self.replaced(tree) {
            return Root::Stays;
        }
        let mut gone = rustix::fs::unlinkat(tree.parent(), tree.c_name(), AtFlags::REMOVEDIR);
        if gone == Err(Errno::PERM) && self.run.options.clear_flags {
            let (parent, name, how) = (tree.parent(), tree.c_name(), AtFlags::REMOVEDIR);
            gone = flags::remove_protected(parent, name, how, flags::Directory::Stays).in_errno();
        }
        match gone {
            Ok(()) => {
                self.own.directory();
                Root::Gone
            }
            Err(Errno::NOENT) if is_gone(tree) => Root::Gone,
            Err(Errno::NOENT) => {
                self.record(tree, Step::Rmdir, None, Reason::Moved);
                Root::Stays
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) if !last => Root::NotEmpty,
            Err(error) => {
                self.left(tree, Step::Rmdir, error);
                Root::Stays
            }
        }
    }

    /// True, and recorded, if something else has the tree's name by now.
    fn replaced(&self, tree: &Tree) -> bool {
        match tree.check_name(tree.c_name()) {
            Ok(()) => false,
            // Already gone: the call says so.
            Err(Error::Io { .. }) => false,
            Err(_) => {
                self.record(tree, Step::Rmdir, None, Reason::Moved);
                true
            }
        }
    }

    fn left(&self, tree: &Tree, step: Step, error: Errno) -> End {
        self.record(
            tree,
            step,
            Some(error),
            reason(error, tree.parent(), tree.c_name()),
        );
        End::Left
    }

    fn record(&self, tree: &Tree, step: Step, error: Option<Errno>, reason: Reason) {
        let path = || tree.path().to_owned();
        self.run.problems.add(step, error, reason, path);
    }
}

/// Whether somebody else has removed it, and not only moved it away.
fn is_gone(tree: &Tree) -> bool {
    rustix::fs::fstat(tree.dir()).is_ok_and(|stat| stat.st_nlink == 0)
}

/// The root, to be read from its beginning.
fn root_dir(tree: &Tree, lanes: Lanes) -> Result<Dir, Errno> {
    let fd: OwnedFd = rustix::io::fcntl_dupfd_cloexec(tree.dir(), 0)?;
    rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    let lane = lanes.of_inode(tree.id().ino);
    Ok(Dir::new(None, Box::from(tree.c_name()), fd, lane))
}
