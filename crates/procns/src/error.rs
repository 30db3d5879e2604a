//! What can go wrong.

use std::io;
use std::path::PathBuf;

use crate::census::NetnsId;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host is a tree on a disk: it holds no processes.
    #[error("{root}: a tree on disk holds no processes, only the running host does", root = .root.display())]
    NotRunning {
        /// Where the tree is.
        root: PathBuf,
    },
    /// A file of /proc cannot be read, and nothing can be said without it.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Proc {
        /// What was tried, as a verb: `open`, `read`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel did not answer. A process that is stuck in the kernel can hold a lock that reading needs.
    #[error("{path}: the kernel did not answer within {seconds} s", path = .path.display())]
    Silent {
        /// Which file.
        path: PathBuf,
        /// How long the answer was waited for.
        seconds: u64,
    },
    /// A cgroup is not empty.
    #[error("{path}: a process lives in it: {pid}", path = .path.display())]
    Occupied {
        /// The cgroup.
        path: PathBuf,
        /// A process in it, or in one below it.
        pid: u32,
    },
    /// Something else has the name of a cgroup by now.
    #[error("{path}: another cgroup has this name by now; it was left alone", path = .path.display())]
    Replaced {
        /// The name.
        path: PathBuf,
    },
    /// A worker thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Error {
    pub(crate) fn proc(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Proc {
            what,
            path,
            source: errno.into(),
        }
    }
}

/// Why a network namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Every known holder has let go of it. A socket may still keep it, which nobody can see.
    #[error("network namespace {id}: nothing that is known to hold it does so any more")]
    Ended {
        /// Which one.
        id: NetnsId,
    },
    /// At least one holder could not be asked: it may well be alive.
    #[error("network namespace {id} could not be opened: {reason}")]
    Unopened {
        /// Which one.
        id: NetnsId,
        /// What went wrong, with each path.
        reason: String,
    },
}

/// Why a file of a network namespace was not removed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It is not the file that was judged.
    #[error("{path}: {reason}; it was left alone", path = .path.display())]
    NotTheSame {
        /// The file.
        path: PathBuf,
        /// What it is now.
        reason: String,
    },
    /// A call failed.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The mount table is of no known form.
    #[error(transparent)]
    Mounts(#[from] nodemend_hostfs::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}
