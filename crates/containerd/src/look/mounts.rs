//! Mounts below the root, and mounts elsewhere that have their files in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::root::RootFacts;

/// A mount that has its files in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountOfRoot {
    /// The mount.
    pub mount: Mount,
    /// What of the root it uses: a layer of an overlay, by the path it had when that was mounted; or what a bind mount
    /// shows.
    pub uses: PathBuf,
}

/// What is mounted below the root, in the order of the table: the deepest last.
pub(super) fn below(mounts: &[Mount], root: &RootFacts) -> Vec<Mount> {
    let is_below = |mount: &&Mount| mount.mountpoint.starts_with(&root.path) && mount.mountpoint != root.path;
    mounts.iter().filter(is_below).cloned().collect()
}

/// Mounts outside of the root that live from it. `configured` is its path as containerd has it, which overlays name.
pub(super) fn of_root(mounts: &[Mount], root: &RootFacts, configured: &Path) -> Vec<MountOfRoot> {
    let home = mounts.iter().find(|mount| mount.id == root.mount_id);
    let place = home.and_then(|home| {
        let below = root.path.strip_prefix(&home.mountpoint).ok()?;
        Some((home.dev, home.root.join(below)))
    });
    let outside = mounts
        .iter()
        .filter(|mount| !mount.mountpoint.starts_with(&root.path));
    outside
        .filter_map(|mount| {
            let layer = layers(mount)
                .into_iter()
                .find(|layer| layer.starts_with(configured) || layer.starts_with(&root.path));
            let bound = place
                .as_ref()
                .filter(|(dev, path)| mount.dev == *dev && mount.root.starts_with(path))
                .map(|_| mount.root.clone());
            Some(MountOfRoot {
                uses: layer.or(bound)?,
                mount: mount.clone(),
            })
        })
        .collect()
}

/// The layers of an overlay by the paths that they had when it was mounted, the upper one first. Since Linux 6.8 each lower
/// one can be an option of its own.
fn layers(mount: &Mount) -> Vec<PathBuf> {
    if mount.fstype != "overlay" {
        return Vec::new();
    }
    let mut upper = Vec::new();
    let mut lower = Vec::new();
    for option in mount.options.as_bytes().split(|byte| *byte == b',') {
        let value = |key: &[u8]| option.strip_prefix(key);
        if let Some(path) = value(b"upperdir=") {
            upper.push(PathBuf::from(OsStr::from_bytes(path)));
        } else if let Some(path) = value(b"lowerdir+=").or_else(|| value(b"datadir+=")) {
            lower.push(PathBuf::from(OsStr::from_bytes(path)));
        } else if let Some(list) = value(b"lowerdir=") {
            let paths = list.split(|byte| *byte == b':').filter(|path| !path.is_empty());
            lower.extend(paths.map(|path| PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    upper.into_iter().chain(lower).collect()
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::{FileId, mountinfo};

    use super::*;

    /// A root that is reached by a link: overlays name the link.
    const TABLE: &[u8] = b"26 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 26 8:2 / /data rw - xfs /dev/sdb1 rw\n\
        31 30 0:40 / /data/containerd/tmpmounts/1 rw - overlay overlay rw,lowerdir=/var/lib/containerd/s/1/fs\n\
        32 26 0:41 / /run/containerd/t/k8s.io/a/rootfs rw - overlay overlay rw,lowerdir=/var/lib/containerd/s/1/fs:/var/lib/containerd/s/2/fs,upperdir=/var/lib/containerd/s/3/fs,workdir=/var/lib/containerd/s/3/work\n\
        33 26 0:42 / /run/docker/x rw - overlay overlay rw,lowerdir=/var/lib/docker/1,upperdir=/var/lib/docker/2\n\
        34 26 8:2 /containerd/io.containerd.content.v1.content /mnt/content rw - xfs /dev/sdb1 rw\n\
        35 26 8:2 /containerd-old /mnt/old rw - xfs /dev/sdb1 rw\n\
        36 26 0:43 / /run/new rw - overlay overlay rw,lowerdir+=/data/containerd/s/9/fs\n";

    fn root() -> RootFacts {
        RootFacts {
            path: "/data/containerd".into(),
            id: FileId::default(),
            mount_id: 30,
            is_mount_point: false,
            filesystem: "xfs".into(),
            owner: (0, 0),
            mode: 0o711,
            selinux: None,
            free_bytes: 0,
            total_bytes: 0,
            free_inodes: None,
            total_inodes: None,
        }
    }

    #[test]
    fn what_is_mounted_below_is_told_from_what_lives_from_the_root_elsewhere() {
        let mounts = mountinfo::parse(TABLE).unwrap();
        let below: Vec<u64> = below(&mounts, &root()).iter().map(|mount| mount.id).collect();
        assert_eq!(below, [31]);
        let of_root = of_root(&mounts, &root(), Path::new("/var/lib/containerd"));
        let found: Vec<_> = of_root
            .iter()
            .map(|found| (found.mount.id, found.uses.to_str().unwrap()))
            .collect();
        assert_eq!(
            found,
            [
                (32, "/var/lib/containerd/s/3/fs"),
                (34, "/containerd/io.containerd.content.v1.content"),
                (36, "/data/containerd/s/9/fs")
            ]
        );
    }
}
