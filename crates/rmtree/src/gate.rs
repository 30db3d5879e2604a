//! Whether the threads may go on.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::observer::Pace;
use crate::report::End;

const GO: u8 = 0;
const WAIT: u8 = 1;
const STOPPED: u8 = 2;
const READ_ONLY: u8 = 3;

/// How soon a thread that waits sees that it may go on.
const NAP: Duration = Duration::from_millis(10);

/// Asked by each thread before each entry.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    /// True if the run goes on; waits as long as it pauses.
    pub(crate) fn passed(&self) -> bool {
        loop {
            match self.0.load(Ordering::Relaxed) {
                GO => return true,
                WAIT => std::thread::sleep(NAP),
                _ => return false,
            }
        }
    }

    /// Sets the pace. A run that has ended stays so.
    pub(crate) fn set(&self, pace: Pace) {
        let state = match pace {
            Pace::Go => GO,
            Pace::Wait => WAIT,
            Pace::Stop => STOPPED,
        };
        self.change(state);
    }

    /// Ends the run, as nothing can be removed any more.
    pub(crate) fn read_only(&self) {
        self.change(READ_ONLY);
    }

    fn change(&self, state: u8) {
        let running = |now| (now < STOPPED).then_some(state);
        // An error is a run that has ended: nothing to change.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, running);
    }

    /// How the run was ended, if it was.
    pub(crate) fn ended(&self) -> Option<End> {
        match self.0.load(Ordering::Relaxed) {
            STOPPED => Some(End::Stopped),
            READ_ONLY => Some(End::ReadOnly),
            _ => None,
        }
    }
}
