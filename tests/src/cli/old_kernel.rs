//! A command on an old kernel.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;
use nodemend_lab::{LabError, Result, old_kernel};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct OldKernel {
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Takes away what Linux 3.10 did not have, and becomes the command.
pub(crate) fn run(asked: &OldKernel) -> Result<ExitCode> {
    let (program, arguments) = asked
        .command
        .split_first()
        .ok_or_else(|| LabError::Odd("nothing to run".to_owned()))?;
    old_kernel::enter()?;
    let source = Command::new(program).args(arguments).exec();
    Err(LabError::Io {
        what: format!("run {program}"),
        source,
    })
}
