//! The root directory: which one it is, on what it lies, and who owns it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;
use nodemend_hostfs::{Error, FileId, Host, descent};
use rustix::fs::{Mode, OFlags, StatVfs, fgetxattr, fstat, fstatvfs, openat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The root directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootFacts {
    /// Where it is, links resolved: the directory that would be renamed.
    pub path: PathBuf,
    /// Which directory it is.
    pub id: FileId,
    /// The id of the mount that it lies on.
    pub mount_id: u64,
    /// True if something is mounted on it: then it cannot be renamed.
    pub is_mount_point: bool,
    /// The type of its file system.
    pub filesystem: String,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permission bits, with those above them.
    pub mode: u32,
    /// `security.selinux`, if it has one.
    pub selinux: Option<String>,
    /// Bytes that root may still write on its file system.
    pub free_bytes: u64,
    /// The size of its file system in bytes.
    pub total_bytes: u64,
    /// Inodes that are free; None if the file system does not count them.
    pub free_inodes: Option<u64>,
    /// All inodes; None if the file system does not count them.
    pub total_inodes: Option<u64>,
}

/// Looks at the directory that stands at a path, links followed. None if there is none.
///
/// # Errors
/// Why it cannot be looked at, in words.
pub(super) fn facts(host: &Host, path: &Path, mounts: &[Mount]) -> Result<Option<RootFacts>, String> {
    let dir = match host.open_dir(path) {
        Ok(dir) => dir,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let told =
        |what: &'static str| move |errno: rustix::io::Errno| format!("{}: {what}: {errno}", path.display());
    let stat = fstat(&dir).map_err(told("stat"))?;
    let vfs = fstatvfs(&dir).map_err(told("statfs"))?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    let real = real.map_err(|error| Error::Io {
        what: "resolve",
        path: path.to_owned(),
        source: error,
    });
    let real = real.map_err(|error| error.to_string())?;
    let mount_id =
        descent::mount_id(dir.as_fd()).ok_or("this kernel does not tell on which mount it lies")?;
    let mount = mounts.iter().find(|mount| mount.id == mount_id);
    Ok(Some(RootFacts {
        id: FileId::from(&stat),
        mount_id,
        is_mount_point: is_mount_point(dir.as_fd(), mount_id).map_err(told("look at its parent"))?,
        filesystem: mount.map_or_else(|| "unknown".to_owned(), |mount| mount.fstype.clone()),
        owner: (stat.st_uid, stat.st_gid),
        mode: stat.st_mode & 0o7777,
        selinux: selinux(dir.as_fd()),
        free_bytes: vfs.f_bfree.saturating_mul(vfs.f_frsize),
        total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
        free_inodes: counted(&vfs).then_some(vfs.f_ffree),
        total_inodes: counted(&vfs).then_some(vfs.f_files),
        path: real,
    }))
}

/// btrfs has no number of inodes.
fn counted(vfs: &StatVfs) -> bool {
    vfs.f_files > 0
}

/// True if its parent lies on another mount. A device number would not tell a bind mount.
fn is_mount_point(dir: BorrowedFd<'_>, mount: u64) -> Result<bool, rustix::io::Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat(dir, c"..", flags, Mode::empty())?;
    Ok(descent::mount_id(parent.as_fd()).is_some_and(|parent| parent != mount))
}

fn selinux(dir: BorrowedFd<'_>) -> Option<String> {
    let mut label = [0; 1024];
    let length = fgetxattr(dir, c"security.selinux", &mut label[..]).ok()?;
    let label = label.get(..length)?;
    let label = label.strip_suffix(b"\0").unwrap_or(label);
    Some(String::from_utf8_lossy(label).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nodemend_hostfs::mountinfo;

    use super::*;

    fn look(path: &Path) -> Option<RootFacts> {
        let mounts = mountinfo::of_process(&Host::local(), std::process::id()).unwrap();
        facts(&Host::local(), path, &mounts).unwrap()
    }

    #[test]
    fn a_link_is_resolved_and_the_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().canonicalize().unwrap().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o711)).unwrap();
        symlink(&data, dir.path().join("containerd")).unwrap();
        let found = look(&dir.path().join("containerd")).unwrap();
        assert_eq!(
            (found.path, found.mode, found.is_mount_point),
            (data, 0o711, false)
        );
        assert!(found.total_bytes >= found.free_bytes && found.filesystem != "unknown");
        assert_eq!(look(&dir.path().join("none")), None);
    }

    #[test]
    fn a_mount_point_is_told_by_its_mount() {
        let found = look(Path::new("/proc")).unwrap();
        assert!(found.is_mount_point);
        assert_eq!(found.filesystem, "proc");
    }
}
