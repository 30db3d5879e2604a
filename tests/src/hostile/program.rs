//! What removes: the library in a process of its own, or `mend-rm`.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Output};

use crate::error::{Doing, LabError, Result};
use crate::hostile::Outcome;
use crate::tools;

/// What removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The library: the lab's subcommand `remove`.
    Library,
    /// The tool, with `--apply --yes`.
    MendRm,
}

impl Program {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Library, Self::MendRm];

    pub(super) fn path(self) -> Result<PathBuf> {
        match self {
            Self::Library => tools::lab_binary(),
            Self::MendRm => tools::workspace_binary("mend-rm"),
        }
    }

    /// What comes before the arguments of a test.
    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Library => &["remove"],
            Self::MendRm => &["--apply", "--yes", "--output", "json"],
        }
    }
}

/// How a process ended, and what it said.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code; 128 and the number of the signal if it died of one.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// Everything else that it said.
    pub stderr: String,
}

/// Waits for the end of a process whose output is captured.
///
/// # Errors
/// If it cannot be waited for.
pub fn end_of(child: Child) -> Result<Ended> {
    let output = child.wait_with_output();
    output
        .map(|output| Ended::from(&output))
        .doing(|| "wait".to_owned())
}

impl From<&Output> for Ended {
    fn from(output: &Output) -> Self {
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Self {
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// What the library reported: the last line.
    ///
    /// # Errors
    /// With all that was said, if it is no outcome.
    pub fn outcome(&self) -> Result<Outcome> {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|error| LabError::Odd(format!("no outcome ({error}): {self}")))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.stderr, self.stdout)
    }
}
