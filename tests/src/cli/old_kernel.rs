//! A command on an old kernel.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;
use nodemend_lab::old_kernel::Kernel;
use nodemend_lab::{LabError, Result};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct OldKernel {
    /// Which one.
    #[arg(long, value_enum, default_value_t)]
    kernel: Kernel,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Takes away what that kernel did not have, and becomes the command.
pub(crate) fn run(asked: &OldKernel) -> Result<ExitCode> {
    let (program, arguments) = asked
        .command
        .split_first()
        .ok_or_else(|| LabError::Odd("nothing to run".to_owned()))?;
    asked.kernel.enter()?;
    let source = Command::new(program).args(arguments).exec();
    Err(LabError::Io {
        what: format!("run {program}"),
        source,
    })
}
