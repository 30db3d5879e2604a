//! Reading a directory of small files without following links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::problem::Problem;

/// The most that is read of any file of CNI, in bytes. Real ones have a few thousand.
pub(crate) const LIMIT: u64 = 1 << 20;

/// One file of a directory, opened and read.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) id: FileId,
    pub(crate) stat: Stat,
    pub(crate) bytes: Vec<u8>,
}

impl Opened {
    /// Seconds since 1970.
    pub(crate) fn mtime(&self) -> u64 {
        u64::try_from(self.stat.st_mtime).unwrap_or_default()
    }
}

/// Opens the regular file `name` of an open directory, never through a link, and reads at most [`LIMIT`] bytes.
pub(crate) fn read_at(dir: impl AsFd, name: &OsStr) -> io::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::from(fd).take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other(format!(
            "larger than {LIMIT} bytes, which no such file should be"
        )));
    }
    Ok(Opened {
        id: FileId::from(&stat),
        stat,
        bytes,
    })
}

/// Every file of a directory, in the order of names, with its path on the host. What vanishes meanwhile is left out.
/// A directory that is not there holds nothing.
pub(crate) fn each(
    host: &Host,
    dir: &Path,
    problems: &mut Vec<Problem>,
    mut visit: impl FnMut(PathBuf, &str, Opened),
) {
    let (fd, names) = match open_dir(host, dir) {
        Ok(opened) => opened,
        Err(error) if error.is_not_found() => return,
        Err(error) => {
            problems.push(Problem::new(dir, error.to_string()));
            return;
        }
    };
    for name in names {
        let path = dir.join(&name);
        let Some(text) = name.to_str() else {
            problems.push(Problem::new(
                &path,
                "its name is not UTF-8, so no CNI plugin made it",
            ));
            continue;
        };
        match read_at(&fd, &name) {
            Ok(opened) => visit(path, text, opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => problems.push(Problem::new(&path, error.to_string())),
        }
    }
}

/// The directory is opened before it is listed, so that names and files are of the same one, or of none.
fn open_dir(host: &Host, dir: &Path) -> Result<(OwnedFd, Vec<OsString>), nodemend_hostfs::Error> {
    let fd = host.open_dir(dir)?;
    Ok((fd, host.list(dir)?))
}
