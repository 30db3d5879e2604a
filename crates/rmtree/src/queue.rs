//! What is still to do, last in, first out: so the tree is worked on depth first, and few directories wait half done.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dir::Dir;
use crate::names::Names;

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Task {
    /// Read a directory, from where the last reader stopped.
    List(Arc<Dir>),
    /// Remove entries of a directory that are no directories.
    Unlink(Arc<Dir>, Portion),
    /// Enter this child and remove it.
    Enter(Arc<Dir>, Box<CStr>, u32),
}

/// Some of the files of a directory.
#[derive(Debug)]
pub(crate) struct Portion {
    /// The directory stays open for them: by now it may be far from where others work, and the way back long.
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) names: Names,
    /// How much room for names is to be given back.
    pub(crate) room: usize,
}

/// What lies on a stack: children stay together, as each needs a few bytes only.
#[derive(Debug)]
enum Entry {
    One(Task),
    Children(Arc<Dir>, Names),
}

#[derive(Debug, Default)]
struct Lane {
    stack: Vec<Task>,
    taken: bool,
}

#[derive(Debug)]
struct State {
    /// For any worker.
    shared: Vec<Entry>,
    /// Each for one worker at a time.
    lanes: Vec<Lane>,
    /// How many tasks wait in lanes, and how many may before nothing more is read: each has its directory open.
    waiting: usize,
    ahead: usize,
    /// How many workers there may be.
    wanted: usize,
    working: usize,
    idle: usize,
    /// Nothing is given out any more.
    closed: bool,
}

/// The queue of a run.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// For workers: there may be something to do.
    work: Condvar,
    /// For workers that are not wanted now.
    spare: Condvar,
    /// For the caller's thread: all is done.
    over: Condvar,
}

impl Queue {
    /// With so many lanes, in which entries of directories that have one are removed by one worker at a time.
    pub(crate) fn new(lanes: usize, wanted: usize, ahead: usize) -> Self {
        Self {
            state: Mutex::new(State {
                shared: Vec::new(),
                lanes: std::iter::repeat_with(Lane::default).take(lanes).collect(),
                waiting: 0,
                ahead,
                wanted,
                working: 0,
                idle: 0,
                closed: false,
            }),
            work: Condvar::new(),
            spare: Condvar::new(),
            over: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, task: Task) {
        let mut state = self.state();
        state.put(task);
        let idle = state.idle > 0;
        drop(state);
        if idle {
            self.work.notify_one();
        }
    }

    /// Children of a directory that are to be entered.
    pub(crate) fn push_children(&self, dir: Arc<Dir>, names: Names) {
        let mut state = self.state();
        state.shared.push(Entry::Children(dir, names));
        let idle = state.idle > 0;
        drop(state);
        if idle {
            self.work.notify_all();
        }
    }

    /// The next piece of work for a worker; of the lane that it worked in, if there is something. None when all is done or
    /// the run has ended.
    pub(crate) fn take(&self, worker: usize, last: Option<usize>) -> Option<(Turn<'_>, Task)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if worker >= state.wanted {
                state = self.spare.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if let Some((lane, task)) = state.pop(last) {
                state.working += 1;
                return Some((Turn { queue: self, lane }, task));
            }
            if state.working == 0 {
                drop(state);
                self.close();
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Opens it for another pass.
    pub(crate) fn reopen(&self) {
        self.state().closed = false;
    }

    fn release(&self, lane: Option<usize>) {
        let mut state = self.state();
        state.working -= 1;
        if let Some(lane) = lane.and_then(|lane| state.lanes.get_mut(lane)) {
            lane.taken = false;
        }
        // The lane is free for another, a directory is open again, or this was the last piece and somebody must see that.
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Sets how many workers there may be.
    pub(crate) fn want(&self, wanted: usize) {
        self.state().wanted = wanted;
        self.work.notify_all();
        self.spare.notify_all();
    }

    /// Ends the run.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
        self.spare.notify_all();
        self.over.notify_all();
    }

    /// Waits until all is done, or for so long. True if all is done.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let state = self.state();
        if state.closed {
            return true;
        }
        let (state, _) = self
            .over
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed
    }
}

/// A worker's right to its lane, until it has done its piece.
#[derive(Debug)]
pub(crate) struct Turn<'q> {
    queue: &'q Queue,
    pub(crate) lane: Option<usize>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.queue.release(self.lane);
    }
}

impl State {
    fn put(&mut self, task: Task) {
        let lane = match &task {
            Task::Unlink(dir, ..) => dir.lane,
            Task::List(_) | Task::Enter(..) => None,
        };
        match lane.and_then(|lane| self.lanes.get_mut(lane)) {
            Some(lane) => {
                lane.stack.push(task);
                self.waiting += 1;
            }
            None => self.shared.push(Entry::One(task)),
        }
    }

