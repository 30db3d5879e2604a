//! A run at work: what is shown meanwhile, and its report.

use nodemend_cli::{Exit, Signals, StatusLine};
use nodemend_containerd::{End, Ended, Look, Run, StepRecord, Tools, resume, roll_back, status};
use nodemend_hostfs::{HostLock, StateDir};

use crate::arguments::Arguments;
use crate::document::ContainerdReport;
use crate::run::print;

/// Where a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// On.
    Resume,
    /// Back.
    RollBack,
}

/// Goes through a run, and reports.
pub(crate) fn go(
    arguments: &Arguments,
    signals: &Signals,
    lock: &HostLock,
    aim: Aim,
    run: Run,
    look: Option<Look>,
) -> anyhow::Result<Exit> {
    let state = StateDir::at(&arguments.state_dir);
    let options = arguments.options()?;
    let line = StatusLine::new();
    let mut tell = |record: &StepRecord| {
        let how = if record.done.is_some() { "done" } else { "…" };
        line.set(&format!("{} of 8  {} {how}", record.step.number(), record.step));
    };
    let tools = Tools {
        lock,
        state: &state,
        stop: signals.stop(),
        tell: &mut tell,
    };
    let ended = match aim {
        Aim::Resume => resume(run, &options, tools),
        Aim::RollBack => roll_back(run, &options, tools),
    };
    line.clear();
    report(arguments, signals, &state, ended?, look)
}

fn report(
    arguments: &Arguments,
    signals: &Signals,
    state: &StateDir,
    ended: Ended,
    look: Option<Look>,
) -> anyhow::Result<Exit> {
    let Ended { run, end, back } = ended;
    // The file of the run is what the next one has; where it could not be written, what is known here is told.
    let mut report = match status(state) {
        Ok(Some(status)) if status.run == run => ContainerdReport::of_status(false, status),
        _ => ContainerdReport::of_run(run),
    };
    report.look = look.map(Box::new);
    report.back = back;
    report.changed = report
        .items
        .iter()
        .any(|item| item.number > 1 && item.state != crate::State::NotTried);
    report.signal = signals.received();
    let exit = match end {
        End::Done => Exit::Success,
        End::Interrupted(step) => {
            report.error = Some(format!(
                "a signal ended the run before step {}, {step}",
                step.number()
            ));
            Exit::Partly
        }
        End::NotBack(error) => {
            report.error = Some(format!("roll-back: {error}"));
            Exit::Partly
        }
        End::Failed(step, error) => {
            report.error = Some(format!("step {}, {step}: {error}", step.number()));
            Exit::Partly
        }
    };
    print(&report, arguments)?;
    Ok(report.signal.map_or(exit, Exit::Signal))
}
