//! Putting back what a repair took out of a pod directory.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Journal, StateDir};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::held::Held;
use crate::quarantine::{KeptItem, MANIFEST, Manifest, UNFINISHED, make, read_small, real, rename_fresh};

/// Something that can be put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The name to ask for: that of the directory with the manifest.
    pub entry: String,
    /// Where it is now.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub at: PathBuf,
    /// Where it was.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub was: PathBuf,
    /// What the manifest says of it.
    pub item: KeptItem,
    /// The manifest, without its items.
    pub manifest: Manifest,
}

/// What a restore did. May be repeated: what is back is not kept any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// What is back, from where, and where to.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<(PathBuf, PathBuf)>")]
    pub restored: Vec<(PathBuf, PathBuf)>,
    /// What is still kept, each with the reason.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<(PathBuf, String)>")]
    pub kept: Vec<(PathBuf, String)>,
}

/// One line of the journal.
#[derive(Serialize)]
struct Entry<'a> {
    tool: &'static str,
    step: &'static str,
    #[serde(serialize_with = "nodemend_hostfs::text::serialize")]
    from: &'a Path,
    #[serde(serialize_with = "nodemend_hostfs::text::serialize")]
    to: &'a Path,
}

/// Where records are kept that were copied and not moved.
pub(crate) fn records(state: &StateDir) -> PathBuf {
    state.path().join("kept")
}

