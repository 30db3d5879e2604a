//! One step down, by one name, that stays on the mount.
//!
//! Device numbers do not see a bind mount of the same file system; mount ids do. `openat2` refuses to cross a mount by
//! itself (Linux 5.6). Before that, the mount id of what was opened is compared with that of the root: from statx (5.8, but
//! openat2 may be forbidden where statx is not), from `/proc/self/fdinfo` (3.15), or from `name_to_handle_at` (2.6.39). An id
//! is not used again while the root is held open.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::handle::mount_id_by_handle;

/// How directories are opened here.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC);

/// A directory, opened for lookups only: nobody on the other side of a mount is asked anything.
const LOOKUP: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Anything, opened for lookups only.
const ENTRY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The way down that this kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// The kernel refuses to cross.
    Openat2,
    /// The mount id is compared afterwards.
    Compared(MountId, u64),
}

/// Where a mount id is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountId {
    /// statx(2). Asks the file system too.
    Statx,
    /// `/proc/self/fdinfo`. Asks nothing but the kernel's own tables: for a file system that may not answer.
    Fdinfo,
    /// name_to_handle_at(2).
    Handle,
}

impl Descent {
    /// The best way that works at this directory; None if there is none.
    pub fn from(home: BorrowedFd<'_>) -> Option<Self> {
        // Some filters answer EPERM, others ENOSYS: only an open that works counts.
        if open_with(home, c".", LOOKUP, BENEATH).is_ok() {
            return Some(Self::Openat2);
        }
        MountId::ALL
            .into_iter()
            .find_map(|source| Some(Self::Compared(source, source.of(home).ok()?)))
    }

    /// Opens the directory that a name stands for.
    ///
    /// # Errors
    /// `XDEV` if something is mounted there, `NOTDIR` or `LOOP` if it is no directory.
    pub fn down(self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        match self {
            Self::Openat2 => own_or_not(|flags| open_with(dir, name, flags, BENEATH)),
            Self::Compared(..) => self.compared(dir, name),
        }
    }

    /// As [`down`](Self::down), for lookups in it only (`O_PATH`).
    ///
    /// # Errors
    /// As of [`down`](Self::down).
    pub fn lookup(self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
        self.by_path(dir, name, LOOKUP, MountId::of)
    }

    /// Opens whatever a name stands for, as `O_PATH`: a file, a device, a symlink itself. Nothing that is mounted there is
    /// asked: a file system whose server is gone never answers.
    ///
    /// # Errors
    /// `XDEV` if something is mounted there.
    pub fn entry(self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
        // statx would ask the file system.
        self.by_path(dir, name, ENTRY, |_, entry| MountId::Fdinfo.of(entry))
    }

