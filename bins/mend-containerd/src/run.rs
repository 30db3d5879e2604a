//! The run: look, plan, print, ask, lock, look again, go, report.

use std::io::IsTerminal;

use nodemend_cli::{
    Exit, Output, Paint, Signals, UsageError, agreed, fail, remark, say_json, say_safe, start,
};
use nodemend_containerd::{Look, Needed, Order, PodChoice, Reason, RunPlan, Status, look, plan, status};
use nodemend_hostfs::{Host, StateDir, vantage};

use crate::arguments::{Arguments, Command};
use crate::document::ContainerdReport;
use crate::going::{Aim, go};
use crate::remover::remove;
use crate::render::render;

/// Runs the tool from its arguments to its exit code. Prints the report to stdout and all else to stderr.
pub fn run(arguments: &Arguments) -> Exit {
    start(arguments.verbose);
    begin(arguments).unwrap_or_else(|error| fail(&error))
}

fn begin(arguments: &Arguments) -> anyhow::Result<Exit> {
    match arguments.command {
        Some(Command::Status) => return said(arguments),
        Some(Command::RemoveOldRoot) => return remove(&arguments.state_dir),
        None => {}
    }
    let signals = Signals::listen()?;
    if let Some(outside) = vantage::check()? {
        return Err(outside.into());
    }
    match (arguments.resume, arguments.roll_back) {
        (true, _) => taken_up(arguments, &signals, Aim::Resume),
        (_, true) => taken_up(arguments, &signals, Aim::RollBack),
        (false, false) => fresh(arguments, &signals),
    }
}

/// `status`.
fn said(arguments: &Arguments) -> anyhow::Result<Exit> {
    let report = match status(&StateDir::at(&arguments.state_dir))? {
        Some(status) => ContainerdReport::of_status(true, status),
        None => ContainerdReport::empty(true),
    };
    print(&report, arguments)?;
    Ok(Exit::Success)
}

/// `--resume` and `--roll-back`.
fn taken_up(arguments: &Arguments, signals: &Signals, aim: Aim) -> anyhow::Result<Exit> {
    let state = StateDir::at(&arguments.state_dir);
    let Some(found) = status(&state)? else {
        print(&ContainerdReport::empty(!arguments.apply), arguments)?;
        return Ok(Exit::Success);
    };
    let next = match aim {
        Aim::Resume => found.resume.clone(),
        Aim::RollBack => found.roll_back.clone(),
    };
    if !arguments.apply || !next.possible {
        print(&ContainerdReport::of_status(!arguments.apply, found), arguments)?;
        // Nothing to do is no failure; what cannot be done is.
        return Ok(match (next.possible, next.what.starts_with("nothing")) {
            (true, _) if arguments.detailed_exitcode => Exit::Pending,
            (true, _) | (false, true) => Exit::Success,
            (false, false) => Exit::Partly,
        });
    }
    let question = match aim {
        Aim::Resume => format!("Go on with the run {}: {}?", found.run.id, next.what),
        Aim::RollBack => format!("Roll the run {} back: {}?", found.run.id, next.what),
    };
    if !agreed(&question, arguments.yes, 1)? {
        return Ok(Exit::Success);
    }
    let lock = state.lock()?;
    // Another run may have gone on with it while the question stood.
    let Some(Status { mut run, .. }) = status(&state)?.filter(|again| again.run == found.run) else {
        return Err(UsageError::new("the run went on meanwhile; look at its status").into());
    };
    run.pods = arguments.order().pods.unwrap_or(run.pods);
    if arguments.stop_command.is_some() {
        (run.containerd, run.kubelet) = arguments.services();
    }
    go(arguments, signals, &lock, aim, run, None)
}

