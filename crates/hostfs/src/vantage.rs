//! Whether this process sees the host, or only a container of it.

use std::path::Path;

use crate::error::Error;
use crate::identity::FileId;

/// A namespace of this process that is not the one of pid 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the host: the {kind} namespace is another one than that of pid 1, so what is seen here is not what the \
     node holds. Enter the host first: nsenter --target 1 --mount --net --pid -- …"
)]
pub struct Outside {
    /// `mount`, `network` or `pid`.
    pub kind: &'static str,
}

/// Compares the mount, network and pid namespace of this process with those of pid 1.
///
/// A container with a pid namespace of its own passes: it sees a pid 1 that is its own. There the runtimes'
/// answers are what tells: a peer that this pid namespace cannot name is outside of it, and such an answer
/// counts as none.
///
/// # Errors
/// If /proc cannot be read. Reading the links of pid 1 needs root.
pub fn check() -> Result<Option<Outside>, Error> {
    for (file, kind) in [("mnt", "mount"), ("net", "network"), ("pid", "pid")] {
        if namespace("self", file)? != namespace("1", file)? {
            return Ok(Some(Outside { kind }));
        }
    }
    Ok(None)
}

fn namespace(process: &str, file: &str) -> Result<FileId, Error> {
    let path = format!("/proc/{process}/ns/{file}");
    let stat = rustix::fs::stat(Path::new(&path)).map_err(|e| Error::io("stat", &path)(e.into()))?;
    Ok(FileId::from(&stat))
}
