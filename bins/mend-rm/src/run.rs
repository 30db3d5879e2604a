//! The run: open, look, judge, print, ask, look again, remove, report.

use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nodemend_cli::{Exit, Output, Paint, Signals, agreed, escaped, fail, remark, say_json, say_safe, start};
use nodemend_hostfs::vantage;
use nodemend_rmtree::{Error, Tree, find};

use crate::act::{Busy, act};
use crate::arguments::Arguments;
use crate::brake::Brake;
use crate::document::{LookalikeFact, Outcome, Refusal, RefusalReason, RemovalItem, RemovalReport, State};
use crate::inspect::Machine;
use crate::refusals::{judge, of_error};
use crate::render::render;
use crate::words::{counted, text};

/// Runs the tool from its arguments to its exit code. Prints the report to stdout and all else to stderr.
pub fn run(arguments: &Arguments) -> Exit {
    start(arguments.verbose);
    go(arguments).unwrap_or_else(|error| fail(&error))
}

/// A tree that is to go, or why there is none.
struct Target {
    path: PathBuf,
    was: Option<PathBuf>,
    tree: Found,
}

enum Found {
    Tree(Box<Tree>),
    Nothing,
    Refused(Refusal),
}

impl Target {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let (path, tree) = match Tree::open(path) {
            Ok(tree) => (tree.path().to_owned(), Found::Tree(Box::new(tree))),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                (path.to_owned(), Found::Nothing)
            }
            Err(error) => match of_error(&error) {
                Some(refusal) => (path.to_owned(), Found::Refused(refusal)),
                None => return Err(error.into()),
            },
        };
        Ok(Self {
            path,
            was: None,
            tree,
        })
    }

    fn tree(&self) -> Option<&Tree> {
        match &self.tree {
            Found::Tree(tree) => Some(tree),
            Found::Nothing | Found::Refused(_) => None,
        }
    }
}

fn go(arguments: &Arguments) -> anyhow::Result<Exit> {
    let signals = Signals::listen()?;
    if let Some(outside) = vantage::check().context("mend-rm needs root, to see who uses the tree")? {
        return Err(outside.into());
    }
    let mut brake = arguments.max_io_pressure.map(Brake::new).transpose()?;
    let (targets, lookalikes) = targets(arguments)?;
    let machine = Machine::look()?;
    let mut items = Vec::new();
    for at in 0..targets.len() {
        items.push(planned(&machine, &targets, at, arguments)?);
    }
    let mut report = RemovalReport::new(!arguments.apply, items);
    report.lookalikes = lookalikes;
    if let Some(exit) = ends_with_plan(&mut report, arguments)? {
        return Ok(exit);
    }
    let mut busy = false;
    for (target, item) in targets.into_iter().zip(&mut report.items) {
        if item.state != State::Planned {
            continue;
        }
        if signals.received().is_some() {
            item.state = State::NotTried;
            continue;
        }
        busy |= mend(target, item, arguments, &signals, brake.as_mut());
    }
    report.signal = signals.received();
    report.count();
    print(&report, arguments)?;
    let summary = report.summary;
    let partly = summary.refused + summary.left + summary.stopped + summary.not_tried > 0;
    Ok(match report.signal {
        Some(signal) => Exit::Signal(signal),
        None if busy && summary.left + summary.refused == 1 => Exit::Locked,
        None if partly => Exit::Partly,
        None => Exit::Success,
    })
}

fn targets(arguments: &Arguments) -> anyhow::Result<(Vec<Target>, Vec<LookalikeFact>)> {
    let Some(dir) = &arguments.resume else {
        let targets: anyhow::Result<_> = arguments.paths.iter().map(|path| Target::open(path)).collect();
        return Ok((targets?, Vec::new()));
    };
    let found = find(dir)?;
    let targets = found
        .trees
        .into_iter()
        .map(|aside| Target {
            path: aside.tree.path().to_owned(),
            was: Some(aside.was),
            tree: Found::Tree(Box::new(aside.tree)),
        })
        .collect();
    let lookalikes = found
        .lookalikes
        .into_iter()
        .map(|lookalike| LookalikeFact {
            path: text(&lookalike.path),
            reason: lookalike.reason,
        })
        .collect();
    Ok((targets, lookalikes))
}

