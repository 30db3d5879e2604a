//! How a run ends.

use std::fmt;
use std::process::ExitCode;

/// The exit codes in a few lines, for the end of `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 nothing to mend, or all of it mended; 1 error; 2 usage; 3 something to mend \
and 5 something undecided (both with --detailed-exitcode); 4 refused, or mended in part; 75 another run holds the lock; \
128+n ended by signal n.";

/// The exit codes of every `mend-*` binary. They do not change within v1; scripts may rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: nothing to mend, or all of it mended.
    Success,
    /// 1: an error; stderr says which.
    Error,
    /// 2: the command line is wrong (clap uses the same).
    Usage,
    /// 3: there is something to mend, and it was not asked for. Only with `--detailed-exitcode`.
    Pending,
    /// 4: refused, or done in part; the report says what and why.
    Partly,
    /// 5: some objects are undecided. Only with `--detailed-exitcode`.
    Undecided,
    /// 75: another run holds the lock; try again later (`EX_TEMPFAIL` of sysexits.h).
    Locked,
    /// 128 + n: ended by signal n, after the action in hand.
    Signal(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Pending => 3,
            Self::Partly => 4,
            Self::Undecided => 5,
            Self::Locked => 75,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The command line asks for something that cannot be. [`fail`](crate::fail) gives [`Exit::Usage`] for it.
#[derive(Debug)]
pub struct UsageError(String);

impl UsageError {
    /// With what is wrong, and what to do about it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}