/// A new run.
fn fresh(arguments: &Arguments, signals: &Signals) -> anyhow::Result<Exit> {
    let state = StateDir::at(&arguments.state_dir);
    if let Some(earlier) = status(&state)?.filter(|earlier| !earlier.run.course.is_over()) {
        return unfinished(arguments, earlier);
    }
    let mut order = arguments.order();
    let look_options = arguments.look();
    let first = look(&Host::local(), &look_options)?;
    let mut planned = plan(&first, &order);
    if arguments.apply && ask_about_pods(&planned, &first, arguments, &mut order)? {
        planned = plan(&first, &order);
    }
    let refused = !planned.refusals.is_empty();
    let needed = planned.needed;
    let report = ContainerdReport::of_plan(!arguments.apply, first.clone(), planned.clone());
    if !arguments.apply || refused || needed == Needed::No {
        print(&report, arguments)?;
        return Ok(match (refused, needed) {
            (true, _) => Exit::Partly,
            (false, Needed::No) => Exit::Success,
            (false, _) if arguments.detailed_exitcode => Exit::Pending,
            (false, _) => Exit::Success,
        });
    }
    if arguments.yes == 0 && std::io::stderr().is_terminal() {
        let paint = Paint::of(arguments.color, &std::io::stderr());
        remark(&render(&report, arguments.verbose > 0, paint));
    }
    let root = first
        .root
        .as_ref()
        .map_or(&first.settings.root, |root| &root.path);
    let question = format!("Set {} aside as planned?", root.display());
    if !agreed(&question, arguments.yes, 1)? {
        return Ok(Exit::Success);
    }
    let lock = state.lock()?;
    let again = look(&Host::local(), &look_options)?;
    let replanned = plan(&again, &order);
    if !still(&first, &again, &replanned) {
        let mut report = ContainerdReport::of_plan(false, again, replanned);
        report.error =
            Some("the node changed after the plan was made; run again, and read the new plan".to_owned());
        print(&report, arguments)?;
        return Ok(Exit::Partly);
    }
    let pods = replanned.pods.unwrap_or(PodChoice::None);
    let run = nodemend_containerd::begin(run_name(), &again, arguments.services(), pods, order.images)?;
    go(arguments, signals, &lock, Aim::Resume, run, Some(again))
}

/// Whether a second look, under the lock, still allows the run.
fn still(first: &Look, again: &Look, replanned: &RunPlan) -> bool {
    let id = |look: &Look| look.root.as_ref().map(|root| (root.path.clone(), root.id));
    id(first) == id(again) && replanned.needed == Needed::Yes && replanned.refusals.is_empty()
}

/// On a terminal: whether running pods are to be ended. True if that is decided now.
fn ask_about_pods(
    planned: &RunPlan,
    look: &Look,
    arguments: &Arguments,
    order: &mut Order,
) -> anyhow::Result<bool> {
    let undecided = planned
        .refusals
        .iter()
        .all(|refusal| refusal.reason == Reason::PodsUndecided);
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if planned.pods.is_some() || !undecided || !terminal {
        return Ok(false);
    }
    let paint = Paint::of(arguments.color, &std::io::stderr());
    let report = ContainerdReport::of_plan(true, look.clone(), planned.clone());
    remark(&render(&report, arguments.verbose > 0, paint));
    let question = format!(
        "{} pods run, and their records are lost with the root. End them (--reap-pods)? kubelet starts them anew.",
        look.pods.len()
    );
    if agreed(&question, 0, 1)? {
        order.pods = Some(PodChoice::Reap);
    }
    Ok(order.pods.is_some())
}

fn unfinished(arguments: &Arguments, earlier: Status) -> anyhow::Result<Exit> {
    let mut report = ContainerdReport::of_status(!arguments.apply, earlier);
    report.error =
        Some("an earlier run has not ended: --resume goes on with it, --roll-back undoes it".to_owned());
    print(&report, arguments)?;
    Ok(Exit::Partly)
}

/// The time and the pid: in the order of the runs, and never used twice.
fn run_name() -> String {
    let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    format!("{}-{}", time.replace(':', "-"), std::process::id())
}

pub(crate) fn print(report: &ContainerdReport, arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.output {
        Output::Json => say_json(report)?,
        Output::Text => {
            let paint = Paint::of(arguments.color, &std::io::stdout());
            say_safe(&render(report, arguments.verbose > 0, paint))?;
        }
    }
    let planned = report.dry_run && report.summary.planned > 0 && report.refusals.is_empty();
    if planned && arguments.command.is_none() {
        remark("\nNothing was changed. To mend this: the same command with --apply\n");
    }
    Ok(())
}
