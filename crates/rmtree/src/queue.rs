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
        let idle = state.idle;
        drop(state);
        match (idle, many) {
            (0, _) => {}
            (_, true) => self.work.notify_all(),
            // One that may not work yet could swallow the only call.
            (1, false) => self.work.notify_one(),
            (_, false) => self.work.notify_all(),
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
            if worker < state.wanted {
                if let Some((lane, task)) = state.pop(last) {
                    state.working += 1;
                    return Some((Turn { queue: self, lane }, task));
                }
                if state.working == 0 {
                    state.closed = true;
                    self.work.notify_all();
                    self.over.notify_all();
                    return None;
                }
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
    }

    /// Ends the run.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
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
