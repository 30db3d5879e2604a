//! What makes a directory this one, also after a kill and after a reboot.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, fstat, openat, statx};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Device, inode and time of birth of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootId {
    /// The device number. After a reboot it may be another one.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
    /// When the inode was made, in seconds and nanoseconds, where kernel and file system tell: an inode number is used
    /// again.
    pub born: Option<(i64, u32)>,
}

impl RootId {
    /// Of an open directory.
    ///
    /// # Errors
    /// What fstat(2) gives.
    pub(crate) fn of(dir: impl AsFd) -> Result<Self, Errno> {
        let stat = fstat(&dir)?;
        let born = statx(&dir, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME)
            .ok()
            .filter(|stat| stat.stx_mask & StatxFlags::BTIME.bits() != 0)
            .map(|stat| (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
        Ok(Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            born,
        })
    }

    /// Of what has that path, a symlink not followed. None if there is nothing.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(dir) => Self::of(&dir).map(Some).map_err(Error::io("stat", path)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("open", path)(errno)),
        }
    }

    /// Whether two looks saw the same directory. Device numbers count only within one boot.
    pub(crate) fn is(&self, other: &Self, same_boot: bool) -> bool {
        let same_birth = match (self.born, other.born) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        self.ino == other.ino && same_birth && (!same_boot || self.dev == other.dev)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_number_counts_within_one_boot_only() {
        let before = RootId {
            dev: 1,
            ino: 7,
            born: Some((5, 6)),
        };
        let after = RootId { dev: 2, ..before };
        assert!(before.is(&after, false));
        assert!(!before.is(&after, true));
        let another = RootId {
            born: Some((9, 9)),
            ..before
        };
        assert!(!before.is(&another, false), "its inode number was used again");
        let untold = RootId { born: None, ..before };
        assert!(
            before.is(&untold, true),
            "a kernel that does not tell does not deny"
        );
    }

    #[test]
    fn what_is_not_there_has_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RootId::at(&dir.path().join("none")).unwrap().is_none());
        assert!(RootId::at(dir.path()).unwrap().is_some());
    }
}
