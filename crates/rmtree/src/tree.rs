//! The root of what is to go: opened, judged and held.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use nodemend_hostfs::mountinfo::Mount;

use crate::error::Error;
use crate::observer::Observer;
use crate::options::Options;
use crate::policy::{FileSystem, Policy};
use crate::report::Report;

/// The root of what is to go: opened, judged and held. What is removed is this directory, whatever gets its name later.
#[derive(Debug)]
pub struct Tree {
    parent: OwnedFd,
    name: OsString,
    dir: OwnedFd,
    path: PathBuf,
    id: FileId,
    file_system: FileSystem,
}

impl Tree {
    /// Opens a directory for removal.
    ///
    /// # Errors
    /// If a component of the path is a symlink, if it is no directory, if something is mounted on it, if it has no name (`/`,
    /// `..`), or if the kernel cannot tell mounts apart.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let _ = path;
        todo!()
    }

    /// Where it is: absolute, without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in its parent.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// What it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The directory itself.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The directory that it is in.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// What it lies on.
    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// How the work would be spread.
    pub fn policy(&self) -> Policy {
        todo!()
    }

    /// What is mounted below it now, in this process's mount namespace. Deepest last.
    ///
    /// # Errors
    /// If the mount table cannot be read.
    pub fn mounts_inside(&self) -> Result<Vec<Mount>, Error> {
        todo!()
    }

    /// Gives it another name in the directory it is in. Fails if the name is taken.
    ///
    /// # Errors
    /// If the kernel refuses, or if another directory has the tree's name by now.
    pub fn rename(self, name: &OsStr) -> Result<Self, Error> {
        let _ = name;
        todo!()
    }
}

/// Removes a tree. Returns when all threads have ended.
pub fn remove(tree: Tree, options: &Options, observer: &mut dyn Observer) -> Report {
    let _ = (tree, options, observer);
    todo!()
}
