//! Removing a netns file in one step, with what is mounted on it.
//!
//! The kernel refuses to remove a file on which something is mounted in the caller's mount namespace. In any other
//! mount namespace it does remove it, and in the same call takes off what is mounted on it everywhere (Linux 3.18 and
//! later). So the file is uncovered in a private mount namespace, which ends with its thread, and removed from there.
//!
//! - A run that is killed leaves the file with its mounts, or neither: never a file that tells nothing any more.
//! - Mounts go that no path leads to. The first `ip netns add` of a boot binds /run/netns onto itself: what a runtime
//!   had mounted there before is copied into the new mount, and the originals stay below it and keep the namespace.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nodemend_hostfs::FileId;
use nodemend_hostfs::mountinfo::{self, Mount};
use rustix::io::Errno;

use super::{check, failed, is_mountpoint_file, not_the_same};
use crate::census::NetnsId;
use crate::error::ReleaseError;

/// No path has as many mounts on top of each other; a loop must end.
const MOST: usize = 64;

/// A mount namespace of this thread's own, a copy of the host's. Nothing that is mounted or unmounted in it is seen
/// elsewhere, nor the other way round.
#[derive(Debug)]
pub struct Room {
    /// What is mounted where. Only this thread changes it.
    mounts: HashMap<PathBuf, Vec<Option<u64>>>,
}

/// Does the work on each share in a private mount namespace of its own, on threads that end with them. No room is given
/// to the work where there can be none: no right to make one. As a room has a copy of every mount, no file system that is
/// unmounted meanwhile ends before the rooms do.
///
/// # Errors
/// If a thread cannot be started.
pub fn within<X: Send, T: Send>(
    shares: Vec<X>,
    work: impl Fn(Option<Room>, X) -> T + Sync,
) -> Result<Vec<T>, ReleaseError> {
    let work = &work;
    std::thread::scope(|scope| {
        let spawn = |share| {
            let worker = std::thread::Builder::new().name("private mounts".into());
            worker
                .spawn_scoped(scope, move || work(Room::enter(), share))
                .map_err(ReleaseError::Thread)
        };
        let workers = shares.into_iter().map(spawn).collect::<Result<Vec<_>, _>>()?;
        let join = |worker: std::thread::ScopedJoinHandle<'_, T>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        Ok(workers.into_iter().map(join).collect())
    })
}

impl Room {
    fn enter() -> Option<Self> {
        let none = None::<&Path>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        unshare(CloneFlags::CLONE_NEWNS).ok()?;
        mount(none, Path::new("/"), none, private, none).ok()?;
        let mut room = Self {
            mounts: HashMap::new(),
        };
        room.look().ok()?;
        Some(room)
    }

    fn look(&mut self) -> Result<(), ReleaseError> {
        self.mounts.clear();
        for mount in mounts()? {
            let netns = mount.netns_inode();
            self.mounts.entry(mount.mountpoint).or_default().push(netns);
        }
        Ok(())
    }

    /// Removes `path`, an empty file on which nothing but this namespace is mounted, and with it the mounts. False if the
    /// kernel is too old for that; then nothing was changed, and [`on_host`](super::on_host) can do it.
    ///
    /// # Errors
    /// If something else stands there, or is mounted there as well; or what the kernel says.
    pub fn remove(&mut self, path: &Path, netns: NetnsId) -> Result<bool, ReleaseError> {
        check(path, netns)?;
        let alone = self
            .mounts
            .get(path)
            .is_some_and(|here| *here == [Some(netns.ino)]);
        if alone {
            uncover_one(path, netns)?;
        } else {
            uncover(path, netns)?;
            self.look()?;
        }
        self.mounts.remove(path);
        match rustix::fs::unlink(path) {
            Ok(()) => Ok(true),
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(failed("remove", path)(errno)),
        }
    }
}

/// The plain case: one mount on the file, and nothing over it.
fn uncover_one(path: &Path, netns: NetnsId) -> Result<(), ReleaseError> {
    let look = || rustix::fs::lstat(path).map_err(failed("stat", path));
    if FileId::from(&look()?) != netns {
        return Err(not_the_same(path, "another thing is mounted there now"));
    }
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    umount2(path, flags).map_err(|errno| failed("unmount", path)(in_rustix(errno)))?;
    if is_mountpoint_file(&look()?) {
        return Ok(());
    }
    Err(not_the_same(
        path,
        "what was below the mount is not an empty file",
    ))
}

/// Takes off, in this thread's mount namespace, whatever is mounted on `path`, and what hides that. What then stands
/// there must be the file that stood there all along.
fn uncover(path: &Path, netns: NetnsId) -> Result<(), ReleaseError> {
    let mut file = None;
    for _ in 0..MOST {
        let mounts = mounts()?;
        let mut here = mounts.iter().filter(|mount| mount.mountpoint == path).peekable();
        let last = here.peek().is_none();
        // Removing the file takes everything off it, so nobody else's may be among it.
        if here.any(|mount| mount.netns_inode() != Some(netns.ino)) {
            return Err(not_the_same(
                path,
                "another thing is mounted there as well, out of sight",
            ));
        }
        let stat = rustix::fs::lstat(path).map_err(failed("stat", path))?;
        let id = FileId::from(&stat);
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        if id == netns {
            umount2(path, flags).map_err(|errno| failed("unmount", path)(in_rustix(errno)))?;
            continue;
        }
        if !is_mountpoint_file(&stat) || *file.get_or_insert(id) != id {
            return Err(not_the_same(
                path,
                "what was below the mount is not an empty file",
            ));
        }
        if last {
            return Ok(());
        }
        let Some(cover) = cover_of(path, &mounts) else {
            break;
        };
        umount2(&cover, flags).map_err(|errno| failed("uncover", &cover)(in_rustix(errno)))?;
    }
    Err(not_the_same(path, "what is mounted there cannot be uncovered"))
}

/// The innermost mount above `path`: what hides a mount on it.
fn cover_of(path: &Path, mounts: &[Mount]) -> Option<PathBuf> {
    let above = mounts
        .iter()
        .map(|mount| mount.mountpoint.as_path())
        .filter(|point| path.starts_with(point));
    let above = above.filter(|point| *point != path && *point != Path::new("/"));
    above
        .max_by_key(|point| point.components().count())
        .map(Path::to_owned)
}

fn mounts() -> Result<Vec<Mount>, ReleaseError> {
    let table = Path::new("/proc/thread-self/mountinfo");
    let read = |source| ReleaseError::Io {
        what: "read",
        path: table.to_owned(),
        source,
    };
    Ok(mountinfo::parse(&std::fs::read(table).map_err(read)?)?)
}

fn in_rustix(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}
