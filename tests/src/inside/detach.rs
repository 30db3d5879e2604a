//! Starting a process that stays: it becomes an orphan, and the node's first process takes it.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Doing, LabError, Result};

/// What to start, and how.
#[derive(Debug, Default)]
pub struct Detach {
    /// Where its output goes.
    pub log: Option<PathBuf>,
    /// The network namespace to start it in.
    pub net: Option<PathBuf>,
    /// The name it sees itself called by.
    pub argv0: Option<String>,
    /// The program and its arguments.
    pub argv: Vec<String>,
}

impl Detach {
    /// Starts it and returns its process id.
    ///
    /// # Errors
    ///
    /// When there is no program, or it cannot be started.
    pub fn spawn(&self) -> Result<u32> {
        let mut command = self.command()?;
        command.stdin(Stdio::null()).current_dir("/").process_group(0);
        match &self.log {
            Some(path) => {
                let log = File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .at("open", path)?;
                let also = log.try_clone().at("open", path)?;
                command.stdout(log).stderr(also);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let child = command
            .spawn()
            .doing(|| format!("start {}", self.argv.join(" ")))?;
        Ok(child.id())
    }

    fn command(&self) -> Result<Command> {
        let (program, arguments) = self
            .argv
            .split_first()
            .ok_or_else(|| LabError::Odd("nothing to start".to_owned()))?;
        let mut command = match &self.net {
            None => Command::new(program),
            // Without --fork nsenter becomes the program, so the process id is the program's.
            Some(net) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", net.display()))
                    .arg("--")
                    .arg(program);
                command
            }
        };
        if let (Some(name), None) = (&self.argv0, &self.net) {
            command.arg0(name);
        }
        command.args(arguments);
        Ok(command)
    }
}

/// The subcommand: starts, says the process id, and leaves.
///
/// # Errors
///
/// When the program cannot be started or standard output is closed.
pub fn run(what: &Detach) -> Result<()> {
    let pid = what.spawn()?;
    writeln!(std::io::stdout(), "{pid}").doing(|| "say the process id".to_owned())
}
