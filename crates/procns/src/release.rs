//! Releasing a network namespace: its file goes, with the mounts on it. The kernel then ends the namespace, if nothing else
//! holds it, and the veth pairs that lead into it go with it, some time later.
//!
//! Nothing here knows whether a namespace may go: that is the caller's proof. What is made sure of is that the file is the
//! one of this namespace, when it is looked at last.
//!
//! A file goes in one step from a [`Room`], so that a run that is killed leaves it whole or not at all. Where the kernel is
//! too old for that, [`on_host`] does it in two.

mod room;

use std::os::fd::OwnedFd;
use std::path::Path;

use nodemend_hostfs::FileId;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::census::NetnsId;
use crate::error::ReleaseError;

pub use room::{Room, within};

/// Removes the file `path` on which the namespace is mounted, from a room of its own where there can be one.
///
/// # Errors
/// If something else stands there, or is mounted there as well; or what the kernel says.
pub fn release(path: &Path, netns: NetnsId) -> Result<(), ReleaseError> {
    let done = within(vec![()], |room, ()| {
        room.map_or(Ok(false), |mut room| room.remove(path, netns))
    })?;
    for done in done {
        if !done? {
            on_host(path, netns)?;
        }
    }
    Ok(())
}

/// Through the main thread's root: a room does not see what is mounted on the host from its making on.
fn check(path: &Path, netns: NetnsId) -> Result<(), ReleaseError> {
    let host = Path::new("/proc/self/root").join(path.strip_prefix("/").unwrap_or(path));
    let stat = rustix::fs::lstat(&host).map_err(failed("stat", path))?;
    if FileId::from(&stat) == netns {
        return Ok(());
    }
    Err(not_the_same(path, "another thing is mounted there now"))
}

/// The same from the host's own mount namespace, in the order of `ip netns del`: a lazy unmount, then the unlink, which
/// detaches the copies that other mount namespaces have of this mount.
///
/// # Errors
/// As [`release`].
pub fn on_host(path: &Path, netns: NetnsId) -> Result<(), ReleaseError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(not_the_same(path, "it has no parent directory"));
    };
    let parent: OwnedFd = rustix::fs::openat(
        CWD,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed("open its directory", path))?;

    // The same namespace may be mounted on one path more than once; each unmount uncovers the next.
    let look = || rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat", path));
    let mut stat = look()?;
    if FileId::from(&stat) != netns {
        return Err(not_the_same(path, "another thing is mounted there now"));
    }
    while FileId::from(&stat) == netns {
        unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(failed("unmount", path))?;
        stat = look()?;
    }
    if !is_mountpoint_file(&stat) {
        return Err(not_the_same(
            path,
            "what was below the mount is not an empty file",
        ));
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(failed("remove", path))
}

/// True for the empty file that a namespace's mount needs. Anything else is not ours to remove.
fn is_mountpoint_file(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0
}

fn not_the_same(path: &Path, reason: &str) -> ReleaseError {
    ReleaseError::NotTheSame {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> ReleaseError {
    let path = path.to_owned();
    move |errno| ReleaseError::Io {
        what,
        path,
        source: errno.into(),
    }
}
