//! What can go wrong in a look or a repair.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// The walk over the processes, or a cgroup.
    #[error(transparent)]
    Census(#[from] nodemend_procns::Error),
    /// A file of a network namespace.
    #[error(transparent)]
    Release(#[from] nodemend_procns::ReleaseError),
    /// The kernel's links.
    #[error(transparent)]
    Links(#[from] nodemend_rtnl::Error),
    /// A directory that cannot be opened for removal.
    #[error(transparent)]
    Tree(#[from] nodemend_rmtree::Error),
    /// A call failed at a path.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What stands at a path is not what was judged, or is nothing that may be used or removed.
    #[error("{path}: {reason}; it was left alone", path = .path.display())]
    NotTheSame {
        /// The path.
        path: PathBuf,
        /// What it is now.
        reason: String,
    },
    /// A mount that is in use.
    #[error("{path}: cannot be unmounted, it is busy: {holders}", path = .path.display())]
    Busy {
        /// Where it is mounted.
        path: PathBuf,
        /// Who holds it, in words.
        holders: String,
    },
    /// Processes that did not end, or may not be ended.
    #[error("{reason}: {processes}")]
    Running {
        /// Why that stops the repair.
        reason: &'static str,
        /// The processes, in words.
        processes: String,
    },
    /// A signal was refused.
    #[error("process {pid}: signal: {source}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// A directory of which something stayed.
    #[error("{path}: not removed: {reason}", path = .path.display())]
    Left {
        /// The directory.
        path: PathBuf,
        /// What stayed, and why.
        reason: String,
    },
    /// A signal ended the run in the middle of a repair.
    #[error("the run was ended before this sandbox was cleared; the next run carries on")]
    Stopped,
    /// A thread or an async runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Error {
    /// For `map_err`: a failed call at a path.
    pub(crate) fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }

    pub(crate) fn not_the_same(path: &Path, reason: impl Into<String>) -> Self {
        Self::NotTheSame {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
