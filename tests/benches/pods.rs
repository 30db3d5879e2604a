//! The plan over many pod directories with many mounts, how it grows, and a purge of a few of them.
//!
//! `cargo bench -p nodemend-lab --bench pods`

mod against;

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use against::{Line, Result, Turns};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nodemend_lab::kubelet::Kubelet;
use nodemend_lab::pods::{PodCrowd, PodScene, crowd_uid};
use nodemend_lab::{Engine, Node, Options};

const SMALL: u32 = 1_000;
const LARGE: u32 = 10_000;
/// As many in both, beside many others.
const PURGED: u32 = 100;
const TURNS: usize = 5;
/// The most memory that a plan may take, in MiB.
const AIM: f64 = 64.0;
const PLAN: &str = "--grace 0s --settle 0s --output json";
const PURGE: &str = "--grace 0s --settle 0s --output json --apply --yes --yes --purge --accept-ephemeral";
/// The part of this program that measures processor time.
const COST: &str = "cost";
const LOG: &str = "/run/lab/orphans.log";

fn main() -> Result<()> {
    if let Some((part, line)) = against::part() {
        return match part.as_str() {
            COST => say_cost(&line),
            _ => against::say_peak(&line),
        };
    }
    let tool = against::release("mend-pods")?;
    let (small, large) = (crowd(SMALL)?, crowd(LARGE)?);
    for (node, pods) in [(&small, SMALL), (&large, LARGE)] {
        against::expect_orphans(node, &tool, &words(PLAN), orphans(pods))?;
    }
    let lines = Turns::default()
        .way(named(SMALL), || whole(&small, &tool))
        .way(named(LARGE), || whole(&large, &tool))
        .take(TURNS)?;
    told("mend-pods, the whole run with two looks", &lines);
    for (node, pods) in [(&small, SMALL), (&large, LARGE)] {
        let mut most = 0.0_f64;
        for _ in 0..TURNS {
            most = most.max(against::peak(node, &tool, &words(PLAN))?);
        }
        if most >= AIM {
            return Err(format!("{most:.1} MiB at its peak, and {AIM} is the aim").into());
        }
        let cost = cost(node, &tool)?;
        against::say(&format!(
            "{pods} pod directories: {most:.1} MiB at the highest peak of {TURNS} runs, {cost} ms of processor time"
        ));
    }
    let purged = [
        Line::of(named(SMALL), vec![purge(&small, &tool, SMALL)?]),
        Line::of(named(LARGE), vec![purge(&large, &tool, LARGE)?]),
    ];
    told(
        &format!("a purge of {PURGED} pods with 5 mounts each, three looks, among"),
        &purged,
    );
    Ok(())
}

fn named(pods: u32) -> String {
    format!("{pods} pod directories, {} mounts", pods * 5)
}

fn orphans(pods: u32) -> usize {
    usize::try_from(pods - pods / 10).unwrap_or_default()
}

fn words(flags: &str) -> Vec<&str> {
    let tool = PodScene::TOOL.split(' ').skip(1);
    tool.chain(flags.split(' ')).collect()
}

/// A node with so many pod directories; kubelet knows one in ten.
fn crowd(pods: u32) -> Result<Node> {
    let node = Node::start(Options::on(Engine::StandIn))?;
    node.kubelet_disk(512 + u64::from(pods) / 16, Some(u64::from(pods) * 20 + 1000))?;
    node.start_kubelet(&Kubelet::default())?;
    // A runtime that knows nothing at all is not believed in its first minute.
    node.run_sandbox("live")?;
    node.pod_crowd(PodCrowd {
        pods,
        known: pods / 10,
        mounts_each: 5,
    })?;
    Ok(node)
}

/// Processor time of one run, in milliseconds: on a busy machine it tells more than the wall clock.
fn cost(node: &Node, tool: &Path) -> Result<String> {
    let tool = tool.display().to_string();
    let line = [&[tool.as_str()], &words(PLAN)[..]].concat();
    let said = against::run(&mut against::part_on(node, COST, &line)?)?;
    Ok(said.trim().to_owned())
}

/// The part that [`cost`] starts.
fn say_cost(line: &[String]) -> Result<()> {
    let (program, arguments) = line.split_first().ok_or("nothing to run")?;
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    against::timed(command)?;
    let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let [user, system] = [used.user_time(), used.system_time()].map(|time| time.num_milliseconds());
    against::say(&(user + system).to_string());
    Ok(())
}

fn whole(node: &Node, tool: &Path) -> Result<Duration> {
    let mut ours = node.command(tool);
    ours.args(words(PLAN));
    against::timed(ours)
}

/// Purges the last of them. All of them must be gone, and nobody else.
fn purge(node: &Node, tool: &Path, pods: u32) -> Result<Duration> {
    let mut log = String::new();
    for n in pods - PURGED..pods {
        let uid = crowd_uid(n);
        writeln!(
            log,
            "E0101 kubelet_volumes.go:245] \"There were many similar errors.\" err=\"orphaned pod \\\"{uid}\\\" found, but error not a directory occurred\" numErrs={PURGED}"
        )?;
    }
    node.write(LOG, &log)?;
    let line = format!("{PURGE} --from-log {LOG}");
    let mut ours = node.command(tool);
    ours.args(words(&line));
    let begun = Instant::now();
    against::timed(ours)?;
    let took = begun.elapsed();
    against::expect_orphans(node, tool, &words(PLAN), orphans(pods) - PURGED as usize)?;
    Ok(took)
}

fn told(title: &str, lines: &[Line]) {
    let least = lines.first().map(|line| line.median).unwrap_or_default();
    against::say(&format!(
        "\n{title}\n{:<44}{:>12}{:>12}{:>12}{:>8}",
        "", "least", "median", "most", "ratio"
    ));
    for line in lines {
        let ratio = line.median.as_secs_f64() / least.as_secs_f64();
        let [least, median, most] =
            [line.least, line.median, line.most].map(|time| format!("{:.0} ms", time.as_secs_f64() * 1e3));
        against::say(&format!(
            "{:<44}{least:>12}{median:>12}{most:>12}{ratio:>8.1}",
            line.name
        ));
    }
}
