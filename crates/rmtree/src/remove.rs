//! The run: threads for the work, and the caller's thread, which watches them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, SeekFrom};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::error::Error;
use crate::flags::{self, Flags};
use crate::gate::Gate;
use crate::observer::{Observer, Pace, Progress};
use crate::openings::Openings;
use crate::options::Options;
use crate::policy::{FileSystem, Lanes, Policy};
use crate::problems::{Problems, reason};
use crate::queue::{Queue, Task};
use crate::report::{End, Reason, Removed, Report, Step};
use crate::subvolume::{self, Refusal};
use crate::tally::{Load, Tally};
use crate::tree::Tree;
use crate::worker::{Run, WIDE_BATCHES, Worker};

/// How often the caller's thread looks.
const TICK: Duration = Duration::from_millis(50);

/// Removes a tree. Returns when all threads have ended.
///
/// Errors do not end the run: they are in the report. The caller's thread removes nothing; it asks the observer about
/// every 50 ms.
pub fn remove(tree: Tree, options: &Options, observer: &mut dyn Observer) -> Report {
    let start = Instant::now();
    let openings = Openings::new(tree.descent(), options.open_dirs);
    let most = options
        .threads
        .map_or(usize::MAX, usize::from)
        .min(openings.threads());
    let policy = tree.policy().at_most(most);
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

/// The threads of a run, seen from the caller's.
struct Crew<'a> {
    run: &'a Run<'a>,
    /// One for each worker there may be.
    tallies: &'a [Tally],
    /// Of the caller's thread, which removes the root.
    own: Tally,
    wanted: usize,
    /// The most workers that there were.
    most: usize,
    before: Load,
    start: Instant,
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

    /// One pass over the whole tree. True if something stays.
    fn pass(&mut self, root: Dir, observer: &mut dyn Observer) -> bool {
        let root = Arc::new(root);
        self.run.queue.reopen();
        self.run.queue.push(Task::List(Arc::clone(&root)));
        let run = self.run;
        let mut vacant = self.tallies.iter().enumerate();
        std::thread::scope(|scope| {
            let mut hired = 0;
            loop {
                while hired < self.wanted
                    && let Some((index, tally)) = vacant.next()
                    && hire(scope, run, index, tally)
                {
                    hired += 1;
                }
                if hired == 0
                    && let Some(tally) = self.tallies.first()
                {
                    // The system gives no thread at all: then this one does the work, without an observer.
                    Worker::new(run, tally).work(0);
                }
                self.most = self.most.max(hired.min(self.wanted));
                if run.queue.wait(TICK) {
                    break;
                }
                self.watch(observer);
            }
        });
        root.stays()
    }

    /// One look at the workers: how many there should be, what the observer says.
    fn watch(&mut self, observer: &mut dyn Observer) {
        let now = self
            .tallies
            .iter()
            .map(Tally::load)
            .fold(Load::default(), Load::plus);
        let window = now.since(self.before);
        let wanted = wanted(self.run.policy, window, self.wanted);
        self.before = now;
        let split = self.run.policy.split && worth_splitting(window);
        self.run.split.store(split, Ordering::Relaxed);
        if wanted != self.wanted {
            self.wanted = wanted;
            self.run.queue.want(wanted);
        }
        self.tell(observer);
        let pace = observer.pace();
        self.run.gate.set(pace);
        if pace == Pace::Stop {
            self.run.queue.close();
        }
    }

    fn tell(&self, observer: &mut dyn Observer) {
        observer.progress(&Progress {
            removed: self.removed(),
            problems: self.run.problems.count(),
            threads: self.wanted,
            elapsed: self.start.elapsed(),
        });
    }

    fn removed(&self) -> Removed {
        let all = self.tallies.iter().chain([&self.own]);
        all.map(Tally::removed).fold(Removed::default(), Removed::plus)
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

/// How many workers there should be, after a look at where their time went.
fn wanted(policy: Policy, window: Load, now: usize) -> usize {
    if window.waits_for_reads() {
        policy.cold
    } else if window.busy > 0 {
        policy.warm
    } else {
        now
    }
}

/// Whether several threads in one directory are worth it. They take turns with its lock: that is cheap while each is on a
/// processor, as it spins for a moment; but where others use the processors, each turn is a sleep, and one thread is faster.
fn worth_splitting(window: Load) -> bool {
    window.waits_for_reads() || window.processor * 10 >= window.busy * 8
}

/// Starts a worker. False if the system gives no thread.
fn hire<'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: &'scope Run<'scope>,
    index: usize,
    tally: &'scope Tally,
) -> bool {
    let work = move || {
        let worker = Worker::new(run, tally);
        worker.be_polite();
        worker.work(index);
    };
    Builder::new()
        .name("rmtree".to_owned())
        .spawn_scoped(scope, work)
        .is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_come_while_others_wait_for_the_disk_and_go_again() {
        let policy = Policy {
            warm: 2,
            cold: 16,
            split: true,
            lanes: Lanes::None,
        };
        let load = |busy, processor, reads| Load {
            busy,
            processor,
            reads,
        };
        let (read, locks, journal) = (
            load(100_000, 20_000, 800),
            load(100_000, 20_000, 0),
            load(1_200_000, 20_000, 8),
        );
        assert_eq!(wanted(policy, read, 2), 16, "they wait for reads");
        assert_eq!(
            wanted(policy, locks, 16),
            2,
            "they wait for locks: more would wait, too"
        );
        assert_eq!(
            wanted(policy, journal, 2),
            2,
            "one read does not explain a second of waiting"
        );
        assert_eq!(
            wanted(policy, load(100_000, 95_000, 8), 16),
            2,
            "nearly all is in memory"
        );
        assert_eq!(
            wanted(policy, load(0, 0, 0), 16),
            16,
            "nothing is known of a pause"
        );
        assert!(
            worth_splitting(load(100_000, 90_000, 0)),
            "the processors are free"
        );
        assert!(!worth_splitting(locks), "others use them");
        assert!(worth_splitting(read), "they wait for the disk");
    }
}
