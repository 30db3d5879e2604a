//! The command line: one file for each subcommand.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod inside;
mod machine;
mod old_kernel;
mod shell;

/// Make a real Kubernetes node in private namespaces, and break it.
#[derive(Debug, Parser)]
#[command(name = "nodemend-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break a node as in the incident, mend it, and show each step.
    Demo(demo::Demo),
    /// Give a person a shell inside a broken node; leaving it ends the node.
    Shell(shell::Shell),
    /// Give a person a shell inside a machine with systemd, where containerd and kubelet are services; leaving it ends the machine.
    Machine(machine::Machine),
    /// Run a command as on Linux 3.10, where every newer system call answers ENOSYS, or as on another kernel.
    OldKernel(old_kernel::OldKernel),
    #[command(flatten)]
    Inside(inside::Inside),
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(asked) => demo::run(&asked),
        Command::Shell(asked) => shell::run(&asked),
        Command::Machine(asked) => machine::run(&asked),
        Command::OldKernel(asked) => old_kernel::run(&asked),
        Command::Inside(part) => inside::run(part),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "nodemend-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
