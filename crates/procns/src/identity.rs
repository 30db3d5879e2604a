//! The identity of a file that may be on a file system which does not answer.

use std::os::fd::AsFd;

use nodemend_hostfs::FileId;
use rustix::fs::{AtFlags, StatxFlags, makedev, statat, statx};
use rustix::io::Errno;

/// Device and inode, from memory: statx(2) with `AT_STATX_DONT_SYNC` and no more asked for than the inode. FUSE and
/// NFS honour that (`fuse_update_get_attr` in fs/fuse/dir.c, `nfs_getattr` in fs/nfs/inode.c). Follows links, the last
/// one too. A kernel before 4.11 has no statx; there it is a stat.
pub(crate) fn identity(at: impl AsFd, path: &str) -> Result<FileId, Errno> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    match statx(&at, path, flags, StatxFlags::INO) {
        Ok(stat) => Ok(FileId {
            dev: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
        }),
        Err(Errno::NOSYS) => Ok(FileId::from(&statat(
            &at,
            path,
            AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH,
        )?)),
        Err(errno) => Err(errno),
    }
}
