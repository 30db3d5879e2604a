//! A shell inside a machine with systemd, for a person.

use std::process::ExitCode;

use clap::Args;
use nodemend_lab::Result;
use nodemend_lab::machine::{self, Shims, Suite};

use super::shell::{give, say};

/// What a person may ask for.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// How many pods to run, each with an application, before anything breaks.
    #[arg(long, default_value_t = 3)]
    pods: usize,
    /// Run a second containerd and a container like podman's as well.
    #[arg(long)]
    others: bool,
    /// Damage containerd's metadata, so that it dies at each start.
    #[arg(long)]
    crash_loop: bool,
    /// Kill the shims with it, as `systemctl kill` does.
    #[arg(long, requires = "crash_loop")]
    without_shims: bool,
    /// Put so many small files below containerd's root.
    #[arg(long, default_value_t = 0)]
    leak: u32,
    /// Run this instead of a shell, and leave with its exit code.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Boots the machine of the suite that `NODEMEND_MACHINE_SUITE` names, breaks it, and gives it to the person.
pub(crate) fn run(asked: &Machine) -> Result<ExitCode> {
    let machine = machine::Machine::boot(Suite::asked()?)?;
    for number in 0..asked.pods {
        machine.run_pod(&format!("pod-{number}"))?;
    }
    if asked.others {
        machine.another_containerd()?;
        machine.like_podman()?;
    }
    say(&format!(
        "{} with {} pods after {:.1} s",
        machine.suite().name(),
        asked.pods,
        machine.age().as_secs_f32()
    ));
    if asked.crash_loop {
        let shims = if asked.without_shims {
            Shims::Die
        } else {
            Shims::Live
        };
        machine.break_metadata(shims)?;
        say("containerd dies at each start");
    }
    machine.leak_snapshots(asked.leak)?;
    give(&machine, &asked.command)
}
