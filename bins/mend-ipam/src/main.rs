//! `mend-ipam`: frees the addresses that host-local reserves for containers that are gone.

mod tool;
mod undo;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nodemend_cli::{EXIT_CODES, Flags, run};

/// Find addresses that host-local reserves for containers that are gone, prove each one, and free them with --apply.
///
/// Without --apply nothing changes: the plan is printed, with who was asked about each address. An address is freed by
/// repeating the container's CNI DEL from libcni's cache, or else by moving its file away; a copy of every file is kept,
/// and `mend-ipam undo` puts it back. While a namespace still has an address, run mend-veth first.
#[derive(Parser)]
#[command(name = "mend-ipam", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,

    /// Free empty files too: they name no container, and a crash while one is written leaves them behind
    #[arg(long)]
    include_empty: bool,

    /// Where the CNI plugins are (repeatable). By default where the runtime says, then /opt/cni/bin, /usr/lib/cni and /usr/libexec/cni
    #[arg(long, value_name = "DIR")]
    cni_bin_dir: Vec<PathBuf>,

    /// How long the CNI DEL of one container may take, all its plugins together
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    del_timeout: Duration,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Put back what a run removed, as far as the addresses are still free. Without RUN, list the runs
    Undo(undo::Undo),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Undo(undo)) => undo.run().into(),
        None => run(&mut tool::MendIpam::new(&arguments), &arguments.flags).into(),
    }
}
