//! `mend-sandboxes`: clears and ends sandboxes that no runtime answers for.

mod tool;

use std::process::ExitCode;

use clap::Parser;
use nodemend_cli::{EXIT_CODES, Flags, run};

/// Find sandboxes that no runtime answers for, prove each one, and clear them away with --apply.
///
/// Without --apply nothing changes: the plan is printed, with who was asked about each sandbox, what is left of it and
/// what would happen. A sandbox goes only if every runtime was asked and none has it on record. One that still runs
/// something stays, unless --reap says to end it.
#[derive(Parser)]
#[command(name = "mend-sandboxes", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,

    /// Also end what still runs in sandboxes that no runtime answers for: applications lose what they have not written.
    /// Needs a second yes
    #[arg(long)]
    reap: bool,

    /// Say that containerd's root was wiped, so that its empty answer is the truth. Needed only where the file system does
    /// not tell when containerd's database was made; not heeded where it tells that the database is older
    #[arg(long)]
    records_lost: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(&mut tool::MendSandboxes::new(&arguments), &arguments.flags).into()
}
