//! What can go wrong while containerd is set aside and started anew.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// A tree that cannot be opened, set aside or put back.
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
    /// A service that does not do what it is told.
    #[error("{service}: {reason}")]
    Service {
        /// Its unit, or the command.
        service: String,
        /// What it did instead.
        reason: String,
    },
    /// Something that did not become ready in time.
    #[error("{what} does not answer after {seconds} s: {last}")]
    NotReady {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// The last thing that was heard of it.
        last: String,
    },
    /// The file of a run cannot be understood.
    #[error("{path}: {reason}", path = .path.display())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Something on the node is not as this step needs it. Nothing was done by the step.
    #[error("{0}")]
    Unfit(String),
    /// A signal asked for the end.
    #[error("ended by a signal")]
    Interrupted,
    /// The leftovers of veth pairs.
    #[error(transparent)]
    Veth(#[from] nodemend_veth::Error),
    /// The leftovers of addresses.
    #[error(transparent)]
    Ipam(#[from] nodemend_ipam::Error),
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
