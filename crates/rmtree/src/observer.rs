//! What a caller sees of a run, and how it slows it down or ends it.

use std::time::Duration;

use crate::report::Removed;

/// Sees a run, from the thread that called [`remove`](crate::remove). `()` sees nothing and lets it run.
pub trait Observer {
    /// Told about every 50 ms, and once at the end.
    fn progress(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// Asked about every 50 ms. Each thread first finishes the entry in hand.
    fn pace(&mut self) -> Pace {
        Pace::Go
    }
}

impl Observer for () {}

/// How a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At full speed.
    Go,
    /// Nothing is removed until the answer is another one.
    Wait,
    /// The run ends, with what it has done as its report.
    Stop,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is gone.
    pub removed: Removed,
    /// How many problems were met.
    pub problems: u64,
    /// How many threads may work now.
    pub threads: usize,
    /// Time since the start.
    pub elapsed: Duration,
}
