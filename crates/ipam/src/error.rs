//! What can go wrong in a look, a repair or an undo.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// The walk over the processes.
    #[error(transparent)]
    Census(#[from] nodemend_procns::Error),
    /// The kernel's addresses.
    #[error(transparent)]
    Addresses(#[from] nodemend_rtnl::Error),
    /// A call on a file failed.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// host-local's own lock did not become free.
    #[error("{path}: a CNI plugin held this lock for {seconds} s; the reservation was left alone", path = .path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A file that is not what was judged.
    #[error("{path}: {reason}; it was left alone", path = .path.display())]
    NotTheSame {
        /// The file.
        path: PathBuf,
        /// What it is now.
        reason: &'static str,
    },
    /// A run name that cannot name a directory.
    #[error("\"{run}\" is no name of a run: letters, digits, dot, dash and underscore only")]
    RunName {
        /// The name.
        run: String,
    },
    /// An undo of a run that is not there.
    #[error("{path}: there is no run \"{run}\" to undo; known are: {known}", path = .path.display())]
    NoSuchRun {
        /// Where the runs are kept.
        path: PathBuf,
        /// The run that was asked for.
        run: String,
        /// The runs that are there, or "none".
        known: String,
    },
    /// A manifest of an earlier run that cannot be understood.
    #[error("{path}, line {line}: {reason}", path = .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A thread or an async runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl Error {
    /// For `map_err`: a failed call at a path.
    pub(crate) fn io<E: Into<std::io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io {
            what,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}
