//! Why a DEL was not repeated.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why [`Replay::delete`](crate::Replay::delete) did not succeed. The cache file is still there after every one of
/// these, so that the DEL can be repeated; CNI requires of plugins that a second DEL does no harm.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The caller holds no proof that nobody owns the attachment.
    #[error("container {container}: no proof that nobody uses it; no plugin was called")]
    Unproven {
        /// The container.
        container: String,
    },
    /// The host is a tree of files: its plugins would change the kernel that runs here, which is another one's.
    #[error("container {container}: DEL can be repeated on the running host only, not below {root}", root = .root.display())]
    NotRunning {
        /// The container.
        container: String,
        /// The tree.
        root: PathBuf,
    },
    /// A call of the kernel failed.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// At which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The cache file is not the one that was surveyed, or cannot be trusted or understood.
    #[error("{path}: {reason}", path = .path.display())]
    CacheFile {
        /// The cache file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration names a plugin that is not there. No plugin was called.
    #[error("container {container}: no plugin \"{plugin}\" in {searched}; no plugin was called")]
    NoPlugin {
        /// The container.
        container: String,
        /// The type of the plugin.
        plugin: String,
        /// Where it was looked for.
        searched: String,
    },
    /// A plugin could not be started, or its pipes failed.
    #[error("container {container}: plugin {plugin}: {source}")]
    Call {
        /// The container.
        container: String,
        /// The type of the plugin.
        plugin: String,
        /// Why.
        source: io::Error,
    },
    /// A plugin said that its DEL failed. Those after it in the configuration had succeeded.
    #[error("container {container}: plugin {plugin} failed: {message}")]
    Failed {
        /// The container.
        container: String,
        /// The type of the plugin.
        plugin: String,
        /// What it said, in one line.
        message: String,
    },
    /// A plugin was still running at the deadline. It was killed, with all of its process group.
    #[error(
        "container {container}: plugin {plugin} did not end before the deadline of {deadline:?} for all plugins; it was killed"
    )]
    Hung {
        /// The container.
        container: String,
        /// The type of the plugin.
        plugin: String,
        /// The deadline for the whole chain.
        deadline: Duration,
    },
}

impl ReplayError {
    /// For `map_err`: a failed call at a path.
    pub(crate) fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }

    pub(crate) fn cache(path: &Path, reason: impl Into<String>) -> Self {
        Self::CacheFile {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
