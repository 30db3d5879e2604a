//! Overlay mounts, and whether one of them has its layers in a tree.
//!
//! The mount table holds the layers by the paths that they had when the overlay was mounted. After a root of containerd was
//! renamed, the running pods' overlays still name the old path, where by now a new root may stand with layers of the same
//! names. So a path alone says neither yes nor no. What tells is an inode: the root of an overlay has the number of its
//! upper layer, or of its topmost lower one if it has no upper (`ovl_getattr` in fs/overlayfs/inode.c).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nodemend_hostfs::{FileId, mountinfo};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, openat, statat, statx};
use rustix::io::Errno;

use crate::deadline::answered;
use crate::position::{lies_in, open_path};

/// How many directories of a tree's root are tried as the new place of a layer.
const CHILDREN: usize = 1000;

/// An overlay mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// Where it is mounted, as its viewer sees it.
    pub(crate) mountpoint: PathBuf,
    /// A process that sees it.
    pub(crate) viewer: u32,
    /// Whether that is this process's mount namespace.
    pub(crate) own: bool,
    /// Its device number, which tells it from others.
    pub(crate) dev: (u32, u32),
    /// Its layers.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// `lowerdir`, `upperdir` or `workdir`.
    pub(crate) role: &'static str,
    /// Where it was when the overlay was mounted.
    pub(crate) path: PathBuf,
}

/// The overlays of a mount table. Lines that are not understood were refused before.
pub(crate) fn of_table(table: &[u8], viewer: u32, own: bool) -> Vec<Overlay> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| overlay(line, viewer, own))
        .collect()
}

fn overlay(line: &[u8], viewer: u32, own: bool) -> Option<Overlay> {
    let mut fields = line.split(|&byte| byte == b' ');
    fields.find(|field| *field == b"-")?;
    if fields.next()? != b"overlay" {
        return None;
    }
    let options = fields.nth(1)?;
    let mount = mountinfo::parse(line).ok()?.pop()?;
    Some(Overlay {
        mountpoint: mount.mountpoint,
        viewer,
        own,
        dev: mount.dev,
        layers: options
            .split(|&byte| byte == b',')
            .flat_map(layers_of_option)
            .collect(),
    })
}

fn layers_of_option(option: &[u8]) -> Vec<Layer> {
    let Some(at) = option.iter().position(|&byte| byte == b'=') else {
        return Vec::new();
    };
    let (key, value) = (&option[..at], unescaped(&option[at + 1..]));
    let layer = |role, path: &[u8]| Layer {
        role,
        path: OsStr::from_bytes(path).into(),
    };
    match key {
        b"upperdir" => vec![layer("upperdir", &value)],
        b"workdir" => vec![layer("workdir", &value)],
        // Since Linux 6.8 each layer can be an option of its own, which needs no escapes.
        b"lowerdir+" | b"datadir+" => vec![layer("lowerdir", &value)],
        b"lowerdir" => split_lower(&value)
            .iter()
            .map(|path| layer("lowerdir", path))
            .collect(),
        _ => Vec::new(),
    }
}

/// Layers are divided by colons; a colon or backslash of a name has a backslash before it.
fn split_lower(value: &[u8]) -> Vec<Vec<u8>> {
    let mut paths = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, paths.last_mut()) {
            (b':', _) => paths.push(Vec::new()),
            (b'\\', Some(path)) => path.extend(bytes.next()),
            (byte, Some(path)) => path.push(byte),
            (_, None) => {}
        }
    }
    paths.retain(|path| !path.is_empty());
    paths
}

/// The kernel writes blanks, commas and backslashes of an option as three octal digits (`seq_show_option`).
fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, octal.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Whether an overlay lives from a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// This layer of it is in the tree; with how that is known.
    Layer(Layer, &'static str),
    /// None is.
    None,
    /// It cannot be told.
    Unknown(String),
    /// There was no answer in time.
    Silent,
}

/// Asks of one overlay whether it lives from a tree. Does not wait for file systems that do not answer.
pub(crate) fn uses(overlay: &Overlay, tree: BorrowedFd<'_>, id: FileId) -> Use {
    let Ok(tree) = tree.try_clone_to_owned() else {
        return Use::Unknown("no file can be opened".to_owned());
    };
    let asked = overlay.clone();
    answered(move || judge(&Look::take(&asked, &tree, id), &asked)).unwrap_or(Use::Silent)
}

/// What was seen of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    /// The inode number of its root.
    root: Option<u64>,
    /// What was seen of each layer, in the order of the layers.
    layers: Vec<SeenLayer>,
}

