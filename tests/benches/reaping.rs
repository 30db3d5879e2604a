//! Reaping a hundred forgotten sandboxes on a real node: half of them only sleep, half run an application, and of those
//! every other one ignores SIGTERM.
//!
//! `cargo bench -p nodemend-lab --bench reaping`

mod against;

use std::time::{Duration, Instant};

use against::{Result, say};
use nodemend_lab::{Application, Engine, Node, Options, Sandbox};
use serde_json::{Value, json};

const SANDBOXES: usize = 100;

/// What the issue asks for.
const LIMIT: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let tool = against::release("mend-sandboxes")?;
    let node = Node::start(Options {
        subnets: vec!["10.88.0.0/16".to_owned()],
        ..Options::on(Engine::Containerd)
    })?;
    let forgotten = crowd(&node)?;
    node.wipe_metadata()?;
    node.run_sandbox("live")?;
    let flags = ["--reap", "--grace", "0s", "--settle", "0s", "--output", "json"];
    let planned = against::timed({
        let mut plan = node.command(&tool);
        plan.args(flags);
        plan
    })?;
    let begun = Instant::now();
    let said = against::run(
        node.command(&tool)
            .args(flags)
            .args(["--apply", "--yes", "--yes"]),
    )?;
    let whole = begun.elapsed();
    check(&node, &forgotten, &said)?;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    say(&format!("{SANDBOXES} forgotten sandboxes"));
    say(&format!("the plan alone, two looks: {}", seconds(planned)));
    say(&format!(
        "the whole run, three looks and the repair: {}",
        seconds(whole)
    ));
    let repair = whole.saturating_sub(planned.mul_f64(1.5));
    say(&format!("of it about, for the repair: {}", seconds(repair)));
    match repair < LIMIT {
        true => Ok(()),
        false => Err(format!("the repair takes more than {}", seconds(LIMIT)).into()),
    }
}

fn crowd(node: &Node) -> Result<Vec<(Sandbox, Vec<Application>)>> {
    let mut forgotten = Vec::with_capacity(SANDBOXES);
    for (n, pod) in node.run_sandboxes(SANDBOXES)?.into_iter().enumerate() {
        let application = match n % 2 {
            0 => None,
            _ => Some(node.run_application(&pod, 8080, n % 4 == 1)?),
        };
        forgotten.push((pod, application.into_iter().collect()));
    }
    Ok(forgotten)
}

/// A number for a repair that was not done says nothing.
fn check(node: &Node, forgotten: &[(Sandbox, Vec<Application>)], said: &str) -> Result<()> {
    let report: Value = serde_json::from_str(said)?;
    let items = report["items"].as_array().ok_or("no items")?;
    let mended = items
        .iter()
        .filter(|item| item["outcome"]["state"] == "mended")
        .count();
    if report["summary"]["orphans"] != json!(SANDBOXES) || mended != SANDBOXES {
        return Err(format!("{mended} were mended of {}", report["summary"]).into());
    }
    let left = forgotten
        .iter()
        .flat_map(|(pod, apps)| node.remains(pod, apps))
        .next();
    match left {
        None => Ok(()),
        Some(left) => Err(format!("something is left: {left}").into()),
    }
}