    /// What waits in a free lane goes first: directories are open for it.
    fn pop(&mut self, last: Option<usize>) -> Option<(Option<usize>, Task)> {
        let count = self.lanes.len();
        let first = last.unwrap_or(0);
        for index in (0..count).map(|step| (first + step) % count) {
            let Some(lane) = self.lanes.get_mut(index).filter(|lane| !lane.taken) else {
                continue;
            };
            if let Some(task) = lane.stack.pop() {
                lane.taken = true;
                self.waiting -= 1;
                return Some((Some(index), task));
            }
        }
        if self.waiting >= self.ahead || (self.working > 0 && self.next_is_far()) {
            return None;
        }
        Some((None, self.pop_shared()?))
    }

    /// Whether the next directory was closed, as too many are open. Somebody is on the way up to it: one step, where from
    /// the root it may be thousands.
    fn next_is_far(&self) -> bool {
        match self.shared.last() {
            Some(Entry::Children(dir, _) | Entry::One(Task::Enter(dir, ..))) => dir.held().fd.is_none(),
            Some(Entry::One(Task::List(_) | Task::Unlink(..))) | None => false,
        }
    }

    fn pop_shared(&mut self) -> Option<Task> {
        if let Some(Entry::Children(dir, names)) = self.shared.last_mut() {
            let task = names.pop().map(|name| Task::Enter(Arc::clone(dir), name, 0));
            if names.len() == 0 {
                self.shared.pop();
            }
            return task;
        }
        match self.shared.pop()? {
            Entry::One(task) => Some(task),
            Entry::Children(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs::File;

    use super::*;

    fn files(dir: &Arc<Dir>) -> Task {
        let portion = Portion {
            dir: dir.held().fd.clone().unwrap(),
            names: Names::default(),
            room: 0,
        };
        Task::Unlink(Arc::clone(dir), portion)
    }

    fn dir(lane: Option<usize>) -> Arc<Dir> {
        let fd = OwnedFd::from(File::open("/").unwrap());
        Arc::new(Dir::new(None, Box::from(c"dir"), fd, lane))
    }

    fn children(names: &[&CStr]) -> Names {
        let mut children = Names::default();
        for name in names {
            children.push(name);
        }
        children
    }

    fn entered(task: Option<(Turn<'_>, Task)>) -> Option<Box<CStr>> {
        match task? {
            (_, Task::Enter(_, name, _)) => Some(name),
            (_, Task::List(_) | Task::Unlink(..)) => None,
        }
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out() {
        let (queue, dir) = (Queue::new(0, 1, 64), dir(None));
        queue.push_children(Arc::clone(&dir), children(&[c"a", c"b"]));
        queue.push_children(dir, children(&[c"c"]));
        let order: Vec<_> = std::iter::from_fn(|| entered(queue.take(0, None))).collect();
        assert_eq!(order, [c"c", c"b", c"a"].map(Box::from));
    }

    #[test]
    fn a_lane_is_for_one_worker_at_a_time_and_others_read_ahead() {
        let (queue, dir) = (Queue::new(2, 2, 64), dir(Some(1)));
        for _ in 0..2 {
            queue.push(files(&dir));
        }
        queue.push_children(dir, children(&[c"ahead"]));
        let first = queue.take(0, None);
        assert_eq!(first.as_ref().map(|(turn, _)| turn.lane), Some(Some(1)));
        assert_eq!(entered(queue.take(1, None)).as_deref(), Some(c"ahead"));
        drop(first);
        let next = queue.take(1, None);
        assert_eq!(
            next.as_ref().map(|(turn, _)| turn.lane),
            Some(Some(1)),
            "the lane is free again"
        );
    }

    #[test]
    fn reading_ahead_has_an_end() {
        let (queue, dir) = (Queue::new(1, 2, 64), dir(Some(0)));
        for _ in 0..=64 {
            queue.push(files(&dir));
        }
        queue.push_children(Arc::clone(&dir), children(&[c"ahead"]));
        let turn = queue.take(0, None);
        assert!(queue.state().pop(None).is_none(), "64 wait already");
        drop(turn);
        drop(queue.take(0, None));
        let _turn = queue.take(0, None);
        assert!(matches!(queue.state().pop(None), Some((None, Task::Enter(..)))));
    }

    #[test]
    fn all_is_done_when_the_last_worker_finds_nothing() {
        let queue = Queue::new(0, 1, 64);
        queue.push(Task::List(dir(None)));
        let turn = queue.take(0, None);
        assert!(!queue.wait(Duration::ZERO), "somebody works");
        drop(turn);
        assert!(queue.take(0, None).is_none());
        assert!(queue.wait(Duration::ZERO));
    }
}
