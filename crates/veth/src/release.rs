//! Releasing a network namespace that only its mounts keep alive.

use std::os::fd::OwnedFd;
use std::path::Path;

use nodemend_evidence::Confirmed;
use nodemend_hostfs::FileId;
use nodemend_procns::NetnsId;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};

use crate::error::Error;
use crate::pair::VethPair;

/// Unmounts and removes each file that the namespace of a confirmed pair is mounted on. The kernel then ends the
/// namespace, and the pair goes with it, some time later.
///
/// The order is that of `ip netns del`: a lazy unmount here, then the unlink, which detaches the copies that other
/// mount namespaces have of this mount.
///
/// # Errors
/// At the first file that is not the namespace that was judged, or that cannot be released. Those before it are
/// released.
pub(crate) fn release(confirmed: &Confirmed<'_, VethPair>) -> Result<(), Error> {
    let pair = confirmed.subject();
    let Some(netns) = pair.netns else { return Ok(()) };
    pair.mounts().try_for_each(|path| release_file(path, netns))
}

fn release_file(path: &Path, netns: NetnsId) -> Result<(), Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::NotTheSame { path: path.to_owned(), reason: "it has no parent directory".to_owned() });
    };
    let failed = |what| move |errno: rustix::io::Errno| Error::Release { what, path: path.to_owned(), source: errno.into() };
    let parent: OwnedFd = rustix::fs::openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open its directory"))?;

    // The same namespace may be mounted on one path more than once; each unmount uncovers the next.
    let mut stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat"))?;
    if FileId::from(&stat) != netns {
        return Err(Error::NotTheSame { path: path.to_owned(), reason: "another thing is mounted there now".to_owned() });
    }
    while FileId::from(&stat) == netns {
        unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(failed("unmount"))?;
        stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("stat"))?;
    }
    // What is uncovered is the empty file that the mount needed. Anything else is not ours to remove.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size != 0 {
        let reason = "what was below the mount is not an empty file".to_owned();
        return Err(Error::NotTheSame { path: path.to_owned(), reason });
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(failed("remove"))
}
