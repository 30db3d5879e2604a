//! What makes a file this one and no other.

use std::fmt;
use std::os::fd::AsFd;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Device and inode number: the identity of a file or, on nsfs, of a namespace. Names come and go; two paths
/// with the same pair are the same thing for as long as either is held.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct FileId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl FileId {
    /// Of an open file.
    ///
    /// # Errors
    /// What fstat(2) gives.
    pub fn of(file: impl AsFd) -> std::io::Result<Self> {
        Ok(Self::from(&rustix::fs::fstat(file)?))
    }
}

impl From<&rustix::fs::Stat> for FileId {
    fn from(stat: &rustix::fs::Stat) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ino)
    }
}
