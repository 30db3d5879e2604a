//! What makes a tree dangerous, built by directory descriptors: no path is too long and no name too odd.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, linkat, makedev, mkdirat,
    mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use crate::error::{Doing, Result};

/// A directory that things are put into, by its descriptor.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Dir {
    /// Opens a directory.
    ///
    /// # Errors
    /// If the kernel refuses; so do all others.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty()).map(Self).at("open", path)
    }

    /// A new directory in it.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        mkdirat(self, name, Mode::from(0o755)).at("make directory", Path::new(name))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(self, name, flags, Mode::empty())
            .map(Self)
            .at("open", Path::new(name))
    }

    /// A new file in it, of this content.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn file(&self, name: impl AsRef<OsStr>, content: &str) -> Result<()> {
        let name = name.as_ref();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(self, name, flags, Mode::from(0o644)).at("create", Path::new(name))?;
        if content.is_empty() {
            return Ok(());
        }
        fs::File::from(fd)
            .write_all(content.as_bytes())
            .at("write", Path::new(name))
    }

    /// A new symlink in it.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn symlink(&self, name: impl AsRef<OsStr>, target: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        symlinkat(target.as_ref(), self, name).at("make symlink", Path::new(name))
    }

    /// Another name for a file.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn link(&self, name: impl AsRef<OsStr>, file: &Path) -> Result<()> {
        let name = name.as_ref();
        linkat(CWD, file, self, name, AtFlags::empty()).at("link", Path::new(name))
    }

    /// A new fifo, socket or device in it. A character device 0:0 is a whiteout of overlayfs.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn special(&self, name: impl AsRef<OsStr>, kind: FileType, device: (u32, u32)) -> Result<()> {
        let name = name.as_ref();
        mknodat(self, name, kind, Mode::from(0o644), makedev(device.0, device.1))
            .at("make node", Path::new(name))
    }

    /// So many directories, each in the one before, each with a file and a directory beside it. The deepest.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn chain(&self, depth: usize) -> Result<Self> {
        let mut here = self.dir("level-0000")?;
        for level in 1..depth {
            here.file("beside", "")?;
            here.dir("side")?.file("file", "")?;
            // Twelve bytes a level: 5,000 of them make a path of 60 KB.
            here = here.dir(format!("level-{level:05}"))?;
        }
        Ok(here)
    }

    /// So many directories, each with so many empty files and a subdirectory with one.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn grove(&self, directories: usize, files: usize) -> Result<()> {
        for directory in 0..directories {
            let dir = self.dir(format!("d{directory:05}"))?;
            for file in 0..files {
                dir.file(format!("f{file}"), "")?;
            }
            dir.dir("sub")?.file("g", "")?;
        }
        Ok(())
    }

    /// A directory for each [odd name](Self::odd_names), with a file of that name in it.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn odd(&self) -> Result<()> {
        for name in Self::odd_names() {
            self.dir(&name)?.file(&name, "")?;
        }
        Ok(())
    }

    /// Names that break what prints them, parses them, or takes them for text.
    pub fn odd_names() -> Vec<OsString> {
        let names: [&[u8]; 16] = [
            b"line\nbreak",
            b"\n",
            b"\r\n",
            b"escape\x1b[2J\x1b[31m",
            b"bell\x07\x08\x7f",
            b"\xff\xfe\xc0\x80",
            b"cut\xe2\x82",
            b"\xe2\x80\xaeright-to-left",
            b"-rf",
            b"--",
            b"...",
            b" ",
            b"back\\slash \\040",
            b"quote'\"`$(true)",
            b"*?[a]",
            b"{\"json\":",
        ];
        let long = [vec![b'x'; 255], vec![0xFF; 255], "é".repeat(127).into_bytes()];
        let names = names.map(<[u8]>::to_vec).into_iter().chain(long);
        names.map(OsString::from_vec).collect()
    }

    /// One of each kind of special file; their names.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn specials(&self) -> Result<Vec<&'static str>> {
        let kinds = [
            // Opening it for reading blocks until somebody writes.
            ("fifo", FileType::Fifo, (0, 0)),
            ("socket", FileType::Socket, (0, 0)),
            ("whiteout", FileType::CharacterDevice, (0, 0)),
            ("null", FileType::CharacterDevice, (1, 3)),
            // No driver has this number, the last of the old ones: opening it fails.
            ("nobody", FileType::CharacterDevice, (511, 1)),
            ("block", FileType::BlockDevice, (511, 1)),
        ];
        for (name, kind, device) in kinds {
            self.special(name, kind, device)?;
        }
        Ok(kinds.map(|(name, ..)| name).to_vec())
    }
}