/// What can be put back from these quarantines, and from the state directory, by name. A thing that was to be moved and was
/// not, as its run was killed, is where it was, and so it is not listed.
///
/// # Errors
/// If a quarantine is there and cannot be read, or one of its manifests cannot be understood.
pub fn restorable(state: &StateDir, quarantines: &[PathBuf]) -> Result<Vec<Kept>, Error> {
    let mut kept = Vec::new();
    for shelf in quarantines.iter().chain([&records(state)]) {
        let Some(shelf) = Held::open(&real(shelf))? else {
            continue;
        };
        for entry in shelf.names()? {
            match shelf.down(&entry) {
                Ok(Some(dir)) => kept.extend(of_entry(&dir, &entry)?),
                Ok(None) | Err(Error::NotADirectory { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(kept)
}

fn of_entry(dir: &Held, entry: &OsStr) -> Result<Vec<Kept>, Error> {
    let Some((bytes, _)) = read_manifest(dir)? else {
        return Ok(Vec::new());
    };
    let path = dir.path().join(MANIFEST);
    let mut manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Error::unfit(&path, format!("cannot be understood: {error}")))?;
    let items = std::mem::take(&mut manifest.items);
    let mut kept = Vec::new();
    for item in items {
        // Names come from a file: one that is no plain name leads elsewhere.
        let plain = !item.name.is_empty() && item.name.bytes().all(|byte| byte.is_ascii_digit());
        if !plain || !is_below(&item.place) {
            return Err(Error::unfit(&path, "names something outside of its directory"));
        }
        if dir.stat(item.name.as_ref())?.is_some() {
            kept.push(Kept {
                entry: entry.to_string_lossy().into_owned(),
                at: dir.path().join(&item.name),
                was: manifest.pod.join(&item.place),
                item,
                manifest: manifest.clone(),
            });
        }
    }
    Ok(kept)
}

/// A manifest may be larger than a record: a pod may have many volumes.
fn read_manifest(dir: &Held) -> Result<Option<(Vec<u8>, Mode)>, Error> {
    read_small(dir, MANIFEST.as_ref())
}

fn is_below(place: &Path) -> bool {
    let mut names = place.components().peekable();
    names.peek().is_some() && names.all(|name| matches!(name, std::path::Component::Normal(_)))
}

/// Puts back everything that is kept under a name: an entry as [`restorable`] names it, `ENTRY/NUMBER` for one thing of it, or
/// a pod's UID. Each thing goes where it was, if its pod directory is there and the place is free; or, with `to`, below
/// that directory, as `UID/volumes/…`. Takes the lock of the state directory itself, so the caller must not hold it.
///
/// A run that was killed may have copied a record that the next run copied or moved again. So a record that lies at its
/// place already, byte for byte, is back, and its copy goes; if the two differ, both stay.
///
/// # Errors
/// [`Error::NotKept`]; as of [`restorable`]; if another run holds the lock. What failed for one thing is in the report.
pub fn restore(
    state: &StateDir,
    quarantines: &[PathBuf],
    name: &str,
    to: Option<&Path>,
) -> Result<RestoreReport, Error> {
    let _lock = state.lock()?;
    let all = restorable(state, quarantines)?;
    let is_asked = |kept: &&Kept| {
        kept.entry == name
            || kept.manifest.uid.as_str() == name
            || name
                .strip_prefix(&kept.entry)
                .and_then(|rest| rest.strip_prefix('/'))
                == Some(&kept.item.name)
    };
    let asked: Vec<&Kept> = all.iter().filter(is_asked).collect();
    if asked.is_empty() {
        return Err(not_kept(name, &all));
    }
    let mut journal = state.journal()?;
    let mut report = RestoreReport::default();
    for kept in asked {
        match put_back(kept, to, &mut journal) {
            Ok(place) => report.restored.push((kept.at.clone(), place)),
            Err(error) => report.kept.push((kept.at.clone(), error.to_string())),
        }
    }
    Ok(report)
}

fn not_kept(name: &str, all: &[Kept]) -> Error {
    let mut known: Vec<&str> = all.iter().map(|kept| kept.entry.as_str()).collect();
    known.dedup();
    let known = match known.is_empty() {
        true => "none".to_owned(),
        false => known.join(", "),
    };
    Error::NotKept {
        name: name.to_owned(),
        known,
    }
}

fn put_back(kept: &Kept, to: Option<&Path>, journal: &mut Journal) -> Result<PathBuf, Error> {
    let entry = kept.at.parent().unwrap_or(&kept.at);
    let from = Held::open(entry)?.ok_or_else(|| Error::unfit(entry, "is not there any more"))?;
    nothing_mounted(&kept.at)?;
    let (top, below) = match to {
        Some(dir) => (dir, Path::new(kept.manifest.uid.as_str()).join(&kept.item.place)),
        None => (kept.manifest.pod.as_path(), kept.item.place.clone()),
    };
    let missing = match to {
        Some(_) => "is not there",
        None => "the pod directory is gone; name a directory to restore into",
    };
    let top = Held::open(top)?.ok_or_else(|| Error::unfit(top, missing))?;
    let dir = directories(top, below.parent().unwrap_or(Path::new("")))?;
    let new = below.file_name().unwrap_or_default();
    let place = dir.path().join(new);
    let is_back = is_there_already(&from, kept, &dir, new)?;
    journal.append(&Entry {
        tool: "mend-pods",
        step: "restore",
        from: &kept.at,
        to: &place,
    })?;
    match is_back {
        true => drop(from.unlink(kept.item.name.as_ref())?),
        false => move_back(&from, &kept.item.name, &dir, new)?,
    }
    dir.sync()?;
    from.sync()?;
    sweep(&from)?;
    Ok(place)
}

/// True if what is kept lies at its place, byte for byte; an error if something else does.
fn is_there_already(from: &Held, kept: &Kept, dir: &Held, new: &OsStr) -> Result<bool, Error> {
    let item = OsStr::new(&kept.item.name);
    let Some(there) = dir.stat_here(new)? else {
        return Ok(false);
    };
    let file = FileType::RegularFile;
    if FileType::from_raw_mode(there.st_mode) != file || from.kind(item)? != Some(file) {
        return Err(Error::unfit(dir.path().join(new), "the place is taken"));
    }
    let bytes = |small: Option<(Vec<u8>, Mode)>| small.map(|(bytes, _)| bytes);
    match bytes(read_small(from, item)?) == bytes(read_small(dir, new)?) {
        true => Ok(true),
        false => Err(Error::Differs {
            kept: kept.at.clone(),
            place: dir.path().join(new),
        }),
    }
}

/// A mount moves along with what it lies in.
fn nothing_mounted(path: &Path) -> Result<(), Error> {
    let mounts = crate::block::own_table()?;
    match mounts.iter().find(|mount| mount.mountpoint.starts_with(path)) {
        Some(mount) => Err(Error::Mounted {
            path: mount.mountpoint.clone(),
        }),
        None => Ok(()),
    }
}

/// Goes down, and makes what is missing, as kubelet makes it.
fn directories(top: Held, path: &Path) -> Result<Held, Error> {
    let mut dir = top;
    for name in path {
        make(&dir, name, Mode::RWXU | Mode::RGRP | Mode::XGRP)?;
        let path = dir.path().join(name);
        dir = dir
            .down(name)?
            .ok_or_else(|| Error::unfit(path, "it went away"))?;
    }
    Ok(dir)
}

fn move_back(from: &Held, item: &str, to: &Held, new: &OsStr) -> Result<(), Error> {
    match rename_fresh(from, item.as_ref(), to, new) {
        Ok(()) => Ok(()),
        Err(Errno::XDEV) => copy_back(from, item, to, new),
        Err(errno) => Err(Error::io("move", from.path().join(item))(errno)),
    }
}

/// A record lies in the state directory, on another file system perhaps.
fn copy_back(from: &Held, item: &str, to: &Held, new: &OsStr) -> Result<(), Error> {
    let path = to.path().join(new);
    let across = || {
        let reason =
            "lies on another file system: it is not copied by this tool; cp -a does, and then remove it here";
        Error::unfit(from.path().join(item), reason)
    };
    if from.kind(item.as_ref())? != Some(FileType::RegularFile) {
        return Err(across());
    }
    let (bytes, mode) = read_small(from, item.as_ref())?.ok_or_else(across)?;
    // Under another name first: what is not whole must not take the place.
    let unfinished = [b".".as_slice(), new.as_bytes(), b".nodemend"].concat();
    let unfinished = OsStr::from_bytes(&unfinished);
    to.unlink(unfinished)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(to.fd(), unfinished, flags, mode).map_err(Error::io("create", &path))?;
    let mut file = std::fs::File::from(file);
    file.write_all(&bytes)
        .and_then(|()| rustix::fs::fchmod(&file, mode).map_err(Into::into))
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &path))?;
    rename_fresh(to, unfinished, to, new).map_err(Error::io("rename to", &path))?;
    to.sync()?;
    from.unlink(item.as_ref()).map(drop)
}

/// Removes an entry from which everything was taken.
fn sweep(entry: &Held) -> Result<(), Error> {
    let is_item = |name: &std::ffi::OsString| name != MANIFEST && name != UNFINISHED;
    if entry.names()?.iter().any(is_item) {
        return Ok(());
    }
    entry.unlink(MANIFEST.as_ref())?;
    entry.unlink(UNFINISHED.as_ref())?;
    let (Some(above), Some(name)) = (entry.path().parent(), entry.path().file_name()) else {
        return Ok(());
    };
    if let Some(above) = Held::open(above)? {
        above.rmdir(name)?;
    }
    Ok(())
}
