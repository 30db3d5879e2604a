//! The plan over many sandbox namespaces, against entering each of them with `nsenter`.
//!
//! `cargo bench -p nodemend-lab --bench plan`

mod against;

use std::path::Path;
use std::time::Duration;

use against::{Line, Result, Turns};
use nodemend_lab::Node;

const PLAN: [&str; 6] = ["--grace", "0s", "--settle", "0s", "--output", "json"];

/// What people run to find the pair of a host's link: it finds the peer's index, and nothing of who owns it.
const LOOP: &str = "for f in /run/netns/cni-*; do nsenter --net=$f ip -o link; done";

fn main() -> Result<()> {
    if let Some((_, line)) = against::part() {
        return against::say_peak(&line);
    }
    let tool = against::release("mend-veth")?;
    let thousand = against_the_loop(&tool, 1000, 5)?;
    // The loop would take minutes here, and its growth is no news.
    let five = alone(&tool, 5000)?;
    let growth = five.as_secs_f64() / thousand.median.as_secs_f64();
    against::say(&format!(
        "\n5000 namespaces take {growth:.1} times as long as 1000 (5.0 is linear)"
    ));
    Ok(())
}

/// The line of one whole run of ours.
fn against_the_loop(tool: &Path, count: usize, turns: usize) -> Result<Line> {
    let node = against::node("10.88.0.0/16")?;
    against::orphaned_pairs(&node, count)?;
    against::expect_orphans(&node, tool, &PLAN, count)?;
    let mut lines = in_turns(&node, tool, turns)?;
    let [shell, ours] = [&lines[0], &lines[1]];
    let (today, look) = (shell.median, ours.part("mend-veth, one of its two looks", 2.0));
    lines.push(look);
    against::table(&format!("{count} namespaces"), &lines, today);
    let mib = against::peak(&node, tool, &PLAN)?;
    against::say(&format!("resident memory of mend-veth at its peak: {mib:.1} MiB"));
    Ok(lines.swap_remove(1))
}

/// The median time of three whole runs of ours.
fn alone(tool: &Path, count: usize) -> Result<Duration> {
    let node = against::node("10.88.0.0/16")?;
    against::orphaned_pairs(&node, count)?;
    let run = || {
        let mut ours = node.command(tool);
        ours.args(PLAN);
        against::timed(ours)
    };
    let mut took = [run()?, run()?, run()?];
    took.sort_unstable();
    Ok(took[1])
}

fn in_turns(node: &Node, tool: &Path, turns: usize) -> Result<Vec<Line>> {
    Turns::default()
        .way("nsenter and ip in a loop, alone", || {
            let mut shell = node.command("sh");
            shell.args(["-ec", LOOP]);
            against::timed(shell)
        })
        .way("mend-veth, the whole run with two looks and both proofs", || {
            let mut ours = node.command(tool);
            ours.args(PLAN);
            against::timed(ours)
        })
        .take(turns)
}