    fn by_path(
        self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        flags: OFlags,
        mount_of: impl Fn(MountId, BorrowedFd<'_>) -> Result<u64, Errno>,
    ) -> Result<OwnedFd, Errno> {
        let Self::Compared(source, home) = self else {
            return open_with(dir, name, flags, BENEATH);
        };
        let opened = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        match mount_of(source, opened.as_fd())? == home {
            true => Ok(opened),
            false => Err(Errno::XDEV),
        }
    }

    /// Opens the directory that this one is in now. The caller compares what it is.
    ///
    /// # Errors
    /// `XDEV` if that is on another mount.
    pub fn up(self, dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let stay = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        match self {
            Self::Openat2 => own_or_not(|flags| open_with(dir, c"..", flags, stay)),
            Self::Compared(..) => self.compared(dir, c".."),
        }
    }

    fn compared(self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        let Self::Compared(source, home) = self else {
            return Err(Errno::INVAL);
        };
        let opened = own_or_not(|flags| rustix::fs::openat(dir, name, flags, Mode::empty()))?;
        // A look that failed for want of descriptors is no mount: the caller closes some and tries again.
        if source.of(opened.as_fd())? == home {
            Ok(opened)
        } else {
            Err(Errno::XDEV)
        }
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::NO_SYMLINKS);

fn open_with(
    dir: BorrowedFd<'_>,
    name: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // EAGAIN: something was renamed or mounted while the kernel went up; openat2(2) says to try again.
    for _ in 0..128 {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// `O_NOATIME` saves a write for each directory, and is for its owner and root only.
fn own_or_not(open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    match open(DIRECTORY) {
        Err(Errno::PERM) => open(DIRECTORY.difference(OFlags::NOATIME)),
        other => other,
    }
}

/// The id of the mount on which an open file lies, from whatever tells it.
pub fn mount_id(file: BorrowedFd<'_>) -> Option<u64> {
    MountId::ALL.into_iter().find_map(|source| source.of(file).ok())
}

impl MountId {
    const ALL: [Self; 3] = [Self::Statx, Self::Fdinfo, Self::Handle];

    /// The id of the mount on which an open file lies.
    ///
    /// # Errors
    /// What the call gives; `NOSYS` if this source does not tell it here.
    pub fn of(self, dir: BorrowedFd<'_>) -> Result<u64, Errno> {
        match self {
            Self::Statx => {
                let stat = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
                let has = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
                has.then_some(stat.stx_mnt_id).ok_or(Errno::NOSYS)
            }
            Self::Fdinfo => fdinfo(dir),
            Self::Handle => mount_id_by_handle(dir, c"")
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::NOSYS)),
        }
    }
}

/// The `mnt_id` line of `/proc/self/fdinfo/FD`, if `/proc` is a procfs.
fn fdinfo(dir: BorrowedFd<'_>) -> Result<u64, Errno> {
    let proc = procfs()?;
    let path = format!("self/fdinfo/{}", dir.as_raw_fd());
    let info = rustix::fs::openat(&proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [0; 512];
    let length = rustix::io::read(&info, &mut buffer)?;
    let text = std::str::from_utf8(&buffer[..length]).map_err(|_| Errno::NOSYS)?;
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or(Errno::NOSYS)
}

/// The directory behind a descriptor, which may be an `O_PATH` one, opened for reading. `.` crosses nothing.
///
/// # Errors
/// What openat(2) gives.
pub fn reopened(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::empty())
}

/// `/proc`, if that is a procfs.
///
/// # Errors
/// `NOSYS` if it is none; else what open(2) gives.
pub fn procfs() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
    if rustix::fs::fstatfs(&proc)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
        Ok(proc)
    } else {
        Err(Errno::NOSYS)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::fs::File;

    use nodemend_lab::disk::{Format, Ground};

    use super::*;

    #[test]
    fn each_way_finds_what_is_there_and_refuses_what_is_mounted() {
        let ground = Ground::enter().unwrap();
        let top = ground.directory().unwrap();
        for name in ["dir", "covered", "other"] {
            std::fs::create_dir(top.join(name)).unwrap();
        }
        for name in ["file", "bound"] {
            std::fs::write(top.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("dir", top.join("link")).unwrap();
        rustix::mount::mount_bind(top.join("other"), top.join("covered")).unwrap();
        rustix::mount::mount_bind(top.join("file"), top.join("bound")).unwrap();
        let home = File::open(&top).unwrap();
        let compared = |source: MountId| Descent::Compared(source, source.of(home.as_fd()).unwrap());
        let ways = MountId::ALL
            .map(compared)
            .into_iter()
            .chain(Descent::from(home.as_fd()));
        for way in ways {
            let lookup = |name: &str| way.lookup(home.as_fd(), OsStr::new(name)).map(drop);
            let entry = |name: &str| way.entry(home.as_fd(), OsStr::new(name)).map(drop);
            assert_eq!(lookup("dir"), Ok(()), "{way:?}");
            for (name, errno) in [
                ("covered", Errno::XDEV),
                ("file", Errno::NOTDIR),
                ("nobody", Errno::NOENT),
            ] {
                assert_eq!(lookup(name), Err(errno), "{way:?} {name}");
            }
            assert!(
                matches!(lookup("link"), Err(Errno::LOOP | Errno::NOTDIR)),
                "{way:?}"
            );
            for name in ["dir", "file", "link"] {
                assert_eq!(entry(name), Ok(()), "{way:?} {name}");
            }
            for name in ["covered", "bound"] {
                assert_eq!(entry(name), Err(Errno::XDEV), "{way:?} {name}");
            }
        }
    }

    #[test]
    fn all_sources_of_a_mount_id_agree() {
        let ground = Ground::enter().unwrap();
        for format in Format::ALL {
            let disk = ground.disk(format, 320).unwrap();
            for (name, flags) in [("dir", DIRECTORY), ("file", OFlags::PATH)] {
                let path = disk.join(name);
                match name {
                    "dir" => std::fs::create_dir(&path).unwrap(),
                    _ => drop(File::create(&path).unwrap()),
                }
                let opened = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
                let ids = MountId::ALL.map(|source| source.of(opened.as_fd()).unwrap());
                assert_eq!(ids, [ids[0]; 3], "{format:?} {name}");
                assert_eq!(mount_id(opened.as_fd()), Some(ids[0]));
            }
        }
    }
}
