//! `mend-veth`: removes veth pairs that no sandbox answers for.

mod tool;

use std::process::ExitCode;

use clap::Parser;
use nodemend_cli::{EXIT_CODES, Flags, run};

/// Find veth pairs that no sandbox answers for, prove each one, and remove them with --apply.
///
/// Without --apply nothing changes: the plan is printed, with who was asked about each pair. A pair goes only if
/// every runtime, shim, process and mount that could own its network namespace was asked, and none does.
#[derive(Parser)]
#[command(name = "mend-veth", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,

    /// Also remove pairs whose namespace still has processes, if no runtime has a record of them. The processes
    /// lose their network at once and go on running. mend-sandboxes ends such sandboxes properly. Needs a second yes
    #[arg(long)]
    cut_running: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(&mut tool::MendVeth::new(&arguments), &arguments.flags).into()
}
