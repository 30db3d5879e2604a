//! One cache file on its way through a DEL: the same at the survey, when it is executed, and when it is removed.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;

use nodemend_hostfs::{FileId, Host};
use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;

use crate::cache::CacheEntry;
use crate::cached::{self, Cached};
use crate::conflist::{ConfList, version_number};
use crate::error::ReplayError;
use crate::files::{self, Opened};

/// The cache file of an attachment, held by its directory and name.
pub(crate) struct CacheFile<'a> {
    path: &'a Path,
    dir: OwnedFd,
    name: OsString,
    opened: Opened,
}

impl<'a> CacheFile<'a> {
    pub(crate) fn open(host: &Host, entry: &'a CacheEntry) -> Result<Self, ReplayError> {
        let path = &*entry.path;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(OsStr::to_owned)) else {
            return Err(ReplayError::cache(path, "this is no path of a file"));
        };
        let dir = host
            .open_dir(parent)
            .map_err(|error| ReplayError::cache(path, error.to_string()))?;
        let opened = files::read_at(&dir, &name).map_err(ReplayError::io("read", path))?;
        if opened.id != entry.id || opened.mtime() != entry.mtime {
            return Err(ReplayError::cache(
                path,
                "it is another file than the one that was looked at, or was rewritten",
            ));
        }
        if let Some(reason) = distrust(&opened.stat) {
            return Err(ReplayError::cache(path, reason));
        }
        Ok(Self {
            path,
            dir,
            name,
            opened,
        })
    }

    pub(crate) fn parse(&self, entry: &CacheEntry) -> Result<(Cached, ConfList), ReplayError> {
        let fail = |reason: &str| ReplayError::cache(self.path, reason);
        let cached = cached::parse(&self.opened.bytes).map_err(|reason| fail(&reason))?;
        let list = cached.config.clone().map_err(|reason| fail(&reason))?;
        let same = (&cached.network, &cached.container_id, &cached.ifname)
            == (&entry.network, &entry.container_id, &entry.ifname);
        if !same {
            return Err(fail(
                "it speaks of another attachment than the one that was looked at",
            ));
        }
        if list.name != cached.network {
            return Err(fail("its configuration is that of another network"));
        }
        if version_number(&list.cni_version).is_none() {
            return Err(fail(
                "its configuration names no CNI version that can be understood",
            ));
        }
        Ok((cached, list))
    }

    /// Removes the file, if it is still the one that was read. The next ADD of the same id would write into the same
    /// inode, so its size and time must be the same too.
    pub(crate) fn remove(&self) -> Result<(), ReplayError> {
        let now = match rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(now) => now,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(ReplayError::io("stat", self.path)(errno)),
        };
        let key = |stat: &Stat| {
            (
                FileId::from(stat),
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_size,
            )
        };
        if key(&now) != key(&self.opened.stat) {
            return Err(ReplayError::cache(
                self.path,
                "it was rewritten while its DEL ran; it was left there",
            ));
        }
        match rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(ReplayError::io("remove", self.path)(errno)),
        }
    }
}

/// Why the content of a file must not be executed.
fn distrust(stat: &Stat) -> Option<&'static str> {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Some("it belongs to another user: what it says is not executed");
    }
    if stat.st_mode & 0o022 != 0 {
        return Some("others can write it: what it says is not executed");
    }
    (stat.st_nlink > 1).then_some("it has another name elsewhere (hard link): what it says is not executed")
}
