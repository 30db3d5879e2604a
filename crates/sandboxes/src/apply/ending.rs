//! Ending the processes of a sandbox: asked first, then killed; the application first, then pause.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::own::{self, Whose};
use super::process::{self, Target};
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::Sandbox;

/// How long an application may take to end by itself. It runs for all sandboxes at once.
const GRACE: Duration = Duration::from_secs(2);

/// How long the kernel gets to end what was killed.
const DEATH: Duration = Duration::from_secs(5);

/// How often what was born meanwhile is killed as well.
const ROUNDS: usize = 20;

/// An application that was asked to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    processes: usize,
    until: Instant,
}

/// How processes ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// By themselves, when they were asked.
    pub(crate) willing: usize,
    /// Killed.
    pub(crate) killed: usize,
}

/// Sends SIGTERM to the application.
pub(crate) fn ask(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<Asked, Error> {
    let targets = own::processes(sandbox, Whose::Application)?;
    if !targets.is_empty() {
        steps.write(signal("SIGTERM", &targets))?;
    }
    for target in &targets {
        target.signal(Signal::TERM)?;
    }
    Ok(Asked {
        processes: targets.len(),
        until: Instant::now() + GRACE,
    })
}

/// Waits for the application that was asked, kills what is left of it, and then pause.
pub(crate) fn end(sandbox: &Sandbox, asked: Asked, steps: Steps<'_, '_>) -> Result<Ended, Error> {
    let left = process::wait(own::processes(sandbox, Whose::Application)?, asked.until);
    let willing = asked.processes.saturating_sub(left.len());
    let mut killed = kill(sandbox, Whose::Application, steps)?;
    killed += kill(sandbox, Whose::Pause, steps)?;
    Ok(Ended { willing, killed })
}

/// Kills until nobody is left. A process that forks meanwhile is found in the cgroup.
fn kill(sandbox: &Sandbox, whose: Whose, steps: Steps<'_, '_>) -> Result<usize, Error> {
    let mut killed = 0;
    for _ in 0..ROUNDS {
        let targets = own::processes(sandbox, whose)?;
        if targets.is_empty() {
            return Ok(killed);
        }
        killed += targets.len();
        steps.write(signal("SIGKILL", &targets))?;
        for cgroup in own::cgroups(sandbox, whose)? {
            cgroup.kill()?;
        }
        for target in &targets {
            target.signal(Signal::KILL)?;
        }
        let left = process::wait(targets, Instant::now() + DEATH);
        if !left.is_empty() {
            return Err(Error::Running {
                reason: "killed, but not ended",
                processes: process::said(&left),
            });
        }
    }
    Err(Error::Running {
        reason: "new processes are started faster than they can be killed",
        processes: process::said(&own::processes(sandbox, whose)?),
    })
}

/// An error if a process of the sandbox is there.
pub(crate) fn nobody(sandbox: &Sandbox) -> Result<(), Error> {
    let mut found = own::processes(sandbox, Whose::Application)?;
    found.extend(own::processes(sandbox, Whose::Pause)?);
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Running {
        reason: "it runs, and only --reap ends what runs",
        processes: process::said(&found),
    })
}

fn signal<'s>(signal: &'static str, targets: &[Target]) -> Step<'s> {
    Step::Signal {
        signal,
        processes: targets.iter().map(Target::identity).collect(),
    }
}
