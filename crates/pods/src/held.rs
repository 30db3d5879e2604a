//! A directory that is held open, and steps from it that leave neither its mount nor its names.
//!
//! How a step stays on its mount is told in `nodemend_hostfs::descent`.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use nodemend_hostfs::FileId;
use nodemend_hostfs::descent::{Descent, mount_id};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;

/// Opened for lookups only: nobody on the other side of a mount is asked anything.
const LOOKUP: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory, open for lookups, with the path that led to it.
#[derive(Debug)]
pub(crate) struct Held {
    dir: OwnedFd,
    path: PathBuf,
    mount: u64,
    descent: Descent,
}

impl Held {
    /// Opens a directory by its absolute path, one name at a time, so that no symlink is followed. Mounts on the way are
    /// crossed. None if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let mut so_far = PathBuf::from("/");
        let mut dir = rustix::fs::open("/", LOOKUP, Mode::empty()).map_err(Error::io("open", &so_far))?;
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::unfit(path, "is not a plain path"));
                }
            };
            so_far.push(name);
            dir = match rustix::fs::openat(&dir, name, LOOKUP, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(Error::NotADirectory { path: so_far }),
                Err(errno) => return Err(Error::io("open", so_far)(errno)),
            };
        }
        Self::of(dir, so_far).map(Some)
    }

    fn of(dir: OwnedFd, path: PathBuf) -> Result<Self, Error> {
        match mount_id(dir.as_fd()).zip(Descent::from(dir.as_fd())) {
            Some((mount, descent)) => Ok(Self {
                dir,
                path,
                mount,
                descent,
            }),
            None => Err(Error::NoMountIdentity { path }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the mount that it lies on.
    pub(crate) fn mount(&self) -> u64 {
        self.mount
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn id(&self) -> Result<FileId, Error> {
        FileId::of(&self.dir).map_err(Error::io("stat", &self.path))
    }

    /// The directory of that name in it. None if nothing has the name.
    ///
    /// # Errors
    /// [`Error::Mounted`], [`Error::NotADirectory`].
    pub(crate) fn down(&self, name: &OsStr) -> Result<Option<Self>, Error> {
        let path = self.path.join(name);
        match self.descent.lookup(self.fd(), name) {
            Ok(dir) => Ok(Some(Self { dir, path, ..*self })),
            Err(errno) => not_opened(errno, path),
        }
    }

    /// The directory at a path below it.
    pub(crate) fn below(&self, path: &Path) -> Result<Option<Self>, Error> {
        let mut dir = self.again()?;
        for name in path {
            match dir.down(name)? {
                Some(next) => dir = next,
                None => return Ok(None),
            }
        }
        Ok(Some(dir))
    }

    /// What is mounted on the directory of that name, if that is the mount of this id.
    pub(crate) fn cross(&self, name: &OsStr, mount: u64) -> Result<Self, Error> {
        let path = self.path.join(name);
        let dir =
            rustix::fs::openat(&self.dir, name, LOOKUP, Mode::empty()).map_err(Error::io("open", &path))?;
        let there = Self::of(dir, path)?;
        match there.mount == mount {
            true => Ok(there),
            false => Err(Error::unfit(&there.path, "another thing is mounted here by now")),
        }
    }

    fn again(&self) -> Result<Self, Error> {
        let dir = self.dir.try_clone().map_err(Error::io("hold", &self.path))?;
        let path = self.path.clone();
        Ok(Self { dir, path, ..*self })
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |flags| rustix::fs::openat(&self.dir, c".", flags, Mode::empty());
        let dir = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            other => other,
        };
        let dir = dir.map_err(Error::io("open", &self.path))?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir).map_err(Error::io("list", &self.path))? {
            let entry = entry.map_err(Error::io("list", &self.path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What has that name, without following it. None if nothing has.
    pub(crate) fn stat(&self, name: &OsStr) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("stat", self.path.join(name))(errno)),
        }
    }

    /// As [`stat`](Self::stat), without asking what may be mounted there: a file system whose server is gone never answers.
    ///
    /// # Errors
    /// [`Error::Mounted`].
    pub(crate) fn stat_here(&self, name: &OsStr) -> Result<Option<Stat>, Error> {
        let path = self.path.join(name);
        match self.descent.entry(self.fd(), name) {
            Ok(entry) => rustix::fs::fstat(&entry)
                .map(Some)
                .map_err(Error::io("stat", path)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(Error::Mounted { path }),
            Err(errno) => Err(Error::io("open", path)(errno)),
        }
    }

    /// The type of what has that name.
    pub(crate) fn kind(&self, name: &OsStr) -> Result<Option<FileType>, Error> {
        Ok(self.stat(name)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Removes an empty directory. False if it was not there.
    pub(crate) fn rmdir(&self, name: &OsStr) -> Result<bool, Error> {
        self.remove(name, AtFlags::REMOVEDIR)
    }

    /// Removes a file. False if it was not there.
    pub(crate) fn unlink(&self, name: &OsStr) -> Result<bool, Error> {
        self.remove(name, AtFlags::empty())
    }

    fn remove(&self, name: &OsStr, flags: AtFlags) -> Result<bool, Error> {
        match rustix::fs::unlinkat(&self.dir, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::io("remove", self.path.join(name))(errno)),
        }
    }

    /// Waits until the disk has its names.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, c".", flags, Mode::empty())
            .and_then(rustix::fs::fsync)
            .map_err(Error::io("sync", &self.path))
    }
}

fn not_opened(errno: Errno, path: PathBuf) -> Result<Option<Held>, Error> {
    match errno {
        Errno::NOENT => Ok(None),
        Errno::XDEV => Err(Error::Mounted { path }),
        Errno::NOTDIR | Errno::LOOP => Err(Error::NotADirectory { path }),
        errno => Err(Error::io("open", path)(errno)),
    }
}
