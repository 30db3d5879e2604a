//! What can go wrong in a repair or a restore.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] nodemend_procns::Error),
    /// A tree that cannot be opened for removal.
    #[error(transparent)]
    Tree(#[from] nodemend_rmtree::Error),
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
    /// Something is mounted where nothing may be.
    #[error("{path}: something is mounted here", path = .path.display())]
    Mounted {
        /// Where.
        path: PathBuf,
    },
    /// Something else than a directory stands where one belongs.
    #[error("{path}: not a directory", path = .path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// Directories that lie deeper in each other than can be held open.
    #[error("{path}: more than {levels} directories deep; nothing was done with it", path = .path.display())]
    TooDeep {
        /// The directory that was not entered.
        path: PathBuf,
        /// How many levels there may be.
        levels: usize,
    },
    /// Something that is not what was judged, or not where it may be.
    #[error("{path}: {reason}", path = .path.display())]
    Unfit {
        /// What it is about.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This kernel cannot tell a bind mount from the directory below it.
    #[error("{path}: this kernel does not tell on which mount it lies (Linux 3.15 or later does)", path = .path.display())]
    NoMountIdentity {
        /// The directory.
        path: PathBuf,
    },
    /// A run name that cannot name a directory.
    #[error("\"{run}\" is no name of a run: letters, digits, dot, dash and underscore only")]
    RunName {
        /// The name.
        run: String,
    },
    /// A restore of something that is not kept.
    #[error("nothing is kept under the name \"{name}\"; known are: {known}")]
    NotKept {
        /// The name that was asked for.
        name: String,
        /// The names that are there, or "none".
        known: String,
    },
    /// A thread could not be started.
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

    pub(crate) fn unfit(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Unfit {
            path: path.as_ref().to_owned(),
            reason: reason.into(),
        }
    }
}