/// What was seen of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SeenLayer {
    /// The inode that its path leads to now, and whether that lies in the tree.
    now: Option<(u64, bool)>,
    /// The inodes in the tree at which its path would end if the tree, or a directory of it, had been renamed.
    moved: Vec<u64>,
}

impl Look {
    fn take(overlay: &Overlay, tree: &OwnedFd, id: FileId) -> Self {
        let places = places(tree);
        let base = base_of_relative(overlay);
        Self {
            root: root_inode(overlay),
            layers: overlay
                .layers
                .iter()
                .map(|layer| SeenLayer {
                    now: where_now(overlay.viewer, &layer.path, base.as_deref(), id),
                    moved: moved_to(tree, &places, &layer.path),
                })
                .collect(),
        }
    }
}

/// The layer whose inode number the root of the overlay has.
fn top(overlay: &Overlay) -> Option<usize> {
    let find = |role| overlay.layers.iter().position(|layer| layer.role == role);
    find("upperdir").or_else(|| find("lowerdir"))
}

fn judge(look: &Look, overlay: &Overlay) -> Use {
    let seen = || overlay.layers.iter().zip(&look.layers);
    let top = top(overlay).and_then(|at| Some((overlay.layers.get(at)?, look.layers.get(at)?)));
    if let Some((layer, _)) = seen().find(|(_, seen)| seen.now.is_some_and(|(_, inside)| inside)) {
        return Use::Layer(layer.clone(), "by its path");
    }
    let Some((top_layer, top_seen)) = top else {
        return Use::Unknown("its layers are not in the mount table".to_owned());
    };
    if let (Some(root), Some((now, _))) = (look.root, top_seen.now)
        && root == now
    {
        // Its paths still lead to its layers, and none of them into the tree.
        return Use::None;
    }
    if let Some(root) = look.root
        && top_seen.moved.contains(&root)
    {
        return Use::Layer(top_layer.clone(), "moved since, as its inode tells");
    }
    // The path of the top leads elsewhere by now. Of the layers below nothing but the path is known.
    match seen().find(|(_, seen)| !seen.moved.is_empty()) {
        Some((layer, _)) => Use::Layer(layer.clone(), "moved since, as it seems by its path"),
        None if look.root.is_none() => Use::Unknown("its root cannot be looked at".to_owned()),
        None => Use::Unknown("its layers were moved since it was mounted".to_owned()),
    }
}

fn root_inode(overlay: &Overlay) -> Option<u64> {
    let path = below_root(overlay.viewer, &overlay.mountpoint);
    let root = open_path(&path).ok()?;
    inode(root.as_fd()).ok()
}

fn inode(dir: BorrowedFd<'_>) -> Result<u64, Errno> {
    match statx(
        dir,
        c"",
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        StatxFlags::INO,
    ) {
        Ok(stat) => Ok(stat.stx_ino),
        Err(Errno::NOSYS) => Ok(rustix::fs::fstat(dir)?.st_ino),
        Err(errno) => Err(errno),
    }
}

/// A path as another process sees it.
pub(crate) fn below_root(pid: u32, path: &Path) -> PathBuf {
    let below = path.strip_prefix("/").unwrap_or(path);
    Path::new(&format!("/proc/{pid}/root")).join(below)
}

/// containerd shortens a long list of layers to paths below the directory of all snapshots, in which the upper layer
/// lies as `ID/fs`, too.
fn base_of_relative(overlay: &Overlay) -> Option<PathBuf> {
    let upper = overlay.layers.iter().find(|layer| layer.role == "upperdir")?;
    let base = upper.path.parent()?.parent()?;
    upper.path.is_absolute().then(|| base.to_owned())
}

fn where_now(viewer: u32, layer: &Path, base: Option<&Path>, tree: FileId) -> Option<(u64, bool)> {
    let path = if layer.is_absolute() {
        layer.to_owned()
    } else {
        base?.join(layer)
    };
    let dir = open_path(&below_root(viewer, &path)).ok()?;
    Some((inode(dir.as_fd()).ok()?, lies_in(&dir, tree).ok()?))
}

/// The root of the tree, and the directories in it.
fn places(tree: &OwnedFd) -> Vec<OsString> {
    let opened = openat(
        tree,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let mut places = vec![OsString::new()];
    let Some(entries) = opened.ok().and_then(|dir| Dir::new(dir).ok()) else {
        return places;
    };
    let dirs = entries
        .map_while(Result::ok)
        .filter(|entry| entry.file_type() == FileType::Directory)
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .filter(|name| name != b"." && name != b"..");
    places.extend(dirs.take(CHILDREN).map(OsString::from_vec));
    places
}

/// The inodes at which a path ends in the tree, with its first names left away.
fn moved_to(tree: &OwnedFd, places: &[OsString], layer: &Path) -> Vec<u64> {
    let names: Vec<&OsStr> = layer
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
        })
        .collect();
    // Of one name alone (`fs`) every snapshot has one.
    let first = usize::from(layer.is_absolute());
    let last = names.len().saturating_sub(2);
    let mut found = Vec::new();
    for place in places {
        for rest in (first..=last).filter_map(|from| names.get(from..)) {
            let head = (!place.is_empty()).then_some(place.as_os_str());
            found.extend(descend(tree, head.into_iter().chain(rest.iter().copied())));
        }
    }
    found
}

