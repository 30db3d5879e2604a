//! What can go wrong while a node is made or broken.

use std::io;
use std::path::Path;

/// A lab's result.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Why the lab could not do what it was asked. Nothing is skipped in silence: what a machine lacks is [`LabError::Missing`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A system call or a file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path in it.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A command ran and said no.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote, standard error first.
        output: String,
    },
    /// A runtime answered a CRI call with an error.
    #[error("{call}: {status}")]
    Cri {
        /// The name of the call.
        call: &'static str,
        /// The runtime's answer.
        status: Box<tonic::Status>,
    },
    /// The machine lacks something without which no node can be made here.
    #[error("this machine cannot run the lab: {0}")]
    Missing(String),
    /// Something that should have happened did not happen in time.
    #[error("no {what} after {seconds} s{detail}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        seconds: u64,
        /// The end of a log, when there is one.
        detail: String,
    },
    /// An answer that makes no sense.
    #[error("unexpected answer: {0}")]
    Odd(String),
}

impl LabError {
    /// A CRI call's failure.
    pub(crate) fn cri(call: &'static str, status: tonic::Status) -> Self {
        LabError::Cri {
            call,
            status: Box::new(status),
        }
    }
}

/// Puts what was being done in front of an I/O error.
pub(crate) trait Doing<T> {
    /// With a description made only when it failed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
    /// With a verb and the path.
    fn at(self, verb: &str, path: &Path) -> Result<T>
    where
        Self: Sized,
    {
        self.doing(|| format!("{verb} {}", path.display()))
    }
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io {
            what: what(),
            source: source.into(),
        })
    }
}
