//! What can go wrong in a look or a repair.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// The walk over the processes.
    #[error(transparent)]
    Census(#[from] nodemend_procns::Error),
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
    /// containerd's configuration cannot be read: then nobody can say which root it uses.
    #[error("{path}: {reason}; name the right file with --config", path = .path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// More than one containerd runs, and nothing says which one is meant.
    #[error(
        "{count} containerds run (pids {pids}), and none of them is the main process of {unit}; name the right one with --config or --unit"
    )]
    Ambiguous {
        /// How many.
        count: usize,
        /// Their pids, as text.
        pids: String,
        /// The unit that was asked.
        unit: String,
    },
    /// A program could not be run, or failed.
    #[error("{command}: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// What it said, or why it could not be run.
        reason: String,
    },
    /// A program did not end in time, and was killed or left behind.
    #[error("{command}: did not end within {} s", .deadline.as_secs())]
    Slow {
        /// The command line.
        command: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// A service did not come into the state that was asked for.
    #[error("{name}: {reason}")]
    Service {
        /// The unit, or the name of the service.
        name: String,
        /// What it is now, and what is known of the cause.
        reason: String,
    },
    /// Something did not become ready in time.
    #[error("{what} was not ready within {} s; the last answer: {last}", .deadline.as_secs())]
    NotReady {
        /// What was waited for: `the CRI on /run/containerd/containerd.sock`.
        what: String,
        /// How long.
        deadline: Duration,
        /// What was said last.
        last: String,
    },
    /// A tree that cannot be opened, set aside or put back.
    #[error(transparent)]
    Tree(#[from] nodemend_rmtree::Error),
    /// The file of a run cannot be understood.
    #[error("{path}: {reason}", path = .path.display())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Something on the node is not as a step needs it. The step did nothing.
    #[error("{0}")]
    Unfit(String),
    /// Leftover sandboxes.
    #[error(transparent)]
    Sandboxes(#[from] nodemend_sandboxes::Error),
    /// Leftover veth pairs.
    #[error(transparent)]
    Veth(#[from] nodemend_veth::Error),
    /// Leftover addresses.
    #[error(transparent)]
    Ipam(#[from] nodemend_ipam::Error),
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
}
