//! Why a tree cannot be opened for removal.

use std::io;
use std::path::{Path, PathBuf};

/// Why a tree cannot be opened for removal, or set aside. Nothing has been changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// A component of the path is a symlink: whoever can change it chooses what would be removed.
    #[error("{path}: is a symlink to {target}; give the path that it leads to", path = .path.display(), target = .target.display())]
    Symlink {
        /// The path up to the symlink.
        path: PathBuf,
        /// What it holds.
        target: PathBuf,
    },
    /// Not a directory.
    #[error("{path}: not a directory; plain rm removes it", path = .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The root directory, or a path that ends in `.` or `..`, and so names no entry of a directory.
    #[error("{path}: names no entry of a directory; give the directory by its name", path = .path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The path goes up behind a name: where that leads depends on what the name is.
    #[error("{path}: goes up (..) behind a name; give the path without that", path = .path.display())]
    GoesUp {
        /// The path.
        path: PathBuf,
    },
    /// Something is mounted here.
    #[error("{path}: something is mounted here; unmount it, or name what lies in it", path = .path.display())]
    MountPoint {
        /// The path.
        path: PathBuf,
    },
    /// Something else has the name of the tree by now.
    #[error("{path}: another directory has this name by now; nothing was changed", path = .path.display())]
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// This kernel has no way to tell a bind mount from the directory below it.
    #[error(
        "{path}: this kernel cannot tell on which mount a directory lies (neither openat2, statx, /proc/self/fdinfo nor \
         name_to_handle_at answers), so nothing can be removed safely",
        path = .path.display()
    )]
    NoMountIdentity {
        /// The path.
        path: PathBuf,
    },
    /// The mount table cannot be read.
    #[error(transparent)]
    Mounts(#[from] nodemend_hostfs::Error),
}

impl Error {
    /// For `map_err`: a failed call at a path.
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }
}
