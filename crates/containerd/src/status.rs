//! What a run has come to, and what can still be done about it. Reads only.

use nodemend_hostfs::{BootClock, StateDir};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::state::{Course, Run, RunFile};
use crate::steps::Step;
use crate::steps::removal::{Removal, removal};

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The run.
    pub run: Run,
    /// How far the removal of the old root is.
    pub removal: Removal,
    /// What `--resume` would do.
    pub resume: Next,
    /// What `--roll-back` would do.
    pub roll_back: Next,
}

/// What can be done next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Next {
    /// Whether there is anything to do, and it may be done.
    pub possible: bool,
    /// What it would do, or why it does nothing.
    pub what: String,
}

/// The status of the last run. None if there was none.
///
/// # Errors
/// If the file of the run cannot be read, or it cannot be told where the old root is.
pub fn status(state: &StateDir) -> Result<Option<Status>, Error> {
    let Some(run) = RunFile::of(state).load()? else {
        return Ok(None);
    };
    let same_boot = run.begun.boot_id == BootClock::new()?.now().boot_id;
    let removal = removal(&run, state, same_boot)?;
    Ok(Some(Status {
        resume: resume(&run, &removal),
        roll_back: roll_back(&run, &removal),
        run,
        removal,
    }))
}

fn next(possible: bool, what: impl Into<String>) -> Next {
    Next {
        possible,
        what: what.into(),
    }
}

fn resume(run: &Run, removal: &Removal) -> Next {
    match (run.course, removal) {
        (Course::GaveUp, _) => next(
            false,
            "nothing: the run ended before the root was touched; begin a new one",
        ),
        (Course::RolledBack, _) => next(false, "nothing: the run was rolled back"),
        (Course::Back, _) => next(true, "goes on rolling back"),
        (Course::Forward, _) => next(true, forward(run)),
        (Course::Mended, Removal::Running { .. }) => next(false, "nothing: the old root is being removed"),
        (Course::Mended, Removal::Gone) => next(false, "nothing: all is done"),
        (Course::Mended, Removal::NotBegun | Removal::Refused { .. } | Removal::Stopped { .. }) => {
            next(true, "starts the removal of the old root again")
        }
    }
}

fn forward(run: &Run) -> String {
    // Until the root is aside, the steps before are gone through again: somebody may have started the services.
    let from = match run.is_done(Step::SetAside) {
        true => Step::ALL.into_iter().find(|step| !run.is_done(*step)),
        false => Some(Step::Stop),
    };
    match from {
        Some(step) => format!("goes on with step {}, {step}", step.number()),
        None => "closes the run: all steps are done".to_owned(),
    }
}

pub(crate) fn roll_back(run: &Run, removal: &Removal) -> Next {
    match (run.course, removal) {
        (Course::GaveUp | Course::RolledBack, _) => next(false, "nothing: the old root is in its place"),
        (_, Removal::Running { .. }) => next(false, "impossible: the old root is being removed"),
        (_, Removal::Stopped { .. }) => next(false, "impossible: a part of the old root is removed"),
        (_, Removal::Gone) => next(false, "impossible: the old root is removed"),
        (_, Removal::NotBegun | Removal::Refused { .. }) => next(
            true,
            "stops the services, puts the old root back with all its records, and starts what ran before",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::run;

    #[test]
    fn nothing_is_rolled_back_once_the_removal_has_begun() {
        let mut run = run();
        let stopped = Removal::Stopped {
            how: "stopped".to_owned(),
        };
        let refused = Removal::Refused { why: Vec::new() };
        for (course, removal, possible) in [
            (Course::Forward, Removal::NotBegun, true),
            (Course::Back, Removal::NotBegun, true),
            (Course::Mended, refused, true),
            (Course::Mended, stopped, false),
            (Course::Mended, Removal::Gone, false),
            (
                Course::Mended,
                Removal::Running {
                    pid: 1,
                    progress: None,
                },
                false,
            ),
            (Course::GaveUp, Removal::NotBegun, false),
            (Course::RolledBack, Removal::NotBegun, false),
        ] {
            run.course = course;
            assert_eq!(
                roll_back(&run, &removal).possible,
                possible,
                "{course:?} {removal:?}"
            );
        }
    }

    #[test]
    fn a_run_that_was_killed_before_the_root_was_aside_stops_the_services_again() {
        let mut run = run();
        for step in [Step::Stop, Step::Pods, Step::Unmount] {
            run.begin(step, run.begun.clone());
            run.end(step, Vec::new(), run.begun.clone());
        }
        assert_eq!(forward(&run), "goes on with step 2, stop kubelet and containerd");
        run.begin(Step::SetAside, run.begun.clone());
        run.end(Step::SetAside, Vec::new(), run.begun.clone());
        assert_eq!(forward(&run), "goes on with step 6, start containerd and kubelet");
    }
}
