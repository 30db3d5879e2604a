//! `mend-pods`: removes what dead pods leave in kubelet's directory, and never loses data.

mod arguments;
mod restore;
mod tool;

use std::process::ExitCode;

use clap::Parser;
use nodemend_cli::{fail, run};

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Restore(restore)) = &arguments.command {
        return restore.run().into();
    }
    match tool::MendPods::new(&arguments) {
        Ok(mut tool) => run(&mut tool, &arguments.flags).into(),
        Err(error) => fail(&error).into(),
    }
}
