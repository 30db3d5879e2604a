//! The root of what is to go: opened, judged and held.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_hostfs::{FileId, Host};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::descent::Descent;
use crate::error::Error;
use crate::options::Options;
use crate::policy::{FileSystem, Policy};

/// Large enough for the table of a node with half a million mounts, in bytes.
const MOUNT_TABLE: u64 = 128 << 20;

/// The root of what is to go: opened, judged and held. What is removed is this directory, whatever gets its name later.
#[derive(Debug)]
pub struct Tree {
    parent: OwnedFd,
    name: CString,
    dir: OwnedFd,
    path: PathBuf,
    id: FileId,
    file_system: FileSystem,
    descent: Descent,
}

impl Tree {
    /// Opens a directory for removal.
    ///
    /// # Errors
    /// If a component of the path is a symlink, if it is no directory, if something is mounted on it, if it has no name (`/`,
    /// `..`), or if the kernel cannot tell mounts apart.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = absolute(path)?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::NoName { path });
        };
        let parent = open_each(above)?;
        let name = c_name(&path, name)?;
        Self::open_in(parent, name, path)
    }

    fn open_in(parent: OwnedFd, name: CString, path: PathBuf) -> Result<Self, Error> {
        let descent =
            Descent::from(parent.as_fd()).ok_or_else(|| Error::NoMountIdentity { path: path.clone() })?;
        let dir = match descent.down(parent.as_fd(), &name) {
            Ok(dir) => dir,
            Err(Errno::XDEV) => return Err(Error::MountPoint { path }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(no_directory(parent.as_fd(), &name, path)),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let stat = rustix::fs::fstat(&dir).map_err(Error::io("stat", &path))?;
        let statfs = rustix::fs::fstatfs(&dir).map_err(Error::io("statfs", &path))?;
        Ok(Self {
            id: FileId::from(&stat),
            file_system: FileSystem::of_magic(statfs.f_type.cast_unsigned()),
            parent,
            name,
            dir,
            path,
            descent,
        })
    }

    /// Where it is: absolute, without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in its parent.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }

    /// What it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory that it is in. Opened with `O_PATH`: good for `*at` calls only.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// What it lies on.
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// How the work would be spread with these options.
    pub fn policy(&self, options: &Options) -> Policy {
        Policy::of(self).with(options)
    }

    /// What is mounted below it now, in the calling thread's mount namespace, in the order of the mount table.
    ///
    /// # Errors
    /// If the mount table cannot be read.
    pub fn mounts_inside(&self) -> Result<Vec<Mount>, Error> {
        let mut mounts = mounts()?;
        mounts.retain(|mount| mount.mountpoint.starts_with(&self.path));
        Ok(mounts)
    }

    /// Gives it another name in the directory it is in.
    ///
    /// # Errors
    /// If the name is taken, if the kernel refuses, or if something else has the tree's name by now: then all is as it was.
    pub fn rename(self, name: &OsStr) -> Result<Self, Error> {
        let path = self.path.with_file_name(name);
        let new = c_name(&path, name)?;
        self.check_name(&self.name)?;
        rename_fresh(self.parent(), &self.name, &new).map_err(Error::io("rename", &self.path))?;
        if let Err(error) = self.check_name(&new) {
            // Something else was under the name between the check and the call: back with it.
            rename_fresh(self.parent(), &new, &self.name).map_err(Error::io("rename back", &path))?;
            return Err(error);
        }
        Ok(Self {
            name: new,
            path,
            ..self
        })
    }

    /// An error if a name in the parent stands for something else than this tree.
    pub(crate) fn check_name(&self, name: &CStr) -> Result<(), Error> {
        let stat = rustix::fs::statat(&self.parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("stat", &self.path))?;
        if FileId::from(&stat) == self.id {
            Ok(())
        } else {
            Err(Error::Replaced {
                path: self.path.clone(),
            })
        }
    }

    pub(crate) fn c_name(&self) -> &CStr {
        &self.name
    }

    pub(crate) fn descent(&self) -> Descent {
        self.descent
    }
}

/// The mount table of the calling thread: it may be in another mount namespace than the process's first thread.
pub(crate) fn mounts() -> Result<Vec<Mount>, Error> {
    let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
    let table = format!("/proc/{process}/task/{thread}/mountinfo");
    Ok(mountinfo::parse(
        &Host::local().read(Path::new(&table), MOUNT_TABLE)?,
    )?)
}

/// `renameat2` that never replaces (Linux 3.15); before that, only a look whether the name is free.
fn rename_fresh(dir: BorrowedFd<'_>, old: &CStr, new: &CStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(dir, old, dir, new, RenameFlags::NOREPLACE) {
        Err(Errno::NOSYS | Errno::INVAL) => {}
        other => return other,
    }
    match rustix::fs::statat(dir, new, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => rustix::fs::renameat(dir, old, dir, new),
        Ok(_) => Err(Errno::EXIST),
        Err(error) => Err(error),
    }
}

/// The path from the root, without `.` and `..`. Leading `..` are taken from the working directory, whose path has no symlinks.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let bytes = path.as_os_str().as_bytes();
    if matches!(bytes, b"." | b"..") || bytes.ends_with(b"/.") || bytes.ends_with(b"/..") {
        return Err(Error::NoName {
            path: path.to_owned(),
        });
    }
    let mut plain = PathBuf::from("/");
    if path.is_relative() {
        plain = std::env::current_dir().map_err(Error::io("find the working directory for", path))?;
    }
    let mut named = false;
    for component in path.components() {
        match component {
            Component::ParentDir if named => {
                return Err(Error::GoesUp {
                    path: path.to_owned(),
                });
            }
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => {
                plain.push(name);
                named = true;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(plain)
}

/// Opens a directory by its path, one name at a time, so that each symlink on the way is seen.
fn open_each(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |dir: BorrowedFd<'_>, name: &OsStr| rustix::fs::openat(dir, name, flags, Mode::empty());
    let mut so_far = PathBuf::from("/");
    let mut dir = open(CWD, so_far.as_os_str()).map_err(Error::io("open", &so_far))?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        so_far.push(name);
        dir = match open(dir.as_fd(), name) {
            Ok(next) => next,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let name = c_name(&so_far, name)?;
                return Err(no_directory(dir.as_fd(), &name, so_far));
            }
            Err(error) => return Err(Error::io("open", so_far)(error)),
        };
    }
    Ok(dir)
}

/// What to say of something that is no directory.
fn no_directory(dir: BorrowedFd<'_>, name: &CStr, path: PathBuf) -> Error {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(target) => Error::Symlink {
            path,
            target: OsString::from_vec(target.into_bytes()).into(),
        },
        Err(_) => Error::NotADirectory { path },
    }
}

fn c_name(path: &Path, name: &OsStr) -> Result<CString, Error> {
    CString::new(name.as_bytes()).map_err(|_| Error::NoName {
        path: path.to_owned(),
    })
}