/// Down by names, symlinks not followed.
fn descend<'n>(tree: &OwnedFd, names: impl Iterator<Item = &'n OsStr>) -> Option<u64> {
    let mut names = names.peekable();
    let mut dir: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let here = dir.as_ref().unwrap_or(tree);
        if names.peek().is_none() {
            let stat = statat(here, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT).ok()?;
            return (FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(stat.st_ino);
        }
        dir = Some(
            openat(
                here,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .ok()?,
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(role: &'static str, path: &str) -> Layer {
        Layer {
            role,
            path: path.into(),
        }
    }

    fn parsed(options: &str) -> Overlay {
        let line = format!("67 64 0:40 / /run/m rw - overlay overlay {options}");
        of_table(line.as_bytes(), 1, true).pop().unwrap()
    }

    #[test]
    fn the_layers_of_an_overlay_are_read_from_its_options() {
        let overlay = parsed("rw,lowerdir=/s/1/fs:/s/2/fs,upperdir=/s/3/fs,workdir=/s/3/work,index=off");
        assert_eq!(
            overlay.layers,
            [
                layer("lowerdir", "/s/1/fs"),
                layer("lowerdir", "/s/2/fs"),
                layer("upperdir", "/s/3/fs"),
                layer("workdir", "/s/3/work")
            ]
        );
        assert_eq!(overlay.dev, (0, 40));
    }

    #[test]
    fn escaped_and_single_layers_are_read_too() {
        let overlay = parsed(r"rw,lowerdir=/a\134:b:/c\040d::/data,lowerdir+=/e:f");
        assert_eq!(
            overlay.layers,
            [
                layer("lowerdir", "/a:b"),
                layer("lowerdir", "/c d"),
                layer("lowerdir", "/data"),
                layer("lowerdir", "/e:f")
            ]
        );
    }

    #[test]
    fn other_mounts_are_none() {
        assert!(of_table(b"26 1 8:1 / / rw - ext4 /dev/sda1 rw,upperdir=/x\n", 1, true).is_empty());
    }

    fn pair() -> Overlay {
        parsed("rw,lowerdir=/s/1/fs,upperdir=/s/2/fs")
    }

    fn look(root: u64, lower: SeenLayer, upper: SeenLayer) -> Look {
        Look {
            root: Some(root),
            layers: vec![lower, upper],
        }
    }

    fn seen(now: Option<(u64, bool)>, moved: &[u64]) -> SeenLayer {
        SeenLayer {
            now,
            moved: moved.to_vec(),
        }
    }

    #[test]
    fn a_layer_whose_path_leads_into_the_tree_is_in_use() {
        let look = look(17, seen(Some((15, true)), &[]), seen(Some((17, false)), &[]));
        assert_eq!(
            judge(&look, &pair()),
            Use::Layer(layer("lowerdir", "/s/1/fs"), "by its path")
        );
    }

    #[test]
    fn a_new_root_with_layers_of_the_same_names_does_not_hide_that_the_old_one_is_in_use() {
        let look = look(17, seen(Some((22, false)), &[15]), seen(Some((24, false)), &[17]));
        assert!(matches!(judge(&look, &pair()), Use::Layer(found, _) if found.role == "upperdir"));
    }

    #[test]
    fn an_old_root_with_layers_of_the_same_names_is_not_in_use_for_that() {
        let look = look(24, seen(Some((22, false)), &[15]), seen(Some((24, false)), &[17]));
        assert_eq!(judge(&look, &pair()), Use::None);
    }

    #[test]
    fn an_overlay_that_cannot_be_looked_at_may_use_what_has_its_names() {
        let blind = Look {
            root: None,
            layers: vec![seen(None, &[15]), seen(None, &[])],
        };
        assert!(matches!(judge(&blind, &pair()), Use::Layer(found, _) if found.role == "lowerdir"));
        let nothing = Look {
            root: None,
            layers: vec![seen(None, &[]), seen(None, &[])],
        };
        assert!(matches!(judge(&nothing, &pair()), Use::Unknown(_)));
    }
}
