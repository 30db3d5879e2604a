//! A name in a directory that was reached without following a symlink.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;

/// Opened for lookups only: nothing behind it is asked.
const LOOKUP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A name in an open directory. What the name stands for may change; the directory does not.
#[derive(Debug)]
pub(crate) struct Place {
    parent: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The place of an absolute path. None if its directory is not there.
    ///
    /// # Errors
    /// [`Error::NotTheSame`] if a component is a symlink or no directory; [`Error::Io`].
    pub(crate) fn of(path: &Path) -> Result<Option<Self>, Error> {
        Self::each(path, |_, _| Ok(()))
    }

    /// The same, with a look at each directory on the way, the root among them.
    pub(crate) fn each(
        path: &Path,
        look: impl Fn(BorrowedFd<'_>, &Path) -> Result<(), Error>,
    ) -> Result<Option<Self>, Error> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::not_the_same(path, "names no entry of a directory"));
        };
        let mut so_far = PathBuf::from("/");
        let open = |dir: BorrowedFd<'_>, name: &OsStr| {
            rustix::fs::openat(dir, name, LOOKUP | OFlags::DIRECTORY, Mode::empty())
        };
        let mut dir = open(CWD, so_far.as_os_str()).map_err(Error::io("open", &so_far))?;
        look(dir.as_fd(), &so_far)?;
        for component in above.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::not_the_same(path, "is not a plain path"));
                }
            };
            so_far.push(name);
            dir = match open(dir.as_fd(), name) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(Error::not_the_same(&so_far, "is no directory, or a symlink"));
                }
                Err(errno) => return Err(Error::io("open", &so_far)(errno)),
            };
            look(dir.as_fd(), &so_far)?;
        }
        Ok(Some(Self {
            parent: dir,
            name: name.to_owned(),
            path: path.to_owned(),
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What stands there. None if nothing does.
    pub(crate) fn stat(&self) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("stat", &self.path)(errno)),
        }
    }

    /// Opens what stands there for lookups only, the root of a mount if one covers it. None if nothing does.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>, Error> {
        match rustix::fs::openat(&self.parent, &self.name, LOOKUP, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("open", &self.path)(errno)),
        }
    }

    /// A path for calls that take no directory: `/proc/self/fd/N/name`.
    pub(crate) fn by_descriptor(&self) -> OsString {
        let mut path = OsString::from(format!("/proc/self/fd/{}/", self.parent.as_raw_fd()));
        path.push(&self.name);
        path
    }

    /// Removes a file; nothing there is as good.
    pub(crate) fn unlink(&self) -> Result<(), Error> {
        self.remove(AtFlags::empty())
    }

    /// Removes an empty directory. True if it is gone; one that is not empty stays.
    pub(crate) fn rmdir(&self) -> Result<bool, Error> {
        match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
            Err(errno) => Err(Error::io("remove", &self.path)(errno)),
        }
    }

    fn remove(&self, flags: AtFlags) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.parent, &self.name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("remove", &self.path)(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_on_the_way_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::fs::write(dir.path().join("real/file"), "").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let real = Place::of(&dir.path().join("real/file")).unwrap().unwrap();
        assert!(real.stat().unwrap().is_some());
        let error = Place::of(&dir.path().join("link/file")).unwrap_err();
        assert!(matches!(error, Error::NotTheSame { .. }), "{error}");
        assert!(Place::of(&dir.path().join("nothing/file")).unwrap().is_none());
    }
}
