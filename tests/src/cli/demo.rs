//! The main job, shown on a node that is broken for it.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use nodemend_lab::{Engine, LabError, Node, Options, Result, Sandbox, tools};

/// What a person may ask for.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// What runs the pods; the best that this machine and this user can run, if not said.
    #[arg(long, value_enum)]
    engine: Option<super::shell::EngineName>,
}

/// Makes a node, breaks it as in the incident, mends it with the tools, and shows each step.
pub(crate) fn run(demo: &Demo) -> Result<ExitCode> {
    for tool in ["mend-veth", "mend-ipam"] {
        tools::workspace_binary(tool)?;
    }
    let engine = demo.engine.map_or_else(Engine::best, Engine::from);
    let node = Node::start(Options::on(engine))?;
    let live = break_it(&node)?;
    let watch = node.watch(&live[0], live[1].ips[0])?;

    title("THE NODE BEFORE");
    show(&node)?;
    say(&match node.run_sandbox("before") {
        Ok(_) => return Err(LabError::Odd("a pod started on the broken node".to_owned())),
        Err(error) => format!("A new pod does not start: {}", last_line(&error)),
    });

    title("THE PLAN, WITH ITS PROOFS  (this node is seconds old, hence --grace 0s)");
    tool(&node, &["mend-veth", "--grace", "0s"])?;
    title("THE REPAIR");
    tool(&node, &["mend-veth", "--grace", "0s", "--apply", "--yes"])?;
    tool(&node, &["mend-ipam", "--grace", "0s"])?;
    tool(&node, &["mend-ipam", "--grace", "0s", "--apply", "--yes"])?;

    title("THE NODE AFTER");
    show(&node)?;
    let pod = node.run_sandbox("after")?;
    say(&format!(
        "A new pod starts: it has {} and answers: {}.",
        pod.ips[0],
        node.pings(pod.ips[0])
    ));
    let seen = watch.finish()?;
    say(&format!(
        "Between two live pods, {} pings were sent meanwhile, and {} were answered.",
        seen.sent, seen.answered
    ));
    Ok(if seen.nothing_lost() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The incident: pods whose records were wiped and whose processes then ended, two pods that live, and no address left.
fn break_it(node: &Node) -> Result<Vec<Sandbox>> {
    say(&format!(
        "A node with {}, in private namespaces: nothing of this machine is touched.",
        node.options().engine.name()
    ));
    let forgotten = node.run_sandboxes(3)?;
    node.wipe_metadata()?;
    node.end_processes(&forgotten)?;
    say("Three pods ran. The runtime's data was wiped, and their processes ended.");
    let live = node.run_sandboxes(2)?;
    node.fill_range()?;
    say("Two pods run since. All other addresses are reserved for containers that are long gone.");
    Ok(live)
}

fn show(node: &Node) -> Result<()> {
    let pods = node.list_sandboxes()?.len();
    let (veths, netns) = (node.veths()?.len(), node.names("/run/netns").len());
    let reserved = node.reserved("cbr0").len();
    say(&format!(
        "pods {pods}   veth pairs {veths}   network namespaces {netns}   addresses reserved {reserved} of 125"
    ));
    Ok(())
}

/// Runs a tool in the node, as a person would type it; its report goes to this terminal.
fn tool(node: &Node, line: &[&str]) -> Result<()> {
    say(&format!("\n# {}", line.join(" ")));
    let status = node.command(line[0]).args(&line[1..]).status();
    let status = status.map_err(|source| LabError::Io {
        what: format!("run {}", line[0]),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(LabError::Odd(format!("{} ended with {status}", line.join(" "))))
    }
}

fn last_line(error: &LabError) -> String {
    let text = error.to_string();
    text.rsplit("desc = ").next().unwrap_or(&text).trim().to_owned()
}

fn title(text: &str) {
    say(&format!("\n== {text}"));
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