/// A flag of chattr(1) that keeps a file from being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// `+i`.
    Immutable,
    /// `+a`.
    AppendOnly,
}

impl Flag {
    fn bit(self) -> IFlags {
        match self {
            Self::Immutable => IFlags::IMMUTABLE,
            Self::AppendOnly => IFlags::APPEND,
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Immutable => "immutable",
            Self::AppendOnly => "append-only",
        })
    }
}

/// The flags of a file or directory; none where the file system has no flags.
///
/// # Errors
/// If the kernel refuses.
pub fn flag_of(path: &Path) -> Result<Vec<Flag>> {
    let has = match ioctl_getflags(unblocked(path)?) {
        Ok(has) => has,
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => return Ok(Vec::new()),
        Err(error) => return Err(error).at("read flags of", path),
    };
    let all = [Flag::Immutable, Flag::AppendOnly].into_iter();
    Ok(all.filter(|flag| has.contains(flag.bit())).collect())
}

/// Puts a flag on a file or directory, or takes it off.
///
/// # Errors
/// If the kernel refuses.
pub fn set_flag(path: &Path, flag: Flag, on: bool) -> Result<()> {
    let file = unblocked(path)?;
    let mut flags = ioctl_getflags(&file).at("read flags of", path)?;
    flags.set(flag.bit(), on);
    ioctl_setflags(&file, flags).at("set flags of", path)
}

fn unblocked(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).at("open", path)
}

/// Sees whether somebody opens files.
#[derive(Debug)]
pub struct Opened(Inotify);

impl Opened {
    /// Watches these files.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn watch<'p>(files: impl IntoIterator<Item = &'p Path>) -> Result<Self> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .doing(|| "begin to watch files".to_owned())?;
        for file in files {
            let flags = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_DONT_FOLLOW;
            watch.add_watch(file, flags).at("watch", file)?;
        }
        Ok(Self(watch))
    }

    /// How often one of them was opened since.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn count(&self) -> Result<usize> {
        let mut count = 0;
        loop {
            match self.0.read_events() {
                Ok(events) => {
                    let opened = events
                        .iter()
                        .filter(|event| event.mask.contains(AddWatchFlags::IN_OPEN));
                    count += opened.count();
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok(count),
                Err(error) => return Err(error).doing(|| "read what was seen".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn an_opened_file_is_seen_and_a_removed_one_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        Dir::open(dir.path())
            .unwrap()
            .special("fifo", FileType::Fifo, (0, 0))
            .unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let paths = ["fifo", "file"].map(|name| dir.path().join(name));
        let watch = Opened::watch(paths.iter().map(AsRef::as_ref)).unwrap();
        fs::remove_file(&paths[0]).unwrap();
        assert_eq!(watch.count().unwrap(), 0);
        fs::File::open(&paths[1]).unwrap();
        assert_eq!(watch.count().unwrap(), 1);
    }

    #[test]
    fn odd_names_are_all_different_and_none_is_too_long() {
        let names: std::collections::BTreeSet<OsString> = Dir::odd_names().into_iter().collect();
        assert_eq!(names.len(), Dir::odd_names().len());
        assert!(
            names
                .iter()
                .all(|name| (1..=255).contains(&name.as_bytes().len()))
        );
    }
}
