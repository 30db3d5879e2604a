//! A root that is a mount point of its own cannot be renamed: its entries are moved into a directory in it, one by one, and
//! back.
//!
//! The directory is marked as set aside while it is still empty, so at any moment what is in it can be proven to be what this
//! tool put there. What is to be moved is noted before, by name and inode.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;
use nodemend_rmtree::{Aside, Tree, find, set_aside};
use rustix::fs::{AtFlags, CWD, Mode, fstat, mkdirat, statat};
use rustix::io::Errno;

use super::aside::{lost, sync};
use super::likeness::open_dir;
use super::rename::rename_fresh;
use crate::error::Error;
use crate::identity::RootId;
use crate::state::{Entry, Run};

/// Belongs to the file system, not to containerd.
const LOST_FOUND: &str = "lost+found";

/// What is in the root now and would be moved: all but what belongs to the file system, and what was set aside before.
pub(crate) fn entries(root: &Path) -> Result<Vec<Entry>, Error> {
    let set_aside = find(root)?;
    let asides: Vec<PathBuf> = set_aside
        .trees
        .into_iter()
        .map(|aside| aside.tree.path().to_owned())
        .chain(set_aside.lookalikes.into_iter().map(|alike| alike.path))
        .collect();
    let dir = open_dir(root)?;
    let mut entries = Vec::new();
    for name in Host::local().list(root)? {
        if name == LOST_FOUND || asides.iter().any(|aside| aside.file_name() == Some(&name)) {
            continue;
        }
        if let Some(ino) = inode(&dir, &name).map_err(Error::io("stat", root.join(&name)))? {
            entries.push(Entry { name, ino });
        }
    }
    Ok(entries)
}

/// Moves what was noted into the aside directory, which is made if there is none.
pub(crate) fn to_aside(
    run: &mut Run,
    same_boot: bool,
    save: &mut dyn FnMut(&Run) -> Result<(), Error>,
) -> Result<Vec<String>, Error> {
    let root = run.root.path.clone();
    let dir = open_root(run, same_boot)?;
    let aside = match aside_of(&root, &inner(run, ""))? {
        Some(aside) => aside.tree,
        None => {
            // Nothing was moved yet: what is there now is what is to go.
            let name = inner(run, "");
            run.root.entries = entries(&root)?;
            run.root.entries.retain(|entry| entry.name != *name);
            save(run)?;
            make(&root, &name)?
        }
    };
    run.aside = Some(aside.path().to_owned());
    save(run)?;
    let into = open_dir(aside.path())?;
    for entry in run.root.entries.clone() {
        let here = inode(&dir, &entry.name).map_err(Error::io("stat", root.join(&entry.name)))?;
        if here == Some(entry.ino) {
            transfer(&dir, &into, &entry.name, &root)?;
        } else if here.is_some() || inode(&into, &entry.name).ok().flatten() != Some(entry.ino) {
            return Err(Error::Unfit(format!(
                "{}: is another one than when the run began, as containerd ran meanwhile; --roll-back first, then begin again",
                root.join(&entry.name).display()
            )));
        }
    }
    sync(&into, aside.path())?;
    sync(&dir, &root)?;
    Ok(vec![format!(
        "{} is a mount point: its {} entries are in {}",
        root.display(),
        run.root.entries.len(),
        aside.path().display()
    )])
}

/// Moves everything back. What is in the root now goes into an aside directory of its own.
pub(crate) fn to_home(
    run: &mut Run,
    same_boot: bool,
    save: &mut dyn FnMut(&Run) -> Result<(), Error>,
) -> Result<Vec<String>, Error> {
    let root = run.root.path.clone();
    let dir = open_root(run, same_boot)?;
    let mut said = vec![format!("what was in {} is there again", root.display())];
    let Some(aside) = aside_of(&root, &inner(run, ""))? else {
        let _ = std::fs::remove_dir(root.join(inner(run, "")));
        let there = |entry: &Entry| inode(&dir, &entry.name) == Ok(Some(entry.ino));
        // Killed before the first was moved, or after the last came back.
        return match run.root.entries.iter().all(there) {
            true => Ok(said),
            false => Err(lost(run)),
        };
    };
    let strangers: Vec<Entry> = entries(&root)?
        .into_iter()
        .filter(|entry| !run.root.entries.contains(entry))
        .collect();
    if !strangers.is_empty() {
        let new = match aside_of(&root, &inner(run, "-new"))? {
            Some(new) => new.tree,
            None => make(&root, &inner(run, "-new"))?,
        };
        run.new_aside = Some(new.path().to_owned());
        save(run)?;
        let into = open_dir(new.path())?;
        for entry in strangers.iter().filter(|entry| entry.name != *inner(run, "-new")) {
            transfer(&dir, &into, &entry.name, &root)?;
        }
        sync(&into, new.path())?;
        said.push(format!(
            "the new entries were set aside: {}",
            new.path().display()
        ));
    }
    let from = open_dir(aside.tree.path())?;
    for name in Host::local().list(aside.tree.path())? {
        transfer(&from, &dir, &name, aside.tree.path())?;
    }
    sync(&dir, &root)?;
    std::fs::remove_dir(aside.tree.path()).map_err(Error::io("remove", aside.tree.path()))?;
    run.aside = None;
    Ok(said)
}

/// The root, if it is the one of the run: after a boot another disk, or none, may be mounted there.
fn open_root(run: &Run, same_boot: bool) -> Result<OwnedFd, Error> {
    let dir = open_dir(&run.root.path)?;
    let id = RootId::of(&dir).map_err(Error::io("stat", &run.root.path))?;
    match id.is(&run.root.id, same_boot) {
        true => Ok(dir),
        false => Err(Error::Unfit(format!(
            "{}: another directory is there than when the run began: is its file system mounted?",
            run.root.path.display()
        ))),
    }
}

/// The name of the aside directory before it was marked.
fn inner(run: &Run, suffix: &str) -> String {
    format!("nodemend-{}{suffix}", run.id)
}

fn aside_of(root: &Path, name: &str) -> Result<Option<Aside>, Error> {
    let was = std::fs::canonicalize(root)
        .map_err(Error::io("open", root))?
        .join(name);
    Ok(find(root)?.trees.into_iter().find(|aside| aside.was == was))
}

fn make(root: &Path, name: &str) -> Result<Tree, Error> {
    let path = root.join(name);
    match mkdirat(CWD, &path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(set_aside(Tree::open(&path)?)?),
        Err(errno) => Err(Error::io("create directory", path)(errno)),
    }
}

fn transfer(from: &OwnedFd, to: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Error> {
    rename_fresh(from.as_fd(), name, to.as_fd(), name).map_err(Error::io("move", path.join(name)))
}

/// The inode of what has that name, and None if nothing has.
fn inode(dir: &OwnedFd, name: &OsStr) -> Result<Option<u64>, Errno> {
    debug_assert!(!name.as_bytes().contains(&b'/'));
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_dev == fstat(dir)?.st_dev => Ok(Some(stat.st_ino)),
        // Something is mounted on it.
        Ok(_) => Err(Errno::XDEV),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
