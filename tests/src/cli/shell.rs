//! A shell inside a broken node, for a person.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nodemend_lab::{Engine, Hold, LabError, Node, Options, Result, Sandbox};

/// What a person may ask for.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// What runs the pods; the best that this machine and this user can run, if not said.
    #[arg(long, value_enum)]
    engine: Option<EngineName>,
    /// How many pods to run before anything breaks.
    #[arg(long, default_value_t = 3)]
    pods: usize,
    /// Give every pod an IPv6 address, too.
    #[arg(long)]
    dual_stack: bool,
    /// What to break, in this order. May be repeated.
    #[arg(long = "break", value_enum)]
    breaks: Vec<Break>,
    /// Run this instead of a shell, and leave with its exit code.
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EngineName {
    Containerd,
    StandIn,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Containerd => Self::Containerd,
            EngineName::StandIn => Self::StandIn,
        }
    }
}

/// Breakages by name. Those of single pods take the first pods for live ones and break the last half.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Break {
    /// Kill the runtime, set its data aside, start it on nothing.
    Wipe,
    /// Kill shim and pause of the last half of the pods.
    EndProcesses,
    /// Kill only the pause of the last pod.
    KillPause,
    /// Remove the last half of the pods while DEL fails with "not found".
    LeakAddresses,
    /// Reserve every free address for containers that never were.
    FillRange,
    /// Leave the last pod's network namespace to a helper thread.
    HeldByThread,
    /// Leave the last pod's network namespace to a file descriptor.
    HeldByFd,
    /// Leave the last pod's network namespace to a socket.
    HeldBySocket,
    /// Leave the last pod's network namespace to a mount in another mount namespace.
    HeldByMount,
    /// Run two more pods, which live: after a wipe, the only ones that the runtime knows.
    MorePods,
    /// Set the times of reservations and cache two hours back.
    Age,
    /// Stop the runtime.
    StopRuntime,
    /// Hang the runtime.
    HangRuntime,
}

/// Makes the node, breaks it, and gives it to the person.
pub(crate) fn run(shell: &Shell) -> Result<ExitCode> {
    let engine = shell.engine.map_or_else(Engine::best, Engine::from);
    let options = Options::on(engine);
    let node = Node::start(if shell.dual_stack {
        options.dual_stack()
    } else {
        options
    })?;
    let mut pods = node.run_sandboxes(shell.pods)?;
    say(&format!(
        "{} node with {} pods after {:.1} s",
        engine.name(),
        pods.len(),
        node.age().as_secs_f32()
    ));
    for what in &shell.breaks {
        break_it(&node, &mut pods, *what)?;
        say(&format!(
            "broken: {}",
            what.to_possible_value()
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default()
        ));
    }
    give(&node, &shell.command)
}

/// Runs the command inside, or a shell if there is none; the exit code to leave with.
pub(super) fn give(node: &Node, command: &[String]) -> Result<ExitCode> {
    let asked = !command.is_empty();
    let line = if asked {
        command.to_vec()
    } else {
        vec!["bash".to_owned()]
    };
    if !asked {
        say("this is a shell inside the node; leaving it ends the node");
    }
    let (program, arguments) = line
        .split_first()
        .ok_or_else(|| LabError::Odd("nothing to run".to_owned()))?;
    let mut command = node.command(program);
    let status = command.args(arguments).status();
    let status = status.map_err(|source| LabError::Io {
        what: format!("run {program}"),
        source,
    })?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(if asked {
        ExitCode::from(code)
    } else {
        ExitCode::SUCCESS
    })
}

fn break_it(node: &Node, pods: &mut Vec<Sandbox>, what: Break) -> Result<()> {
    let half = pods.len() / 2;
    match what {
        Break::Wipe => node.wipe_metadata().map(drop),
        Break::EndProcesses => node.end_processes(&pods[half..]),
        Break::KillPause => node.kill_pause(last(pods)?),
        Break::LeakAddresses => node.leak_addresses(&pods.split_off(half)),
        Break::FillRange => node.fill_range().map(drop),
        Break::HeldByThread => hold(node, pods, Hold::Thread),
        Break::HeldByFd => hold(node, pods, Hold::Fd),
        Break::HeldBySocket => hold(node, pods, Hold::Socket),
        Break::HeldByMount => hold(node, pods, Hold::Mount),
        Break::MorePods => node.run_sandboxes(2).map(drop),
        Break::Age => node.age_everything(Duration::from_secs(7200)),
        Break::StopRuntime => node.stop_runtime(),
        Break::HangRuntime => node.hang_runtime(),
    }
}

fn last(pods: &[Sandbox]) -> Result<&Sandbox> {
    pods.last()
        .ok_or_else(|| LabError::Odd("there is no pod left to break".to_owned()))
}

/// The processes first: a namespace with a pause in it is held by that.
fn hold(node: &Node, pods: &mut Vec<Sandbox>, way: Hold) -> Result<()> {
    let pod = last(pods)?.clone();
    let holder = node.hold_netns(&pod.netns, way)?;
    node.end_processes(std::slice::from_ref(&pod))?;
    node.drop_netns_file(&pod.netns)?;
    say(&format!(
        "process {holder} holds what {} had as its network",
        pod.name
    ));
    pods.pop();
    Ok(())
}

pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "nodemend-lab: {text}");
}
