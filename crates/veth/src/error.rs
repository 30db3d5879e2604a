//! What can go wrong in a look or a repair.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// The walk over the processes.
    #[error(transparent)]
    Census(#[from] nodemend_procns::Error),
    /// The kernel's links.
    #[error(transparent)]
    Links(#[from] nodemend_rtnl::Error),
    /// A namespace file that is not what was judged.
    #[error("{path}: {reason}; it was left alone", path = .path.display())]
    NotTheSame {
        /// The file.
        path: PathBuf,
        /// What it is now.
        reason: String,
    },
    /// A call on a namespace file failed.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Release {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A thread or an async runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}
