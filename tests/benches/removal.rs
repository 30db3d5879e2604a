//! Removing many orphaned pairs, against `ip -batch`.
//!
//! `cargo bench -p nodemend-lab --bench removal`

mod against;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use against::{Line, Result, Turns};
use nodemend_evidence::Outcome;
use nodemend_hostfs::{Host, StateDir};
use nodemend_lab::Node;
use nodemend_veth::{Policy, Survey, SurveyOptions, Tools, blocking, plan, remember};

const PAIRS: usize = 900;
const TURNS: usize = 3;
const LIMIT: &str = "900";
const PLAN: [&str; 6] = ["--grace", "0s", "--settle", "0s", "--output", "json"];

fn main() -> Result<()> {
    if against::part().is_some() {
        return remove_here();
    }
    let tool = against::release("mend-veth")?;
    let node = against::node("10.88.0.0/16")?;
    against::orphaned_pairs(&node, PAIRS)?;
    against::expect_orphans(&node, &tool, &PLAN, PAIRS)?;
    against::release_pairs(&node)?;
    let stages = std::cell::RefCell::new(HashMap::<String, Vec<Duration>>::new());
    let mut lines = Turns::default()
        .way("ip -batch, one `link del` for each", || batch(&node))
        .way("mend-veth --apply, the whole run with three looks", || {
            apply(&node, &tool)
        })
        .way("the same through the library", || {
            library(&node, &mut stages.borrow_mut())
        })
        .take(TURNS)?;
    for stage in ["survey", "apply"] {
        let took = stages.borrow_mut().remove(stage).unwrap_or_default();
        lines.push(Line::of(format!("  of it: {stage}"), took));
    }
    against::table(&format!("{PAIRS} orphaned pairs"), &lines, lines[0].median);
    Ok(())
}

/// Pairs as they are before each turn; all that is left of the turn before is gone.
fn pairs(node: &Node) -> Result<()> {
    against::release_pairs(node)?;
    let end = Instant::now() + Duration::from_secs(60);
    // The pod keeps its own.
    while node.veths()?.len() > 1 {
        if Instant::now() > end {
            return Err("the pairs of the last turn do not go".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    against::orphaned_pairs(node, PAIRS)
}

/// Only the pair of the pod may be left: whatever is measured must have removed all the others.
fn all_gone(node: &Node, took: Duration) -> Result<Duration> {
    match node.veths()?.len() {
        1 => Ok(took),
        left => Err(format!("{left} veths are left, not the pod's alone").into()),
    }
}

fn batch(node: &Node) -> Result<Duration> {
    pairs(node)?;
    let mut lines = String::new();
    for number in 0..PAIRS {
        writeln!(lines, "link del veth{number:08x}")?;
    }
    node.write("/run/lab/removal", &lines)?;
    let mut ip = node.command("ip");
    ip.args(["-batch", "/run/lab/removal"]);
    let took = against::timed(ip)?;
    all_gone(node, took)
}

fn apply(node: &Node, tool: &Path) -> Result<Duration> {
    pairs(node)?;
    let mut ours = node.command(tool);
    ours.args(PLAN).args(["--apply", "--yes", "--limit", LIMIT]);
    let took = against::timed(ours)?;
    all_gone(node, took)
}

/// Has the library remove the pairs, and notes how long each stage said that it took.
fn library(node: &Node, stages: &mut HashMap<String, Vec<Duration>>) -> Result<Duration> {
    pairs(node)?;
    let begun = Instant::now();
    let said = against::run(&mut against::part_on(node, "remove", &[])?)?;
    let took = begun.elapsed();
    for (stage, seconds) in said.lines().filter_map(|line| line.split_once(' ')) {
        let took = Duration::from_secs_f64(seconds.parse()?);
        stages.entry(stage.to_owned()).or_default().push(took);
    }
    all_gone(node, took)
}

/// The part that runs on the node: what the tool does, with a clock between the stages.
fn remove_here() -> Result<()> {
    let state = StateDir::at("/var/lib/nodemend");
    let policy = Policy {
        grace: Duration::ZERO,
        ..Policy::default()
    };
    let first = survey(&state)?;
    let second = survey(&state)?;
    let orphans = plan(&first, &second, &policy).into_orphans();
    let lock = state.lock()?;
    let begun = Instant::now();
    let again = survey(&state)?;
    say("survey", begun);
    let tools = Tools {
        journal: &mut state.journal()?,
        stop: &AtomicBool::new(false),
        progress: &mut |_| {},
    };
    let begun = Instant::now();
    let outcomes = blocking::apply(orphans, &lock, &again, &policy, tools)?;
    say("apply", begun);
    let mended = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Mended(_)));
    match mended.count() {
        PAIRS => Ok(()),
        other => Err(format!("{other} of {PAIRS} pairs were mended").into()),
    }
}

fn survey(state: &StateDir) -> Result<Survey> {
    let mut survey = blocking::survey(&Host::local(), &SurveyOptions::default())?;
    remember(&mut survey, state)?;
    Ok(survey)
}

fn say(stage: &str, begun: Instant) {
    against::say(&format!("{stage} {}", begun.elapsed().as_secs_f64()));
}
