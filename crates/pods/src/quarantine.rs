//! Where things are kept that may be the only copy: moved out of a pod directory, never deleted.
//!
//! One directory for each pod of a run, with a manifest that says what is in it and where it was. The manifest is whole and
//! on the disk before anything is moved, so a run that is killed leaves each thing either where it was or here, and
//! [`restore`](crate::restore) finds it in both cases.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::apply::steps::{name, now};
use crate::error::Error;
use crate::held::Held;
use crate::pod::{PodDir, PodName};
use crate::uid::Uid;
use crate::volume::{Class, Content, CsiVolume};

/// The version of the form of a manifest.
pub const MANIFEST_VERSION: u32 = 1;

/// The manifest, in the directory of its pod.
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const UNFINISHED: &str = "manifest.new";

/// The quarantine in kubelet's root, if no other is named.
pub const QUARANTINE: &str = ".nodemend-quarantine";

/// The largest file that is kept as a copy, in bytes: a record of kubelet's has some hundred.
pub(crate) const COPY: u64 = 1 << 20;

/// What was taken out of one pod directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// The pod.
    pub uid: Uid,
    /// What people call it.
    pub name: Option<PodName>,
    /// The pod directory.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub pod: PathBuf,
    /// The run that did it.
    pub run: String,
    /// Which program, process and user did it.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// What is here, or was on its way here.
    pub items: Vec<KeptItem>,
}

/// One thing that was taken out of a pod directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptItem {
    /// Its name beside the manifest: a number.
    pub name: String,
    /// Where it was, below the pod directory.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub place: PathBuf,
    /// The plugin, as its directory is called.
    pub plugin: String,
    /// What its removal would lose.
    pub class: Class,
    /// What was in it.
    pub content: Content,
    /// CSI: what its record said.
    pub csi: Option<CsiVolume>,
}

/// A directory that holds what was taken out of pods, one directory for each.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: Held,
}

impl Shelf {
    /// Opens it, and makes it if it is not there: for root's eyes only.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = Held::open(path)? {
            return Ok(Self { dir });
        }
        let above = path.parent().map(Held::open).transpose()?.flatten();
        let above = above.ok_or_else(|| Error::unfit(path, "the directory above it is not there"))?;
        make(&above, name(path), Mode::RWXU)?;
        above.sync()?;
        let dir = above.down(name(path))?;
        let dir = dir.ok_or_else(|| Error::unfit(path, "it went away"))?;
        Ok(Self { dir })
    }

    /// Opens or makes one to which things can be moved from that pod directory, and that kubelet does not take for a pod.
    pub(crate) fn for_pod(path: &Path, pod: &Held) -> Result<Self, Error> {
        outside_of_pods(path, pod)?;
        let shelf = Self::open(path)?;
        if shelf.dir.mount() != pod.mount() {
            let reason =
                "is not on the mount that kubelet's root lies on, so nothing can be moved there by renaming";
            return Err(Error::unfit(path, reason));
        }
        Ok(shelf)
    }

    /// A new directory for what is taken out of a pod.
    pub(crate) fn entry(&self, run: &str, uid: &Uid) -> Result<Entry, Error> {
        for number in 1..1000 {
            let entry = match number {
                1 => format!("{run}-{uid}"),
                number => format!("{run}-{uid}-{number}"),
            };
            if make(&self.dir, entry.as_ref(), Mode::RWXU)? {
                let dir = self.dir.down(entry.as_ref())?;
                self.dir.sync()?;
                let gone = || Error::unfit(self.dir.path(), "the directory that was made in it went away");
                return Ok(Entry {
                    dir: dir.ok_or_else(gone)?,
                });
            }
        }
        Err(Error::unfit(
            self.dir.path(),
            "has a thousand directories of this run",
        ))
    }
}

/// An error if a directory is in `pods/`: kubelet takes every name there for a pod, and what is in a pod's directory goes
/// with it.
pub(crate) fn outside_of_pods(path: &Path, pod: &Held) -> Result<(), Error> {
    let pods = pod.path().parent().unwrap_or(pod.path());
    let pods = nodemend_hostfs::FileId::from(&rustix::fs::stat(pods).map_err(Error::io("stat", pods))?);
    for above in real(path).ancestors() {
        match rustix::fs::stat(above) {
            Ok(stat) if nodemend_hostfs::FileId::from(&stat) == pods => {
                let reason = "is in pods/, where kubelet takes everything for a pod";
                return Err(Error::unfit(path, reason));
            }
            // It is still to be made.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("stat", above)(errno)),
        }
    }
    Ok(())
}

