//! What can go wrong, with the path it went wrong at.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the kernel failed.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb: `open`, `read`.
        what: &'static str,
        /// At which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is larger than anything that belongs there.
    #[error("{path}: larger than {limit} bytes, which no such file should be; not read", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// Something stands where a regular file belongs.
    #[error("{path}: not a regular file; not read", path = .path.display())]
    NotAFile {
        /// Where it stands.
        path: PathBuf,
    },
    /// A line of the mount table does not have the form that proc(5) gives.
    #[error("mount table, line {line}: not of the form that proc(5) describes")]
    MountTable {
        /// The line, from 1.
        line: usize,
    },
    /// Another run works on this node.
    #[error("{path}: another run holds the lock (pid {holder}); wait for it to end", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// A file of the tool's own state cannot be understood.
    #[error("{path}: {reason}; move it away to start afresh", path = .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel lacks what reading another root safely needs.
    #[error("{path}: cannot read below another root on this kernel (openat2 needs Linux 5.6)", path = .path.display())]
    NoScopedOpen {
        /// What was to be read.
        path: PathBuf,
    },
}

impl Error {
    /// For `map_err`: a failed call at a path.
    pub fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// True if the file or directory is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
