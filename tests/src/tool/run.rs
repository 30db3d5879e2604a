//! One run of a tool.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use crate::error::{Doing, LabError, Result};
use crate::node::Node;
use crate::tool::Report;
use crate::tools;

/// How a run ended, and what it said.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line.
    pub line: String,
    /// The exit code; 128 and the number of the signal if it died of one.
    pub code: i32,
    /// The report, as it was printed.
    pub stdout: String,
    /// Everything else that was said.
    pub stderr: String,
}

impl Ran {
    /// A program's end, in these terms.
    pub fn of(line: String, output: &Output) -> Ran {
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Ran {
            line,
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Reads the report.
    ///
    /// # Errors
    ///
    /// With all that was said, if it is none.
    pub fn report(&self) -> Result<Report> {
        serde_json::from_str(&self.stdout)
            .map_err(|error| LabError::Odd(format!("no report ({error}) from {self}")))
    }

    /// Reads the report of a run that must have ended with this code.
    ///
    /// # Errors
    ///
    /// With all that was said, if it ended otherwise.
    pub fn ended(&self, code: i32) -> Result<Report> {
        self.exited(code)?;
        self.report()
    }

    /// The run must have ended with this code, whatever it printed.
    ///
    /// # Errors
    ///
    /// With all that was said, if it ended otherwise.
    pub fn exited(&self, code: i32) -> Result<&Ran> {
        if self.code == code {
            Ok(self)
        } else {
            Err(LabError::Odd(format!("not {code}: {self}")))
        }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran {
            line,
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "`{line}` exited with {code}\n{stderr}\n{stdout}")
    }
}

/// Whatever a test is not about: no grace, as the kernel's times cannot be set back; a short time between the two looks; JSON.
const USUAL: &str = "--grace 0s --settle 50ms --output json";

impl Node {
    /// Runs a tool inside, without a terminal: `mend-veth --apply --yes`. No grace, a short time between the looks, and JSON, unless the
    /// line itself says otherwise.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn mend(&self, line: &str) -> Result<Ran> {
        let mut argv: Vec<&str> = line.split_whitespace().collect();
        let usual: Vec<&str> = USUAL.split_whitespace().collect();
        for flag in usual.chunks(2) {
            if !argv.contains(&flag[0]) {
                argv.extend(flag);
            }
        }
        self.ran(&argv)
    }

    /// Runs any program inside to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn ran<S: AsRef<str>>(&self, argv: &[S]) -> Result<Ran> {
        let output = self.output(argv)?;
        let line = argv.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        Ok(Ran::of(line, &output))
    }
}

/// Runs a tool on the machine itself, outside of any node: for recordings only.
///
/// # Errors
///
/// When it was not built or cannot be started.
pub fn outside(line: &str) -> Result<Ran> {
    let mut argv = line.split_whitespace();
    let program = tools::workspace_binary(argv.next().unwrap_or_default())?;
    let output = Command::new(program).args(argv).output();
    Ok(Ran::of(line.to_owned(), &output.doing(|| format!("run {line}"))?))
}
