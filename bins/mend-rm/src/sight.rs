//! Where a mount namespace shows a tree, or parts of it.

use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;

use crate::position::Position;

/// The paths at which a mount namespace shows a tree or a part of it.
pub(crate) fn seen_at(mounts: &[Mount], tree: &Position) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| mount.dev == tree.dev)
        .filter_map(|mount| match tree.path.strip_prefix(&mount.root) {
            Ok(below) if below.as_os_str().is_empty() => Some(mount.mountpoint.clone()),
            Ok(below) => Some(mount.mountpoint.join(below)),
            Err(_) => is_part(mount, tree).then(|| mount.mountpoint.clone()),
        })
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// The mounts of a namespace that show the tree or a part of it, and are not inside of the tree themselves: whoever uses
/// them would lose their files.
pub(crate) fn shown_elsewhere<'m>(mounts: &'m [Mount], tree: &Position) -> Vec<&'m Mount> {
    let whole: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| mount.dev == tree.dev && !is_part(mount, tree))
        .filter_map(|mount| Some(mount.mountpoint.join(tree.path.strip_prefix(&mount.root).ok()?)))
        .collect();
    mounts
        .iter()
        .filter(|mount| mount.dev == tree.dev && is_part(mount, tree))
        .filter(|mount| !whole.iter().any(|path| mount.mountpoint.starts_with(path)))
        .collect()
}

fn is_part(mount: &Mount, tree: &Position) -> bool {
    mount.root.starts_with(&tree.path)
}

/// Whether the text of a link of /proc leads to one of these paths or below.
pub(crate) fn leads_to(text: &Path, paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| text.starts_with(path))
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::mountinfo::parse;

    use super::*;

    const TABLE: &[u8] = b"26 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 26 8:1 /srv/old/a /mnt/part rw - ext4 /dev/sda1 rw\n\
        31 26 8:1 /srv/old/b /srv/old/c rw - ext4 /dev/sda1 rw\n\
        32 26 8:1 /srv /mnt/more rw - ext4 /dev/sda1 rw\n\
        33 26 8:2 /srv/old /mnt/other rw - ext4 /dev/sdb1 rw\n";

    fn tree() -> Position {
        Position {
            dev: (8, 1),
            path: "/srv/old".into(),
        }
    }

    #[test]
    fn a_tree_is_seen_through_binds_of_its_ancestors_and_of_its_parts() {
        let mounts = parse(TABLE).unwrap();
        let paths = ["/mnt/more/old", "/mnt/part", "/srv/old", "/srv/old/c"].map(PathBuf::from);
        assert_eq!(seen_at(&mounts, &tree()), paths);
    }

    #[test]
    fn a_part_that_is_shown_elsewhere_is_told_from_one_that_is_mounted_inside() {
        let mounts = parse(TABLE).unwrap();
        let shown: Vec<_> = shown_elsewhere(&mounts, &tree())
            .into_iter()
            .map(|mount| mount.id)
            .collect();
        assert_eq!(shown, [30]);
    }
}
