//! A tar of what ends with its pod by contract, for whom that is too little.
//!
//! What is special is written down and never opened: fifos and devices are entries, symlinks are what they hold, hard links
//! stay links. The file gets its name when it is whole, on the disk, and was read back.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;
use tar::{Builder, EntryType, Header};

use crate::error::Error;
use crate::held::Held;
use crate::measure::{LEVELS, Sum};
use crate::quarantine::rename_fresh;
use crate::uid::Uid;

/// Its last entry.
pub(crate) const TABLE_OF_CONTENTS: &str = "nodemend-manifest.json";

/// What an entry needs beside its content, in bytes: a header, padding, and a long name.
const OVERHEAD: u64 = 4 * 512;

/// What must be left free on the file system that it is written to, in bytes.
const SPARE: u64 = 64 << 20;

/// What stands in the last entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    uid: String,
    run: String,
    /// Seconds since 1970.
    at: u64,
    /// Where each directory was, below the pod directory.
    directories: Vec<String>,
    entries: u64,
    bytes: u64,
    /// Sockets, which tar has no entry for.
    sockets: Vec<String>,
    /// tar entries hold owner, mode, time and content; extended attributes and ACLs are not kept.
    extended_attributes: bool,
}

/// An archive that is being written.
pub(crate) struct Archive {
    dir: Held,
    name: OsString,
    unfinished: OsString,
    tar: Builder<BufWriter<File>>,
    /// The first name of each file with several.
    links: HashMap<FileId, PathBuf>,
    contents: Contents,
}

impl Archive {
    /// Starts one in a directory, with a suffix after run and UID.
    pub(crate) fn create(dir: &Path, run: &str, uid: &Uid, suffix: &str) -> Result<Self, Error> {
        let dir = Held::open(dir)?.ok_or_else(|| Error::unfit(dir, "is not there"))?;
        let name = OsString::from(format!("{run}-{uid}{suffix}.tar"));
        if dir.stat(&name)?.is_some() {
            return Err(Error::unfit(dir.path().join(&name), "is there already"));
        }
        let unfinished = OsString::from(format!("{run}-{uid}{suffix}.tar.unfinished"));
        dir.unlink(&unfinished)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir.fd(), &unfinished, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::io("create", dir.path().join(&unfinished)))?;
        let tar = Builder::new(BufWriter::with_capacity(1 << 20, File::from(file)));
        let contents = Contents {
            uid: uid.to_string(),
            run: run.to_owned(),
            at: crate::apply::steps::now(),
            ..Contents::default()
        };
        Ok(Self {
            dir,
            name,
            unfinished,
            tar,
            links: HashMap::new(),
            contents,
        })
    }

    /// Where it will be.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// Adds a directory with everything on its mount.
    pub(crate) fn add(&mut self, dir: &Held, place: &Path) -> Result<(), Error> {
        self.contents
            .directories
            .push(place.to_string_lossy().into_owned());
        let stat = rustix::fs::fstat(dir.fd()).map_err(Error::io("stat", dir.path()))?;
        let place = Path::new(&self.contents.uid).join(place);
        self.plain(&stat, EntryType::Directory, &place, dir.path())?;
        self.fill(dir, &place, 0)
    }

    fn fill(&mut self, dir: &Held, place: &Path, level: usize) -> Result<(), Error> {
        if level > LEVELS {
            return Err(Error::TooDeep {
                path: dir.path().to_owned(),
                levels: LEVELS,
            });
        }
        for name in dir.names()? {
            let (place, path) = (place.join(&name), dir.path().join(&name));
            let Some(stat) = dir.stat(&name)? else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    // None: it went meanwhile.
                    let Some(below) = dir.down(&name)? else { continue };
                    self.plain(&stat, EntryType::Directory, &place, &path)?;
                    self.fill(&below, &place, level + 1)?;
                }
                FileType::RegularFile => self.file(dir, &name, &stat, &place)?,
                FileType::Symlink => self.symlink(dir, &name, &stat, &place)?,
                FileType::Fifo => self.plain(&stat, EntryType::Fifo, &place, &path)?,
                FileType::CharacterDevice => self.plain(&stat, EntryType::Char, &place, &path)?,
                FileType::BlockDevice => self.plain(&stat, EntryType::Block, &place, &path)?,
                FileType::Socket => self.contents.sockets.push(place.to_string_lossy().into_owned()),
                FileType::Unknown => return Err(Error::unfit(path, "is of no kind that is known")),
            }
        }
        Ok(())
    }

    /// Something without content.
    fn plain(&mut self, stat: &Stat, kind: EntryType, place: &Path, path: &Path) -> Result<(), Error> {
        let mut header = header(stat, kind, 0);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor))
                .map_err(Error::io("archive", path))?;
        }
        self.contents.entries += 1;
        self.tar
            .append_data(&mut header, place, std::io::empty())
            .map_err(Error::io("archive", path))
    }

    fn file(&mut self, dir: &Held, name: &OsStr, stat: &Stat, place: &Path) -> Result<(), Error> {
        let path = dir.path().join(name);
        let id = FileId::from(stat);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&id)
        {
            let mut header = header(stat, EntryType::Link, 0);
            self.contents.entries += 1;
            return self
                .tar
                .append_link(&mut header, place, first)
                .map_err(Error::io("archive", path));
        }
        let file = open(dir, name).map_err(Error::io("open", &path))?;
        let now = rustix::fs::fstat(&file).map_err(Error::io("stat", &path))?;
        if FileId::from(&now) != id || FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            return Err(Error::unfit(path, "changed while it was archived"));
        }
        let size = u64::try_from(now.st_size).unwrap_or_default();
        let mut header = header(&now, EntryType::Regular, size);
        let mut content = Exact { file, left: size };
        self.tar
            .append_data(&mut header, place, &mut content)
            .map_err(Error::io("archive", &path))?;
        self.contents.entries += 1;
        self.contents.bytes += size;
        self.links.insert(id, place.to_owned());
        Ok(())
    }

    fn symlink(&mut self, dir: &Held, name: &OsStr, stat: &Stat, place: &Path) -> Result<(), Error> {
        let path = dir.path().join(name);
        let target =
            rustix::fs::readlinkat(dir.fd(), name, Vec::new()).map_err(Error::io("read link", &path))?;
        let target = OsStr::from_bytes(target.as_bytes());
        // A header would hold it without its doubled and last slashes.
        let plain: PathBuf = Path::new(target).components().collect();
        if plain.as_os_str() != target {
            self.tar
                .append_pax_extensions([("linkpath", target.as_bytes())])
                .map_err(Error::io("archive", &path))?;
        }
        let mut header = header(stat, EntryType::Symlink, 0);
        self.contents.entries += 1;
        self.tar
            .append_link(&mut header, place, target)
            .map_err(Error::io("archive", path))
    }

    /// Ends it: the table of contents, a sync, a reading of all of it, and only then its name.
    pub(crate) fn finish(mut self) -> Result<(PathBuf, Sum), Error> {
        let path = self.dir.path().join(&self.unfinished);
        let table = serde_json::to_vec_pretty(&self.contents)
            .map_err(|error| Error::unfit(&path, format!("cannot be written: {error}")))?;
        let mut header = Header::new_gnu();
        header.set_size(table.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.contents.at);
        self.tar
            .append_data(&mut header, TABLE_OF_CONTENTS, table.as_slice())
            .map_err(Error::io("write", &path))?;
        let writer = self.tar.into_inner().map_err(Error::io("write", &path))?;
        let mut file = writer
            .into_inner()
            .map_err(|error| Error::io("write", &path)(error.into_error()))?;
        file.sync_all().map_err(Error::io("sync", &path))?;
        read_back(&mut file, &self.contents).map_err(|reason| Error::unfit(&path, reason))?;
        rename_fresh(&self.dir, &self.unfinished, &self.dir, &self.name)
            .map_err(Error::io("rename", &path))?;
        self.dir.sync()?;
        let sum = Sum {
            entries: self.contents.entries,
            bytes: self.contents.bytes,
            ..Sum::default()
        };
        Ok((self.dir.path().join(&self.name), sum))
    }

    /// Removes what was written of it.
    pub(crate) fn discard(self) {
        // What stays is named `.unfinished`, and the next run removes it.
        let _ = self.dir.unlink(&self.unfinished);
    }
}

