//! The removal of one tree, after the last look.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, bail};
use nodemend_cli::{Signals, remark};
use nodemend_hostfs::StateDir;
use nodemend_rmtree::{End, Observer, Pace, Problem, Progress, Reason, Report, Tree, remove, set_aside};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use crate::arguments::{Arguments, ProgressForm};
use crate::brake::Brake;
use crate::document::{Outcome, ProblemCount, ProblemFact, State};
use crate::inspect::Space;
use crate::journal::Entries;
use crate::progress::{self, Meter};
use crate::words::text;

/// How many problems the report holds of one tree.
const PROBLEMS: usize = 100;

/// Another run removes the same tree.
#[derive(Debug)]
pub(crate) struct Busy;

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("another mend-rm removes this tree; wait for it to end")
    }
}

impl std::error::Error for Busy {}

/// Removes a tree, and says what became of it.
///
/// # Errors
/// If it could not be begun; then nothing was removed.
pub(crate) fn act(
    tree: Tree,
    arguments: &Arguments,
    signals: &Signals,
    brake: Option<&mut Brake>,
) -> anyhow::Result<(State, Outcome)> {
    let parent = open(tree.parent())?;
    // Kept until the end. The lock is on this tree and not on the machine: a removal may take an hour, in which the other
    // tools must be able to work, and what it touches is below this directory alone.
    let _lock = lock(&tree)?;
    let before = Space::of(&parent)?.bytes_used;
    let (entries, trouble) = Entries::begin(&StateDir::at(&arguments.state_dir), &tree)?;
    if let Some(trouble) = trouble {
        remark(&format!(
            "no room for the journal, and so this removal is not in it: {}\n",
            nodemend_cli::escaped(&trouble)
        ));
    }
    let (tree, aside) = rename(tree, arguments)?;
    let mut watch = Watch {
        signals,
        brake,
        waiting: false,
        meter: Meter::new(arguments.progress, text(tree.path()), parent.try_clone()?, before),
    };
    let report = remove(tree, &arguments.options(), &mut watch);
    watch.meter.end(progress::State {
        removed: report.removed,
        problems: report.problem_count(),
        threads: report.threads,
        elapsed: report.elapsed,
        waiting: false,
    });
    let after = Space::of(&parent).map_or(before, |space| space.bytes_used);
    let outcome = outcome(&report, aside, before.saturating_sub(after));
    // It is done: a journal that cannot be written any more is told, and changes nothing.
    if let Err(error) = entries.end(&outcome) {
        remark(&format!("{}\n", nodemend_cli::escaped(&error.to_string())));
    }
    let state = match report.end {
        End::Gone if report.problem_count() == 0 => State::Removed,
        End::Gone | End::Left => State::Left,
        End::Stopped => State::Stopped,
        End::ReadOnly => State::ReadOnly,
    };
    Ok((state, outcome))
}

fn open(dir: impl AsFd) -> std::io::Result<OwnedFd> {
    Ok(openat(
        dir,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn lock(tree: &Tree) -> anyhow::Result<OwnedFd> {
    let dir = open(tree.dir())?;
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        // A file system that knows no locks does not keep anybody from removing things.
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok(dir),
        Err(Errno::WOULDBLOCK) => Err(Busy.into()),
        Err(errno) => bail!("{}: lock: {errno}", tree.path().display()),
    }
}

fn rename(tree: Tree, arguments: &Arguments) -> anyhow::Result<(Tree, Option<String>)> {
    if !arguments.set_aside {
        return Ok((tree, None));
    }
    let old = text(tree.path());
    let tree = set_aside(tree).context("nothing was removed")?;
    let new = text(tree.path());
    // Lines for programs are not mixed with lines for people; theirs have the new name, too.
    if arguments.progress != ProgressForm::Json {
        let said = format!("{old} is free; what was there is {new} until it is gone");
        remark(&format!("{}\n", nodemend_cli::escaped(&said)));
    }
    Ok((tree, Some(new)))
}

fn outcome(report: &Report, set_aside: Option<String>, bytes_freed: u64) -> Outcome {
    Outcome {
        set_aside,
        removed: report.removed.into(),
        bytes_freed,
        seconds: report.elapsed.as_secs_f64(),
        threads: report.threads,
        problem_counts: report
            .counts
            .iter()
            .map(|(reason, count)| ProblemCount {
                reason: reason.word().to_owned(),
                count: *count,
            })
            .collect(),
        problems: report.problems.iter().take(PROBLEMS).map(problem).collect(),
        error: None,
    }
}

fn problem(problem: &Problem) -> ProblemFact {
    ProblemFact {
        path: text(&problem.path),
        step: problem.step.to_string(),
        reason: problem.reason.word().to_owned(),
        detail: problem.detail.clone(),
        error: problem.error.map(|errno| std::io::Error::from(errno).to_string()),
        help: help(problem.reason).map(str::to_owned),
    }
}

/// What would help, in the words of this tool's flags.
fn help(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Immutable | Reason::AppendOnly => Some("run again with --clear-flags"),
        Reason::Subvolume | Reason::ReadOnlySnapshot => Some("run again with --subvolumes"),
        Reason::Mount => Some("unmount it, and run again"),
        Reason::WrittenTo => {
            Some("end whoever writes there, and run again; --set-aside takes the name away from them")
        }
        Reason::Moved => Some("run again"),
        Reason::SubvolumeInUse
        | Reason::ReadOnly
        | Reason::FlagsLost
        | Reason::Denied
        | Reason::Full
        | Reason::Other => reason.help(),
    }
}

/// Watches a removal: shows it, brakes it, ends it.
struct Watch<'a> {
    signals: &'a Signals,
    brake: Option<&'a mut Brake>,
    waiting: bool,
    meter: Meter,
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: &Progress) {
        self.meter.show(progress::State {
            removed: progress.removed,
            problems: progress.problems,
            threads: progress.threads,
            elapsed: progress.elapsed,
            waiting: self.waiting,
        });
    }

    fn pace(&mut self) -> Pace {
        if self.signals.received().is_some() {
            return Pace::Stop;
        }
        self.waiting = self.brake.as_mut().is_some_and(|brake| brake.holds());
        if self.waiting { Pace::Wait } else { Pace::Go }
    }
}
