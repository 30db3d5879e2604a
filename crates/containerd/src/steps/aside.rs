//! The root set aside by a new name, and made anew; and the way back.
//!
//! What is where is found out each time from the directories themselves, not from what was noted: so each call carries on
//! from wherever an earlier one was killed.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nodemend_rmtree::{Aside, Tree, find, put_back, set_aside, unmark};
use rustix::fs::fsync;

use super::likeness::{make_like, open_dir};
use super::rename::rename_fresh;
use crate::error::Error;
use crate::identity::RootId;
use crate::state::Run;

/// Where the old root is.
#[derive(Debug)]
pub(crate) enum Place {
    /// At its own path.
    Home,
    /// Set aside.
    Aside(Box<Aside>),
    /// Nowhere to be found.
    Nowhere,
}

/// Finds the old root of a run.
pub(crate) fn find_old(run: &Run, same_boot: bool) -> Result<Place, Error> {
    let root = &run.root;
    if let Some(here) = RootId::at(&root.path)?
        && here.is(&root.id, same_boot)
    {
        return Ok(Place::Home);
    }
    for aside in find(parent(&root.path)?)?.trees {
        let id = RootId::of(aside.tree.dir()).map_err(Error::io("stat", aside.tree.path()))?;
        if id.is(&root.id, same_boot) {
            return Ok(Place::Aside(Box::new(aside)));
        }
    }
    Ok(Place::Nowhere)
}

/// Sets the root aside, and makes it anew.
pub(crate) fn to_aside(run: &mut Run, same_boot: bool) -> Result<Vec<String>, Error> {
    let (path, fresh) = (run.root.path.clone(), fresh_name(run)?);
    if let Place::Home = find_old(run, same_boot)? {
        let tree = Tree::open(&path)?;
        check(&tree, run, same_boot)?;
        // Before the old one goes: a full disk has no room for a directory, and then nothing has been changed.
        make_like(tree.dir(), &fresh)?;
        if let Err(error) = set_aside(tree) {
            let _ = std::fs::remove_dir(&fresh);
            return Err(error.into());
        }
    }
    let Place::Aside(aside) = find_old(run, same_boot)? else {
        return Err(lost(run));
    };
    run.aside = Some(aside.tree.path().to_owned());
    let said = format!(
        "the old root is {}; {} is new and empty",
        aside.tree.path().display(),
        path.display()
    );
    if RootId::at(&path)?.is_some() {
        // After a kill or a boot the new root is there already: made here, or by containerd itself.
        let _ = std::fs::remove_dir(&fresh);
        return Ok(vec![said]);
    }
    make_like(aside.tree.dir(), &fresh)?;
    give_name(&fresh, &path)?;
    Ok(vec![said])
}

/// Puts the old root back. What has its place now is set aside in turn.
pub(crate) fn to_home(run: &mut Run, same_boot: bool) -> Result<Vec<String>, Error> {
    let path = run.root.path.clone();
    let mut said = Vec::new();
    match find_old(run, same_boot)? {
        // It never left, or came back and was killed before its marker was gone.
        Place::Home => unmark(&Tree::open(&path)?)?,
        Place::Aside(old) => {
            if RootId::at(&path)?.is_some() {
                let new = set_aside(Tree::open(&path)?)?;
                said.push(format!("the new root was set aside: {}", new.path().display()));
                run.new_aside = Some(new.path().to_owned());
            }
            put_back(*old)?;
        }
        Place::Nowhere => return Err(lost(run)),
    }
    let _ = std::fs::remove_dir(fresh_name(run)?);
    run.aside = None;
    said.insert(0, format!("the old root is {} again", path.display()));
    Ok(said)
}

/// An error if a tree is not the root that the run is about.
fn check(tree: &Tree, run: &Run, same_boot: bool) -> Result<(), Error> {
    let id = RootId::of(tree.dir()).map_err(Error::io("stat", tree.path()))?;
    if id.is(&run.root.id, same_boot) {
        return Ok(());
    }
    Err(Error::Unfit(format!(
        "{}: another directory is there than when the run began; look what happened, and begin again",
        tree.path().display()
    )))
}

fn give_name(fresh: &Path, path: &Path) -> Result<(), Error> {
    let dir = open_dir(parent(path)?)?;
    let (from, to) = (name(fresh)?, name(path)?);
    rename_fresh(dir.as_fd(), &from, dir.as_fd(), &to).map_err(Error::io("give its name to", path))?;
    sync(&dir, path)
}

/// The new root, before it has its name.
fn fresh_name(run: &Run) -> Result<PathBuf, Error> {
    let mut fresh = OsString::from(".");
    fresh.push(name(&run.root.path)?);
    fresh.push(format!(".nodemend-new-{}", run.id));
    Ok(run.root.path.with_file_name(fresh))
}

pub(crate) fn lost(run: &Run) -> Error {
    let path = run.root.path.display();
    Error::Unfit(format!(
        "the old root is neither {path} nor set aside beside it: somebody moved or removed it; nothing was done"
    ))
}

fn parent(path: &Path) -> Result<&Path, Error> {
    path.parent()
        .ok_or_else(|| Error::Unfit(format!("{}: has no directory above it", path.display())))
}

fn name(path: &Path) -> Result<OsString, Error> {
    let name = path.file_name().map(OsString::from);
    name.ok_or_else(|| Error::Unfit(format!("{}: has no name", path.display())))
}

/// A file system that cannot sync a directory keeps the order by itself, or has no disk.
pub(crate) fn sync(dir: &OwnedFd, path: &Path) -> Result<(), Error> {
    match fsync(dir) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(errno) => Err(Error::io("sync", path)(errno)),
    }
}