/// An error if a directory has no room for so much.
pub(crate) fn check_room(dir: &Path, sum: Sum) -> Result<(), Error> {
    let stat = rustix::fs::statvfs(dir).map_err(Error::io("statvfs", dir))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let need = sum.bytes + sum.entries * OVERHEAD + SPARE;
    if sum.more {
        return Err(Error::unfit(
            dir,
            "what is to be archived could not be counted to its end",
        ));
    }
    match need <= free {
        true => Ok(()),
        false => Err(Error::unfit(
            dir,
            format!("has room for {free} bytes, and the archive may need {need} (holes count)"),
        )),
    }
}

fn open(dir: &Held, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(dir.fd(), name, flags, Mode::empty()).map(File::from)
}

fn header(stat: &Stat, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header
}

/// Gives so many bytes of a file, and an error if there are fewer: a header that says otherwise spoils all behind it.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let length = self.file.read(part)?;
        if length == 0 {
            let reason = "it became shorter while it was archived";
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, reason));
        }
        self.left -= length as u64;
        Ok(length)
    }
}

fn read_back(file: &mut File, contents: &Contents) -> Result<(), String> {
    file.rewind().map_err(|error| error.to_string())?;
    let (mut entries, mut bytes) = (0, 0);
    let mut tar = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    for entry in tar.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| format!("cannot be read back: {error}"))?;
        if entry.path_bytes().as_ref() == TABLE_OF_CONTENTS.as_bytes() {
            continue;
        }
        entries += 1;
        bytes += std::io::copy(&mut entry, &mut std::io::sink()).map_err(|error| error.to_string())?;
    }
    if (entries, bytes) == (contents.entries, contents.bytes) {
        return Ok(());
    }
    Err(format!(
        "holds {entries} entries with {bytes} bytes, and {} with {} were written",
        contents.entries, contents.bytes
    ))
}
