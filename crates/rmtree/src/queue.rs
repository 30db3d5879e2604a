//! What is still to do, last in, first out: so the tree is worked on depth first, and few directories wait half done.

use std::ffi::CStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dir::Dir;
use crate::names::Names;

/// A piece of work.
#[derive(Debug)]
pub(crate) enum Task {
    /// Read a directory, from where the last reader stopped.
    List(Arc<Dir>),
    /// Remove these entries, which are no directories.
    Unlink(Arc<Dir>, Names),
    /// Enter this child and remove it.
    Enter(Arc<Dir>, Box<CStr>, u32),
}

/// What lies on a stack: children stay together, as each needs a few bytes only.
#[derive(Debug)]
enum Entry {
    One(Task),
    Children(Arc<Dir>, Names),
}

#[derive(Debug, Default)]
struct Lane {
    stack: Vec<Entry>,
    workers: usize,
}

#[derive(Debug)]
struct State {
    lanes: Vec<Lane>,
    /// How many workers each lane may have.
    width: usize,
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
    /// With several lanes, each is for one worker at a time.
    pub(crate) fn new(lanes: usize, wanted: usize) -> Self {
        Self {
            state: Mutex::new(State {
                lanes: std::iter::repeat_with(Lane::default).take(lanes).collect(),
                width: if lanes > 1 { 1 } else { usize::MAX },
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

    pub(crate) fn push(&self, lane: usize, task: Task) {
        self.put(lane, Entry::One(task));
    }

    /// Children of a directory that are to be entered.
    pub(crate) fn push_children(&self, lane: usize, dir: Arc<Dir>, names: Names) {
        self.put(lane, Entry::Children(dir, names));
    }

    fn put(&self, lane: usize, entry: Entry) {
        let mut state = self.state();
        let many = matches!(&entry, Entry::Children(_, names) if names.len() > 1);
        if let Some(lane) = state.lanes.get_mut(lane) {
            lane.stack.push(entry);
        }
        let idle = state.idle > 0;
        drop(state);
        match (idle, many) {
            (true, true) => self.work.notify_all(),
            (true, false) => self.work.notify_one(),
            (false, _) => {}
        }
    }

    /// The next piece of work for a worker, and its lane: the one that it worked on, if there is something. None when all is
    /// done or the run has ended.
    pub(crate) fn take(&self, worker: usize, last: usize) -> Option<(Turn<'_>, Task)> {
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

    fn release(&self, lane: usize) {
        let mut state = self.state();
        state.working -= 1;
        if let Some(lane) = state.lanes.get_mut(lane) {
            lane.workers -= 1;
        }
        // A narrow lane is free for another, or this was the last piece and all must see that.
        let wake = state.idle > 0 && (state.width == 1 || state.working == 0);
        drop(state);
        if wake {
            self.work.notify_all();
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
    pub(crate) lane: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.queue.release(self.lane);
    }
}

impl State {
    fn pop(&mut self, last: usize) -> Option<(usize, Task)> {
        let count = self.lanes.len();
        let width = self.width;
        (0..count).map(|step| (last + step) % count).find_map(|index| {
            let lane = self.lanes.get_mut(index).filter(|lane| lane.workers < width)?;
            let task = lane.pop()?;
            lane.workers += 1;
            Some((index, task))
        })
    }
}

impl Lane {
    fn pop(&mut self) -> Option<Task> {
        loop {
            match self.stack.last_mut()? {
                Entry::Children(dir, names) => {
                    if let Some(name) = names.pop() {
                        return Some(Task::Enter(Arc::clone(dir), name, 0));
                    }
                    self.stack.pop();
                }
                Entry::One(_) => {
                    if let Some(Entry::One(task)) = self.stack.pop() {
                        return Some(task);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::*;

    fn dir() -> Arc<Dir> {
        let fd = OwnedFd::from(File::open("/").unwrap());
        Arc::new(Dir::new(None, Box::from(c"dir"), fd, 0))
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
        let (queue, dir) = (Queue::new(1, 1), dir());
        queue.push_children(0, Arc::clone(&dir), children(&[c"a", c"b"]));
        queue.push_children(0, dir, children(&[c"c"]));
        let order: Vec<_> = std::iter::from_fn(|| entered(queue.take(0, 0))).collect();
        assert_eq!(order, [c"c", c"b", c"a"].map(Box::from));
    }

    #[test]
    fn a_narrow_lane_is_for_one_worker_at_a_time() {
        let (queue, dir) = (Queue::new(2, 2), dir());
        queue.push_children(0, Arc::clone(&dir), children(&[c"a", c"b"]));
        queue.push_children(1, dir, children(&[c"c"]));
        let first = queue.take(0, 0);
        let second = queue.take(1, 0);
        assert_eq!(
            second.as_ref().map(|(turn, _)| turn.lane),
            Some(1),
            "lane 0 is taken"
        );
        drop((first, second));
        assert_eq!(entered(queue.take(1, 0)).as_deref(), Some(c"a"));
    }

    #[test]
    fn all_is_done_when_the_last_worker_finds_nothing() {
        let queue = Queue::new(1, 1);
        queue.push(0, Task::List(dir()));
        let turn = queue.take(0, 0);
        assert!(!queue.wait(Duration::ZERO), "somebody works");
        drop(turn);
        assert!(queue.take(0, 0).is_none());
        assert!(queue.wait(Duration::ZERO));
    }
}
