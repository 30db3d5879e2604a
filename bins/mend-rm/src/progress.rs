//! How far a removal is, on stderr.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nodemend_cli::{StatusLine, remark};
use nodemend_evidence::API_VERSION;
use nodemend_rmtree::Removed;
use serde::Serialize;

use crate::arguments::ProgressForm;
use crate::document::RemovedFact;
use crate::estimate::time_left;
use crate::inspect::Space;
use crate::words::{bytes, count, time};

/// One line of `--progress json`. Within v1 fields are only added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    api_version: &'static str,
    kind: &'static str,
    path: &'a str,
    removed: RemovedFact,
    entries_per_second: u64,
    bytes_freed: u64,
    /// At most: as if every inode in use were in the tree.
    seconds_left: Option<u64>,
    elapsed_seconds: f64,
    threads: usize,
    problems: u64,
    /// The brake holds.
    waiting: bool,
    /// It is over.
    done: bool,
}

/// How far a removal is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) removed: Removed,
    pub(crate) problems: u64,
    pub(crate) threads: usize,
    pub(crate) elapsed: Duration,
    pub(crate) waiting: bool,
}

/// Shows how far a removal is.
pub(crate) struct Meter {
    form: Form,
    path: String,
    /// A directory of the file system.
    dir: OwnedFd,
    used_before: u64,
    /// What was gone when the rate was last taken, and when that was.
    mark: (Instant, u64),
    rate: u64,
    shown: Option<Instant>,
}

enum Form {
    None,
    Line(StatusLine),
    Json,
}

impl Meter {
    /// For a tree on the file system of `dir`, of which so many bytes are in use.
    pub(crate) fn new(form: ProgressForm, path: String, dir: OwnedFd, used_before: u64) -> Self {
        Self {
            form: match form {
                ProgressForm::None => Form::None,
                ProgressForm::Auto => Form::Line(StatusLine::new()),
                ProgressForm::Json => Form::Json,
            },
            path,
            dir,
            used_before,
            mark: (Instant::now(), 0),
            rate: 0,
            shown: None,
        }
    }

    /// Shows it, if it is time to.
    pub(crate) fn show(&mut self, state: State) {
        let every = match self.form {
            Form::None => return,
            Form::Line(_) => Duration::from_millis(200),
            Form::Json => Duration::from_secs(1),
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        self.take_rate(state.removed.entries());
        self.write(state, false);
    }

    /// The last word.
    pub(crate) fn end(&mut self, state: State) {
        match &self.form {
            Form::None => {}
            Form::Line(line) => line.clear(),
            Form::Json => {
                self.rate = per_second(state.removed.entries(), state.elapsed);
                self.write(state, true);
            }
        }
    }

    fn take_rate(&mut self, gone: u64) {
        let (at, before) = self.mark;
        let time = at.elapsed();
        if time >= Duration::from_secs(1) {
            self.rate = per_second(gone.saturating_sub(before), time);
            self.mark = (Instant::now(), gone);
        }
    }

    fn write(&self, state: State, done: bool) {
        let space = Space::of(&self.dir).ok();
        let freed = space.map_or(0, |space| self.used_before.saturating_sub(space.bytes_used));
        let left = time_left(
            space.and_then(|space| space.inodes_used),
            state.removed.entries(),
            state.elapsed,
        );
        match &self.form {
            Form::None => {}
            Form::Line(line) => line.set(&words(state, self.rate, freed, left)),
            Form::Json => {
                let line = Line {
                    api_version: API_VERSION,
                    kind: "RemovalProgress",
                    path: &self.path,
                    removed: state.removed.into(),
                    entries_per_second: self.rate,
                    bytes_freed: freed,
                    seconds_left: left.filter(|_| !done).map(|left| left.as_secs()),
                    elapsed_seconds: state.elapsed.as_secs_f64(),
                    threads: state.threads,
                    problems: state.problems,
                    waiting: state.waiting,
                    done,
                };
                // A line that cannot be made is one line less.
                if let Ok(line) = serde_json::to_string(&line) {
                    remark(&(line + "\n"));
                }
            }
        }
    }
}

fn per_second(number: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(number) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn words(state: State, rate: u64, freed: u64, left: Option<Duration>) -> String {
    let mut words = format!(
        "removed {} entries, {}/s, {} freed",
        count(state.removed.entries()),
        count(rate),
        bytes(freed)
    );
    if let Some(left) = left {
        words += &format!(", at most {} left", time(left));
    }
    if state.problems > 0 {
        words += &format!(", {} problems", count(state.problems));
    }
    if state.waiting {
        words += ", pausing: the machine waits for its disks";
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(waiting: bool) -> State {
        State {
            removed: Removed {
                files: 123_000,
                directories: 456,
                subvolumes: 0,
            },
            problems: 0,
            threads: 2,
            elapsed: Duration::from_secs(3),
            waiting,
        }
    }

    #[test]
    fn the_line_says_what_a_tired_reader_wants_to_know() {
        assert_eq!(
            words(state(false), 41_152, 3 << 30, Some(Duration::from_secs(130))),
            "removed 123,456 entries, 41,152/s, 3.0 GiB freed, at most 2 min 10 s left"
        );
        assert!(words(state(true), 0, 0, None).ends_with(", pausing: the machine waits for its disks"));
    }

    #[test]
    fn a_rate_needs_no_whole_second() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
        assert_eq!(per_second(5, Duration::ZERO), 5_000_000);
    }
}
