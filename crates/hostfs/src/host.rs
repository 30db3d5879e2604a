//! Where the host's files are, and how to read them without harm.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Error;

/// The host that is looked at: the running one, or a tree that holds another one's files (`--root`).
///
/// Facts of the running kernel (processes, links, mounts) are evidence only for the running host:
/// ask [`Host::is_running`] before using them.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The running host.
    pub fn local() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    /// A tree that holds a host's files: a mounted disk, a fixture. Symlinks in it are resolved inside it.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// True if the kernel that runs this process is the host's own.
    pub fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where the root is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens `path` (absolute on the host) for reading. Never blocks on a FIFO and takes no terminal.
    ///
    /// # Errors
    /// What open(2) gives, with the path; [`Error::NoScopedOpen`] for another root on a kernel before 5.6.
    pub fn open(&self, path: &Path) -> Result<OwnedFd, Error> {
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Opens the directory `path` (absolute on the host) for listing and for calls relative to it.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub fn open_dir(&self, path: &Path) -> Result<OwnedFd, Error> {
        self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open_with(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Error> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = if self.is_running() {
            rustix::fs::openat(CWD, path, flags, Mode::empty())
        } else {
            let root = rustix::fs::open(
                &self.root,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| Error::io("open", &self.root)(e.into()))?;
            rustix::fs::openat2(
                &root,
                path,
                flags,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            )
        };
        opened.map_err(|errno| match errno {
            Errno::NOSYS if !self.is_running() => Error::NoScopedOpen {
                path: path.to_owned(),
            },
            errno => Error::io("open", path)(errno.into()),
        })
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Host::open`]; [`Error::NotAFile`], [`Error::TooLarge`].
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
        let fd = self.open(path)?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::io("stat", path)(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile {
                path: path.to_owned(),
            });
        }
        let mut bytes = Vec::new();
        File::from(fd)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge {
                path: path.to_owned(),
                limit,
            });
        }
        Ok(bytes)
    }

    /// The names in a directory, without `.` and `..`, sorted.
    ///
    /// # Errors
    /// As [`Host::open_dir`].
    pub fn list(&self, path: &Path) -> Result<Vec<OsString>, Error> {
        let fd = self.open_dir(path)?;
        let entries = rustix::fs::Dir::new(fd).map_err(|e| Error::io("list", path)(e.into()))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", path)(e.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_refused_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("10.88.0.9");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(
            Host::local().read(&fifo, 10),
            Err(Error::NotAFile { .. })
        ));
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_without_reading_it_all() {
        let dir = tempfile::tempdir().unwrap();
        let sparse = dir.path().join("terabyte");
        File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(
            Host::local().read(&sparse, 4096),
            Err(Error::TooLarge { .. })
        ));
    }

    #[test]
    fn links_in_another_root_stay_inside_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/inside"), "inside").unwrap();
        std::os::unix::fs::symlink("/etc/inside", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root/etc/hosts", root.path().join("out")).unwrap();
        let host = Host::at(root.path());
        assert_eq!(host.read(Path::new("/link"), 100).unwrap(), b"inside");
        assert!(host.read(Path::new("/out"), 100).unwrap_err().is_not_found());
    }
}
