//! Unmounting what containerd mounted below its root: the deepest first, never lazily, never by force.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_hostfs::{Host, descent::mount_id};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::holders;
use crate::error::Error;

/// How often the table is read again while something is still mounted.
const ROUNDS: usize = 8;

/// containerd mounts here while it unpacks an image (`mount.SetTempMountLocation`, `cmd/containerd/server/server.go`); a
/// crash leaves the mount.
const TEMPORARY: &str = "tmpmounts";

/// What is mounted below the root, as the table has it.
pub(crate) fn below(root: &Path) -> Result<Vec<Mount>, Error> {
    let mut mounts = mountinfo::of_process(&Host::local(), std::process::id())?;
    mounts.retain(|mount| mount.mountpoint.starts_with(root) && mount.mountpoint != root);
    Ok(mounts)
}

/// Whether containerd made a mount: its temporary ones, overlays whose layers are its own, and what lies in those. Anything
/// else below the root is somebody's: a disk for a snapshotter, say.
pub(crate) fn is_containerds(mount: &Mount, root: &Path) -> bool {
    let Ok(below) = mount.mountpoint.strip_prefix(root) else {
        return false;
    };
    let mut names = below.iter();
    if names.next().is_some_and(|name| name == TEMPORARY) && names.next().is_some() {
        return true;
    }
    mount.fstype == "overlay" && layers_are_in(mount, root)
}

/// Whether the upper directory of an overlay lies in the root, or without one all lower ones.
fn layers_are_in(mount: &Mount, root: &Path) -> bool {
    let options = mount.options.to_string_lossy();
    let of = |key: &str| {
        options
            .split(',')
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    };
    match (of("upperdir"), of("lowerdir")) {
        (Some(upper), _) => Path::new(upper).starts_with(root),
        (None, Some(lower)) => lower.split(':').all(|layer| Path::new(layer).starts_with(root)),
        (None, None) => false,
    }
}

/// Unmounts everything below the root, if all of it is containerd's own.
///
/// # Errors
/// [`Error::Unfit`] for somebody else's mount (then nothing was unmounted), and for a busy one, with who holds it.
pub(crate) fn all(root: &Path) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for _ in 0..ROUNDS {
        let mounts = below(root)?;
        if mounts.is_empty() {
            if said.is_empty() {
                said.push("nothing is mounted below the root".to_owned());
            }
            return Ok(said);
        }
        if let Some(alien) = mounts.iter().find(|mount| !is_containerds(mount, root)) {
            return Err(not_containerds(alien));
        }
        for mount in deepest_first(mounts) {
            if one(&mount)? {
                said.push(format!("unmounted {}", mount.mountpoint.display()));
            }
        }
    }
    Err(Error::Unfit(format!(
        "{}: somebody mounts something below it again and again",
        root.display()
    )))
}

pub(crate) fn not_containerds(mount: &Mount) -> Error {
    Error::Unfit(format!(
        "{}: {} {} is mounted here, and containerd does not do that; unmount it, and mount it again after the run",
        mount.mountpoint.display(),
        mount.fstype,
        mount.source.to_string_lossy()
    ))
}

/// A mount comes after all that are mounted on it; a later one of the table first.
fn deepest_first(mut left: Vec<Mount>) -> Vec<Mount> {
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let parents: HashSet<u64> = left.iter().map(|mount| mount.parent).collect();
        let (stay, mut leaves): (Vec<Mount>, Vec<Mount>) =
            left.into_iter().partition(|mount| parents.contains(&mount.id));
        leaves.reverse();
        if leaves.is_empty() {
            // No table has a circle.
            order.extend(stay);
            break;
        }
        order.append(&mut leaves);
        left = stay;
    }
    order
}

/// Unmounts one. False if it is gone already. What is mounted there now must be the mount of the table: its id is compared,
/// by a file that is closed before the call.
fn one(mount: &Mount) -> Result<bool, Error> {
    let path = &mount.mountpoint;
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above =
        openat(CWD, above, flags | OFlags::DIRECTORY, Mode::empty()).map_err(Error::io("open", above))?;
    match openat(&above, name, flags, Mode::empty()) {
        Ok(there) if mount_id(there.as_fd()) == Some(mount.id) => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(Error::io("open", path)(errno)),
    }
    let mut place = OsString::from(format!("/proc/self/fd/{}/", above.as_raw_fd()));
    place.push(name);
    match rustix::mount::unmount(place.as_os_str(), UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(Errno::BUSY) => Err(Error::Unfit(format!(
            "{}: busy: {}",
            path.display(),
            holders::of(path, mount.id)
        ))),
        Err(errno) => Err(Error::io("unmount", path)(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: u64, parent: u64, at: &str, fstype: &str, options: &str) -> Mount {
        Mount {
            id,
            parent,
            dev: (0, 50),
            root: "/".into(),
            mountpoint: at.into(),
            fstype: fstype.into(),
            source: "source".into(),
            options: options.into(),
        }
    }

    #[test]
    fn containerds_own_mounts_are_told_from_somebodys_disk() {
        let root = Path::new("/var/lib/containerd");
        let snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let layers = |upper: &str| format!("rw,lowerdir={snapshots}/1/fs,upperdir={upper},workdir=/w");
        for (at, fstype, options, ours) in [
            (
                "/var/lib/containerd/tmpmounts/containerd-mount1",
                "overlay",
                "rw",
                true,
            ),
            ("/var/lib/containerd/tmpmounts", "tmpfs", "rw", false),
            ("/var/lib/containerd/tmpmounts/a/b", "ext4", "rw", true),
            (
                "/var/lib/containerd/io.containerd.content.v1.content",
                "ext4",
                "rw",
                false,
            ),
            (
                "/var/lib/containerd/io.containerd.snapshotter.v1.zfs",
                "zfs",
                "rw",
                false,
            ),
            (
                "/var/lib/containerd/x/rootfs",
                "overlay",
                &layers(&format!("{snapshots}/9/fs")),
                true,
            ),
            (
                "/var/lib/containerd/x/rootfs",
                "overlay",
                &layers("/srv/upper"),
                false,
            ),
            (
                "/var/lib/containerd/x/view",
                "overlay",
                &format!("ro,lowerdir={snapshots}/2/fs:{snapshots}/1/fs"),
                true,
            ),
            (
                "/var/lib/containerd/x/view",
                "overlay",
                "ro,lowerdir=/a:/b",
                false,
            ),
            ("/var/lib/containerd2/tmpmounts/a", "overlay", "rw", false),
        ] {
            assert_eq!(
                is_containerds(&mount(9, 1, at, fstype, options), root),
                ours,
                "{at} {options}"
            );
        }
    }

    #[test]
    fn what_lies_in_another_mount_goes_before_it() {
        let table = vec![
            mount(4, 3, "/r/a/b", "tmpfs", ""),
            mount(3, 1, "/r/a", "tmpfs", ""),
            mount(5, 1, "/r/c", "tmpfs", ""),
            mount(6, 5, "/r/c", "tmpfs", ""),
        ];
        let order: Vec<u64> = deepest_first(table).iter().map(|mount| mount.id).collect();
        assert_eq!(order, [6, 4, 5, 3]);
    }
}
