//! Where a tree is: on which file system, and where in it. Unlike a path, that is the same in every mount namespace.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use nodemend_hostfs::mountinfo::Mount;
use nodemend_rmtree::Tree;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

/// A file system, and a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The device number of the mount table.
    pub(crate) dev: (u32, u32),
    /// The path from the root of the file system.
    pub(crate) path: PathBuf,
}

/// The mount that a tree lies on.
pub(crate) fn mount_of<'m>(tree: &Tree, mounts: &'m [Mount]) -> Option<&'m Mount> {
    // Since Linux 3.15; before it, the last of the longest mount points, which is wrong only below a hidden mount.
    let by_id = mount_id(tree.dir()).and_then(|id| mounts.iter().find(|mount| mount.id == id));
    by_id.or_else(|| {
        mounts
            .iter()
            .filter(|mount| tree.path().starts_with(&mount.mountpoint))
            .max_by_key(|mount| mount.mountpoint.components().count())
    })
}

fn mount_id(dir: BorrowedFd<'_>) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", dir.as_raw_fd())).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    id.trim().parse().ok()
}

/// Where a path on a mount is.
pub(crate) fn position(path: &Path, mount: &Mount) -> Option<Position> {
    let below = path.strip_prefix(&mount.mountpoint).ok()?;
    Some(Position {
        dev: mount.dev,
        path: mount.root.join(below),
    })
}

/// Whether a directory is `ancestor` or lies in it: up by `..` to the root, comparing what each directory is, not what it
/// is called.
pub(crate) fn lies_in(dir: impl AsFd, ancestor: FileId) -> Result<bool, Errno> {
    let identity = |dir: BorrowedFd<'_>| rustix::fs::fstat(dir).map(|stat| FileId::from(&stat));
    let up = |dir: BorrowedFd<'_>| {
        openat(
            dir,
            c"..",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let mut here = identity(dir.as_fd())?;
    let mut above: OwnedFd = up(dir.as_fd())?;
    loop {
        if here == ancestor {
            return Ok(true);
        }
        let next = identity(above.as_fd())?;
        if next == here {
            return Ok(false);
        }
        here = next;
        above = up(above.as_fd())?;
    }
}

/// Opens a directory without touching it, symlinks followed.
pub(crate) fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_lies_in_its_ancestors_whatever_the_way_to_it() {
        let scratch = tempfile::tempdir().unwrap();
        let deep = scratch.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir(scratch.path().join("c")).unwrap();
        std::os::unix::fs::symlink(&deep, scratch.path().join("c/link")).unwrap();
        let id = |path: &str| FileId::of(open_path(&scratch.path().join(path)).unwrap()).unwrap();
        let by_link = open_path(&scratch.path().join("c/link")).unwrap();
        assert_eq!(lies_in(&by_link, id("a")), Ok(true));
        assert_eq!(lies_in(&by_link, id("a/b")), Ok(true));
        assert_eq!(lies_in(&by_link, id("c")), Ok(false));
    }
}
