//! What is in a directory, by lstat alone, and never through a mount.
//!
//! Even an lstat of a mount point asks the file system that is mounted there, and a dead one does not answer. So the mount
//! table says first where not to look; `nodemend_hostfs::descent` refuses what was mounted since.

use std::collections::HashSet;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nodemend_hostfs::descent::Descent;
use nodemend_hostfs::pool::Pulse;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::class::EMPTY_FILE;
use crate::volume::Content;

/// How many levels are counted. Each keeps a directory open.
const DEEPEST: usize = 64;

/// How often the clock is asked, in entries.
const CLOCK: u64 = 64;

/// How much is counted of one volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries: u64,
    pub(crate) until: Instant,
}

/// Looks at what lies in one pod directory.
pub(crate) struct Look<'a> {
    pub(crate) descent: Descent,
    /// Where something is mounted, relative to the pod directory.
    pub(crate) mountpoints: &'a HashSet<PathBuf>,
    pub(crate) pulse: &'a Pulse,
}

/// What is counted so far.
#[derive(Debug, Default)]
struct Sum {
    entries: u64,
    bytes: u64,
    newest: Option<i64>,
    more: bool,
}

struct Level {
    dir: Dir,
    path: PathBuf,
}

impl Look<'_> {
    /// True if something is mounted there, by the mount table.
    pub(crate) fn is_mountpoint(&self, path: &Path) -> bool {
        !self.mountpoints.is_empty() && self.mountpoints.contains(path)
    }

    /// What stands at a name. `path` is where that is, relative to the pod directory.
    pub(crate) fn content(&self, dir: BorrowedFd<'_>, name: &CStr, path: &Path, bounds: Bounds) -> Content {
        if self.is_mountpoint(path) {
            return Content::Mounted;
        }
        self.try_content(dir, name, path, bounds)
            .unwrap_or_else(|errno| match errno {
                // kubelet removes, too.
                Errno::NOENT => Content::Empty,
                Errno::XDEV => Content::Mounted,
                errno => Content::Unread(errno.to_string()),
            })
    }

    fn try_content(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        bounds: Bounds,
    ) -> Result<Content, Errno> {
        // First as a directory: what was mounted there since the table was read is refused, and not asked.
        match self.descent.down(dir, name) {
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            opened => return self.count(opened?, path, bounds),
        }
        let stat = lstat(dir, name)?;
        let what = match FileType::from_raw_mode(stat.st_mode) {
            // It has become one meanwhile.
            FileType::Directory => return Err(Errno::NOTDIR),
            FileType::RegularFile if stat.st_size == 0 => EMPTY_FILE.to_owned(),
            FileType::RegularFile => {
                let mut sum = Sum {
                    entries: 1,
                    ..Sum::default()
                };
                sum.add(&stat);
                return Ok(sum.content());
            }
            FileType::Symlink => symlink(dir, name),
            FileType::BlockDevice => "a block device".to_owned(),
            FileType::CharacterDevice => "a character device".to_owned(),
            FileType::Fifo => "a FIFO".to_owned(),
            FileType::Socket => "a socket".to_owned(),
            FileType::Unknown => "of no known type".to_owned(),
        };
        Ok(Content::Other(what))
    }

    fn count(&self, dir: OwnedFd, path: &Path, bounds: Bounds) -> Result<Content, Errno> {
        let mut sum = Sum::default();
        let mut levels = vec![Level::of(dir, path.to_owned())?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.dir.read() else {
                levels.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            self.pulse.beat();
            sum.entries += 1;
            let below = self.entry(level, name, entry.file_type(), &mut sum)?;
            if sum.entries >= bounds.entries
                || (sum.entries % CLOCK == 1 && Instant::now() >= bounds.until)
                || (below.is_some() && levels.len() >= DEEPEST)
            {
                sum.more = true;
                break;
            }
            levels.extend(below);
        }
        Ok(sum.content())
    }

    /// Adds one entry. Gives the directory that is to be counted next, if it is one.
    fn entry(
        &self,
        level: &Level,
        name: &CStr,
        kind: FileType,
        sum: &mut Sum,
    ) -> Result<Option<Level>, Errno> {
        let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
        if self.is_mountpoint(&path) {
            return Ok(None);
        }
        let dir = level.dir.fd()?;
        if matches!(kind, FileType::Directory | FileType::Unknown) {
            match self.descent.down(dir, name) {
                Ok(below) => {
                    sum.add(&rustix::fs::fstat(&below)?);
                    return Level::of(below, path).map(Some);
                }
                // Mounted or removed since.
                Err(Errno::XDEV | Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        match lstat(dir, name) {
            Err(Errno::NOENT) => {}
            stat => sum.add(&stat?),
        }
        Ok(None)
    }
}

impl Level {
    fn of(dir: OwnedFd, path: PathBuf) -> Result<Self, Errno> {
        let dir = Dir::new(dir)?;
        Ok(Self { dir, path })
    }
}

impl Sum {
    fn add(&mut self, stat: &Stat) {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.bytes = self
                .bytes
                .saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
        }
        self.newest = self.newest.max(Some(stat.st_mtime));
    }

    fn content(self) -> Content {
        if self.entries == 0 {
            return Content::Empty;
        }
        Content::Files {
            entries: self.entries,
            bytes: self.bytes,
            newest: self.newest.unwrap_or_default(),
            more: self.more,
        }
    }
}

/// lstat, without starting an automount.
pub(crate) fn lstat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statat(dir.as_fd(), name, flags)
}

pub(crate) fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// What to say of a symlink.
pub(crate) fn symlink(dir: BorrowedFd<'_>, name: &CStr) -> String {
    match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Ok(target) => format!("a symlink to {}", target.to_string_lossy()),
        Err(_) => "a symlink".to_owned(),
    }
}
