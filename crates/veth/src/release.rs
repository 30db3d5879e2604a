//! Releasing a network namespace that only its mounts keep alive.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use nodemend_evidence::Confirmed;
use nodemend_hostfs::FileId;
use nodemend_procns::NetnsId;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::error::Error;
use crate::pair::VethPair;
use crate::private::Room;

/// Removes each file that the namespace of a confirmed pair is mounted on, and with it the mounts. The kernel then
/// ends the namespace, and the pair goes with it, some time later.
///
/// Each file goes in one step ([`crate::private`]): a run that is killed leaves it whole or not at all. False if this
/// kernel cannot do that; then [`on_host`] can.
///
/// # Errors
/// At the first file that is not the namespace that was judged, or that cannot be released. Those before it are
/// released.
pub(crate) fn in_room(confirmed: &Confirmed<'_, VethPair>, room: &mut Room) -> Result<bool, Error> {
    for (path, netns) in files(confirmed.subject()) {
        // Through the main thread's root: the room does not see what is mounted on the host from now on.
        let host = Path::new("/proc/self/root").join(path.strip_prefix("/").unwrap_or(path));
        let stat = rustix::fs::lstat(&host).map_err(failed("stat", path))?;
        if FileId::from(&stat) != netns {
            return Err(not_the_same(path, "another thing is mounted there now"));
        }
        if !room.remove(path, netns)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same from the host's own mount namespace, in the order of `ip netns del`: a lazy unmount, then the unlink, which
/// detaches the copies that other mount namespaces have of this mount.
///
/// # Errors
/// As [`in_room`].
pub(crate) fn on_host(confirmed: &Confirmed<'_, VethPair>) -> Result<(), Error> {
    files(confirmed.subject()).try_for_each(|(path, netns)| in_two_steps(path, netns))
}

/// Each file once. A path that is there twice has a copy of the mount hidden below another mount.
fn files(pair: &VethPair) -> impl Iterator<Item = (&Path, NetnsId)> {
    let mut done = HashSet::new();
    let paths = pair.mounts().filter(move |path| done.insert(path.to_path_buf()));
    paths.filter_map(|path| Some((path, pair.netns?)))
}

fn in_two_steps(path: &Path, netns: NetnsId) -> Result<(), Error> {
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
pub(crate) fn is_mountpoint_file(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0
}

pub(crate) fn not_the_same(path: &Path, reason: &str) -> Error {
    Error::NotTheSame {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(crate) fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error::Release {
        what,
        path,
        source: errno.into(),
    }
}