fn planned(
    machine: &Machine,
    targets: &[Target],
    at: usize,
    arguments: &Arguments,
) -> anyhow::Result<RemovalItem> {
    let (before, rest) = targets.split_at(at);
    let Some((target, after)) = rest.split_first() else {
        anyhow::bail!("no such target");
    };
    let mut item = RemovalItem {
        path: text(&target.path),
        state: State::Planned,
        was: target.was.as_deref().map(text),
        plan: None,
        refusals: Vec::new(),
        outcome: None,
    };
    match &target.tree {
        Found::Nothing => item.state = State::Absent,
        Found::Refused(refusal) => {
            item.state = State::Refused;
            item.refusals.push(refusal.clone());
        }
        Found::Tree(tree) => {
            let others: Vec<&Tree> = before.iter().chain(after).filter_map(Target::tree).collect();
            judge_again(machine, tree, &others, &mut item, arguments)?;
        }
    }
    Ok(item)
}

/// Looks at a tree, and judges it.
fn judge_again(
    machine: &Machine,
    tree: &Tree,
    others: &[&Tree],
    item: &mut RemovalItem,
    arguments: &Arguments,
) -> anyhow::Result<()> {
    let facts = machine.inspect(tree, others, arguments)?;
    item.refusals.extend(judge(&facts, arguments.skip_mounts));
    if !item.refusals.is_empty() {
        item.state = State::Refused;
    }
    item.plan = Some(facts.plan);
    Ok(())
}

/// The exit code, if the run is over with the plan.
fn ends_with_plan(report: &mut RemovalReport, arguments: &Arguments) -> anyhow::Result<Option<Exit>> {
    let refused = report.summary.refused > 0;
    if arguments.apply && refused {
        for item in &mut report.items {
            if item.state == State::Planned {
                item.state = State::NotTried;
            }
        }
        report.count();
    }
    let planned = report.summary.planned;
    if !arguments.apply || refused || planned == 0 {
        print(report, arguments)?;
        return Ok(Some(if refused {
            Exit::Partly
        } else if planned > 0 && arguments.detailed_exitcode {
            Exit::Pending
        } else {
            Exit::Success
        }));
    }
    if arguments.yes == 0 && std::io::stderr().is_terminal() {
        let paint = Paint::of(arguments.color, &std::io::stderr());
        remark(&render(report, arguments.verbose > 0, paint));
    }
    let question = format!(
        "Remove {} as planned? It cannot be undone.",
        counted(planned as u64, "tree", "trees")
    );
    Ok((!agreed(&question, arguments.yes, 1)?).then_some(Exit::Success))
}

/// Looks at a tree once more, and removes it. True if another run is at it.
fn mend(
    target: Target,
    item: &mut RemovalItem,
    arguments: &Arguments,
    signals: &Signals,
    brake: Option<&mut Brake>,
) -> bool {
    let done = second_look(&target, item, arguments).and_then(|tree| match tree {
        Some(tree) => act(tree, arguments, signals, brake).map(Some),
        None => Ok(None),
    });
    match done {
        Ok(Some((state, outcome))) => {
            item.state = state;
            item.outcome = Some(outcome);
        }
        // The second look has said why.
        Ok(None) => {}
        Err(error) => {
            item.state = State::Failed;
            item.outcome = Some(Outcome {
                error: Some(format!("{error:#}")),
                ..Outcome::default()
            });
            return error.is::<Busy>();
        }
    }
    false
}

/// The tree as it is now, if it may still go.
fn second_look(
    target: &Target,
    item: &mut RemovalItem,
    arguments: &Arguments,
) -> anyhow::Result<Option<Tree>> {
    let Some(first) = target.tree() else {
        return Ok(None);
    };
    let again = Target::open(first.path())?;
    match again.tree {
        Found::Nothing => item.state = State::Absent,
        Found::Refused(refusal) => {
            item.state = State::Refused;
            item.refusals.push(refusal);
        }
        Found::Tree(tree) if tree.id() != first.id() => {
            item.state = State::Refused;
            item.refusals.push(Refusal {
                reason: RefusalReason::Changed,
                detail: "another directory is there than in the plan".to_owned(),
                help: "run again, and read the new plan".to_owned(),
            });
        }
        Found::Tree(tree) => {
            judge_again(&Machine::look()?, &tree, &[], item, arguments)?;
            return Ok((item.state == State::Planned).then_some(*tree));
        }
    }
    Ok(None)
}

fn print(report: &RemovalReport, arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.output {
        Output::Json => say_json(report)?,
        Output::Text => {
            let paint = Paint::of(arguments.color, &std::io::stdout());
            say_safe(&render(report, arguments.verbose > 0, paint))?;
        }
    }
    if let Some(dir) = arguments.resume.as_ref().filter(|_| report.items.is_empty()) {
        remark(&format!(
            "Nothing that was set aside is in {}: nothing to resume.\n",
            escaped(&dir.to_string_lossy())
        ));
    }
    if report.dry_run && report.summary.planned > 0 && report.summary.refused == 0 {
        remark("\nNothing was changed. To remove it: the same command with --apply\n");
    }
    Ok(())
}
