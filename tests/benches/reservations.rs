//! The plan over a whole range of reservations, against reading the files and nothing else.
//!
//! `cargo bench -p nodemend-lab --bench reservations`

mod against;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use against::{Line, Result, Turns};
use nodemend_lab::{Node, Reservation};

const PLAN: [&str; 4] = ["--grace", "0s", "--settle", "0s"];
const TURNS: usize = 5;

/// All addresses of a /16 but the network's own, the gateway's and the broadcast; one more has the pod.
const ALL: usize = 65_532;
const FEWER: usize = 16_000;

/// Of how many files the loop is run: it takes minutes for all.
const SOME: usize = 500;

fn main() -> Result<()> {
    if let Some((part, line)) = against::part() {
        return match (part.as_str(), line.as_slice()) {
            ("read", [dir]) => read_here(Path::new(dir)),
            _ => against::say_peak(&line),
        };
    }
    let tool = against::release("mend-ipam")?;
    let fewer = measure(&tool, FEWER)?;
    let all = measure(&tool, ALL)?;
    let growth = all.median.as_secs_f64() / fewer.median.as_secs_f64();
    let linear = ALL as f64 / FEWER as f64;
    against::say(&format!(
        "\n{ALL} files take {growth:.1} times as long as {FEWER} ({linear:.1} is linear)"
    ));
    Ok(())
}

/// The line of one whole run of ours.
fn measure(tool: &Path, count: usize) -> Result<Line> {
    let node = against::node("10.88.0.0/16")?;
    reserve(&node, count)?;
    let json = [PLAN.as_slice(), &["--output", "json"]].concat();
    against::expect_orphans(&node, tool, &json, count)?;
    let mut lines = in_turns(&node, tool, &json)?;
    let shell = lines.remove(0).part("", SOME as f64 / count as f64);
    let today = shell.median;
    lines.insert(
        0,
        Line {
            name: format!("a loop with head and grep ({SOME} files, extrapolated)"),
            ..shell
        },
    );
    let look = lines[2].part("mend-ipam, one of its two looks", 2.0);
    lines.push(look);
    against::table(&format!("{count} reservations"), &lines, today);
    let mib = against::peak(&node, tool, &json)?;
    against::say(&format!(
        "resident memory of mend-ipam at its peak (JSON): {mib:.1} MiB"
    ));
    Ok(lines.swap_remove(2))
}

fn reserve(node: &Node, count: usize) -> Result<()> {
    let taken = node.reserved("cbr0");
    let first = u32::from(Ipv4Addr::new(10, 88, 0, 2));
    let free = (first..)
        .map(Ipv4Addr::from)
        .filter(|ip| !taken.contains(&(*ip).into()));
    for ip in free.take(count) {
        node.write_reservation("cbr0", &ip.to_string(), &Reservation::orphan()?)?;
    }
    Ok(())
}

fn in_turns(node: &Node, tool: &Path, json: &[&str]) -> Result<Vec<Line>> {
    let dir = node.reservations_of("cbr0").display().to_string();
    // The runtime is asked once and not for each file: kinder than what is passed around.
    let shell = format!(
        "cd {dir}; echo none >/run/lab/known; ls | grep '^10' | head -n {SOME} | while read f; do \
         id=$(head -n 1 $f | tr -d '\\r'); grep -q \"$id\" /run/lab/known || echo $f; done"
    );
    let ours = |arguments: &[&str]| {
        let mut command = node.command(tool);
        command.args(arguments);
        against::timed(command)
    };
    Turns::default()
        .way("loop", || {
            let mut command = node.command("sh");
            command.args(["-ec", &shell]);
            against::timed(command)
        })
        .way("a plain read of all files, one thread", || {
            let said = against::run(&mut against::part_on(node, "read", &[&dir])?)?;
            Ok(Duration::from_secs_f64(said.trim().parse()?))
        })
        .way("mend-ipam, the whole run with two looks", || ours(&PLAN))
        .way("the same with the report as JSON", || ours(json))
        .take(TURNS)
}

/// The part that runs on the node.
fn read_here(dir: &Path) -> Result<()> {
    let begun = Instant::now();
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += fs::read(entry?.path())?.len();
    }
    let took = begun.elapsed().as_secs_f64();
    if bytes == 0 {
        return Err(format!("nothing to read in {}", dir.display()).into());
    }
    against::say(&took.to_string());
    Ok(())
}
