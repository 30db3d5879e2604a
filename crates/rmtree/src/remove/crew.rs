//! The threads of a run: hired, watched, and as many as are worth it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use crate::dir::Dir;
use crate::observer::{Observer, Pace, Progress};
use crate::policy::Policy;
use crate::queue::Task;
use crate::report::Removed;
use crate::tally::{Load, Tally};
use crate::worker::{Run, Worker};

/// How often the caller's thread looks.
const TICK: Duration = Duration::from_millis(50);

/// The threads of a run, seen from the caller's.
pub(super) struct Crew<'a> {
    pub(super) run: &'a Run<'a>,
    /// One for each worker there may be.
    pub(super) tallies: &'a [Tally],
    /// Of the caller's thread, which removes the root.
    pub(super) own: Tally,
    pub(super) wanted: usize,
    /// The most workers that there were.
    pub(super) most: usize,
    pub(super) before: Load,
    pub(super) start: Instant,
}

impl Crew<'_> {
    /// One pass over the whole tree. True if something stays.
    pub(super) fn pass(&mut self, root: Dir, observer: &mut dyn Observer) -> bool {
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

    pub(super) fn tell(&self, observer: &mut dyn Observer) {
        observer.progress(&Progress {
            removed: self.removed(),
            problems: self.run.problems.count(),
            threads: self.wanted,
            elapsed: self.start.elapsed(),
        });
    }

    pub(super) fn removed(&self) -> Removed {
        let all = self.tallies.iter().chain([&self.own]);
        all.map(Tally::removed).fold(Removed::default(), Removed::plus)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Lanes;

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