/// The directory of one pod on a shelf.
#[derive(Debug)]
pub(crate) struct Entry {
    dir: Held,
}

impl Entry {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the manifest, whole or not at all, and waits until the disk has it.
    pub(crate) fn write(&self, manifest: &Manifest) -> Result<(), Error> {
        let path = self.dir.path().join(UNFINISHED);
        let bytes = serde_json::to_vec_pretty(manifest)
            .map_err(|error| Error::unfit(&path, format!("cannot be written: {error}")))?;
        let mut file = self.create(UNFINISHED)?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", &path))?;
        rustix::fs::renameat(self.dir.fd(), UNFINISHED, self.dir.fd(), MANIFEST)
            .map_err(Error::io("rename", &path))?;
        self.dir.sync()
    }

    fn create(&self, name: &str) -> Result<File, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.dir.fd(), name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(Error::io("create", self.dir.path().join(name)))
    }

    /// Moves what has that name in a directory to here. False if it is not there any more.
    pub(crate) fn take(&self, from: &Held, what: &std::ffi::OsStr, item: &str) -> Result<bool, Error> {
        match rename_fresh(from, what, &self.dir, item.as_ref()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Error::io("move", from.path().join(what))(errno)),
        }
        self.dir.sync()?;
        from.sync()?;
        Ok(true)
    }

    /// Copies a small file to here. False if it is not there any more.
    pub(crate) fn copy(&self, from: &Held, what: &std::ffi::OsStr, item: &str) -> Result<bool, Error> {
        let Some((bytes, mode)) = read_small(from, what)? else {
            return Ok(false);
        };
        let mut file = self.create(item)?;
        file.write_all(&bytes)
            .and_then(|()| rustix::fs::fchmod(&file, mode).map_err(Into::into))
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", self.dir.path().join(item)))?;
        self.dir.sync()?;
        Ok(true)
    }
}

/// A manifest for a pod without items yet.
pub(crate) fn manifest(pod: &PodDir, run: &str) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        pod: pod.path.clone(),
        run: run.to_owned(),
        by: format!(
            "nodemend-pods {}, process {}, user {}",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            rustix::process::getuid().as_raw()
        ),
        at: now(),
        items: Vec::new(),
    }
}

/// The bytes and the permission bits of a small regular file. None if it is not there.
pub(crate) fn read_small(dir: &Held, name: &std::ffi::OsStr) -> Result<Option<(Vec<u8>, Mode)>, Error> {
    let path = dir.path().join(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: OwnedFd = match rustix::fs::openat(dir.fd(), name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Error::io("open", path)(errno)),
    };
    let stat = rustix::fs::fstat(file.as_fd()).map_err(Error::io("stat", &path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::unfit(path, "is no regular file"));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(COPY + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", &path))?;
    match bytes.len() as u64 > COPY {
        true => Err(Error::unfit(path, "is too large for what it should be")),
        false => Ok(Some((bytes, Mode::from_raw_mode(stat.st_mode)))),
    }
}

/// The path without symlinks, of a directory whose own name may not be there yet.
pub(crate) fn real(path: &Path) -> PathBuf {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    std::fs::canonicalize(path)
        .or_else(|_| std::fs::canonicalize(above).map(|above| above.join(name)))
        .unwrap_or_else(|_| path.to_owned())
}

/// Makes a directory. False if the name is taken.
pub(crate) fn make(above: &Held, name: &std::ffi::OsStr, mode: Mode) -> Result<bool, Error> {
    match rustix::fs::mkdirat(above.fd(), name, mode) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(Error::io("make directory", above.path().join(name))(errno)),
    }
}

/// `renameat2` that never replaces (Linux 3.15); where the file system lacks it, a look whether the name is free.
pub(crate) fn rename_fresh(
    from: &Held,
    old: &std::ffi::OsStr,
    to: &Held,
    new: &std::ffi::OsStr,
) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from.fd(), old, to.fd(), new, RenameFlags::NOREPLACE) {
        Err(Errno::NOSYS | Errno::INVAL) => {}
        other => return other,
    }
    match rustix::fs::statat(to.fd(), new, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => rustix::fs::renameat(from.fd(), old, to.fd(), new),
        Ok(_) => Err(Errno::EXIST),
        Err(errno) => Err(errno),
    }
}
