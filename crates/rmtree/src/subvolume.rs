//! btrfs subvolumes: what is one, which lie in a tree, and how one goes as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::descent::{mount_id, procfs, reopened};
use crate::error::Error;
use crate::policy::FileSystem;
use crate::report::Reason;
use crate::sys::{self, BtrfsKey};
use crate::tree::{self, Tree};

/// `BTRFS_FIRST_FREE_OBJECTID`: the inode number of the root directory of each subvolume, and the smallest id of one that was
/// made by somebody.
const FIRST: u64 = 256;

/// `BTRFS_LAST_FREE_OBJECTID`, the largest id.
const LAST: u64 = 256_u64.wrapping_neg();

/// `BTRFS_ROOT_TREE_OBJECTID`: the tree that lists the subvolumes.
const ROOT_TREE: u64 = 1;

/// `BTRFS_ROOT_ITEM_KEY`, `BTRFS_ROOT_BACKREF_KEY`.
const ROOT_ITEM: u32 = 132;
const ROOT_BACKREF: u32 = 144;

/// A btrfs subvolume or snapshot in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subvolume {
    /// Where it is, below the root of the tree.
    pub path: PathBuf,
    /// Its id, as `btrfs subvolume list` shows it.
    pub id: u64,
    /// Whether nothing in it can be changed. It can be destroyed nevertheless.
    pub read_only: bool,
}

/// True if this is the root directory of a subvolume. Of a directory on btrfs only: elsewhere the number means nothing.
pub(crate) fn is_root(stat: &Stat) -> bool {
    stat.st_ino == FIRST
}

/// Why a subvolume was not destroyed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It, or a directory in it, is mounted somewhere in this mount namespace: destroying it would take the files from
    /// under the feet of whoever uses them.
    Mounted,
    /// Something is mounted in it, by whichever mount of the file system: the kernel would silently unmount that. Whoever
    /// walks into the subvolume as into any directory can remove the rest.
    MountInside,
    /// It cannot be told whether it is mounted.
    Unsure,
    /// What the kernel said:
    ///
    /// - NOTEMPTY: there are subvolumes in it. They must go before it; it was made writable for that, if it was not. Walk into
    ///   it as into any directory. Emptied so, it goes by another `destroy`; rmdir is enough only since Linux 4.18.
    /// - PERM: no `CAP_SYS_ADMIN`; or it is the default subvolume of the file system, is being sent, holds an active swap
    ///   file, or has the immutable or append-only flag, or its parent has.
    /// - ROFS: its parent lies in a read-only snapshot, or the file system is read-only.
    /// - NOENT: the name is free by now. INVAL, NOTDIR: the name stands for something that is no subvolume by now.
    /// - NOSPC: no room for the transaction.
    Kernel(Errno),
}

impl Refusal {
    /// For the report, unless it is the kernel's.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Mounted => Reason::SubvolumeInUse,
            Self::MountInside => Reason::Mount,
            Self::Unsure | Self::Kernel(_) => Reason::Other,
        }
    }
}

/// Destroys a subvolume, read-only or not, with all that is in it. The space comes back later, when the file system's cleaner
/// has gone through it. `subvolume` is what stands under the name, opened.
///
/// The kernel destroys whatever subvolume has the name when it looks. Whoever swaps names in `parent` at that moment can
/// have another subvolume destroyed that he had moved there, as with unlink. A mount of another mount namespace is not
/// seen; the kernel detaches what is mounted in the subvolume there, and leaves its content as it is.
pub(crate) fn destroy(parent: BorrowedFd<'_>, name: &CStr, subvolume: BorrowedFd<'_>) -> Result<(), Refusal> {
    let (parent, root) = (
        reopened(parent).map_err(Refusal::Kernel)?,
        reopened(subvolume).map_err(Refusal::Kernel)?,
    );
    check_mounts(root.as_fd())?;
    match sys::btrfs_snap_destroy(parent.as_fd(), name) {
        Err(Errno::NOTEMPTY) => {
            make_writable(root.as_fd()).map_err(Refusal::Kernel)?;
            Err(Refusal::Kernel(Errno::NOTEMPTY))
        }
        other => other.map_err(Refusal::Kernel),
    }
}

fn make_writable(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = sys::btrfs_subvol_flags(root)?;
    if flags & sys::BTRFS_SUBVOL_RDONLY == 0 {
        return Ok(());
    }
    sys::btrfs_set_subvol_flags(root, flags & !sys::BTRFS_SUBVOL_RDONLY)
}

/// An error if a subvolume is mounted somewhere, or if something is mounted in it.
fn check_mounts(root: BorrowedFd<'_>) -> Result<(), Refusal> {
    let (id, _) = sys::btrfs_ino_lookup(root, 0, FIRST).map_err(Refusal::Kernel)?;
    let own = mount_id(root).ok_or(Refusal::Unsure)?;
    let (path, mounts) = path_and_mounts(root).ok_or(Refusal::Unsure)?;
    judge(&mounts, own, id, &path)
}

/// Where a directory is, and a mount table of the same moment, as far as renames above the directory go.
fn path_and_mounts(dir: BorrowedFd<'_>) -> Option<(PathBuf, Vec<Mount>)> {
    for _ in 0..16 {
        let before = path_of(dir)?;
        let mounts = tree::mounts().ok()?;
        if path_of(dir)? == before {
            return Some((before, mounts));
        }
    }
    None
}

fn path_of(dir: BorrowedFd<'_>) -> Option<PathBuf> {
    let proc = procfs().ok()?;
    let link = |of: &str| {
        let link = format!("{of}/fd/{}", dir.as_raw_fd());
        rustix::fs::readlinkat(&proc, link, Vec::new())
    };
    let target = link("thread-self").or_else(|_| link("self")).ok()?;
    Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Whether a subvolume is in nobody's way: `own` is the mount that it was found through, at `path`.
fn judge(mounts: &[Mount], own: u64, id: u64, path: &Path) -> Result<(), Refusal> {
    let home = mounts
        .iter()
        .find(|mount| mount.id == own)
        .ok_or(Refusal::Unsure)?;
    // A mount covers a place in the file system, and is there in all mounts of that: so paths are taken from its root.
    let within = |mount: &Mount, path: &Path| {
        let below = path.strip_prefix(&mount.mountpoint).ok()?;
        Some(mount.root.join(below))
    };
    let place = within(home, path).ok_or(Refusal::Unsure)?;
    let same = |mount: &&Mount| mount.dev == home.dev;
    let mounted = |mount: &Mount| match subvolume_id(mount) {
        Some(other) => other == id,
        // Before Linux 4.2 the table does not tell.
        None => mount.root.starts_with(&place),
    };
    if mounts.iter().filter(same).any(mounted) {
        return Err(Refusal::Mounted);
    }
    let by_id: HashMap<u64, &Mount> = mounts.iter().map(|mount| (mount.id, mount)).collect();
    let covered = mounts.iter().any(|mount| {
        let below = by_id.get(&mount.parent).copied().filter(same);
        below
            .and_then(|below| within(below, &mount.mountpoint))
            .is_some_and(|point| point.starts_with(&place))
    });
    if covered {
        return Err(Refusal::MountInside);
    }
    Ok(())
}

/// The id of the subvolume in which the root of a mount lies: also that of a bind mount of some directory.
fn subvolume_id(mount: &Mount) -> Option<u64> {
    let options = mount.options.as_bytes().split(|&byte| byte == b',');
    let mut ids = options.filter_map(|option| option.strip_prefix(b"subvolid="));
    std::str::from_utf8(ids.next()?).ok()?.parse().ok()
}

/// True if a directory lies in a read-only snapshot or subvolume of btrfs. False where it cannot be told: finding it out for
/// other directories than the root of the subvolume needs `CAP_SYS_ADMIN`.
pub(crate) fn is_read_only(dir: BorrowedFd<'_>) -> bool {
    let btrfs = rustix::fs::fstatfs(dir)
        .is_ok_and(|statfs| FileSystem::of_magic(statfs.f_type.cast_unsigned()) == FileSystem::Btrfs);
    btrfs && reopened(dir).is_ok_and(|dir| read_only(dir.as_fd()).unwrap_or(false))
}

fn read_only(dir: BorrowedFd<'_>) -> io::Result<bool> {
    match sys::btrfs_subvol_flags(dir) {
        // Not the root of the subvolume.
        Err(Errno::INVAL) => {}
        Ok(flags) => return Ok(flags & sys::BTRFS_SUBVOL_RDONLY != 0),
        Err(error) => return Err(error.into()),
    }
    let (id, _) = sys::btrfs_ino_lookup(dir, 0, FIRST)?;
    let mut found = false;
    let key = |offset| BtrfsKey {
        object: id,
        kind: ROOT_ITEM,
        offset,
    };
    search(dir, key(0), key(u64::MAX), |key, item| {
        found |= key.object == id && key.kind == ROOT_ITEM && root_is_read_only(item)?;
        Some(())
    })?;
    Ok(found)
}

/// All subvolumes and snapshots below a directory, those in subvolumes included, in the order of their paths. Empty on any
/// file system but btrfs. That the root of the tree is one itself is not said here. Needs no walk.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, and where the path of one has more than 4,079 bytes below the subvolume it is in.
pub fn subvolumes_inside(tree: &Tree) -> Result<Vec<Subvolume>, Error> {
    if tree.file_system() != FileSystem::Btrfs {
        return Ok(Vec::new());
    }
    list(tree.dir()).map_err(|error| {
        let what = if error.kind() == io::ErrorKind::PermissionDenied {
            "list the btrfs subvolumes in it, which needs CAP_SYS_ADMIN"
        } else {
            "list the btrfs subvolumes in it"
        };
        Error::io(what, tree.path())(error)
    })
}

fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<Subvolume>> {
    let dir = reopened(dir)?;
    let all = all(dir.as_fd())?;
    let inode = rustix::fs::fstat(&dir)?.st_ino;
    let (home, prefix) = sys::btrfs_ino_lookup(dir.as_fd(), 0, inode)?;
    let mut places = Places {
        dir: dir.as_fd(),
        known: HashMap::new(),
    };
    let mut found = Vec::new();
    let mut seen = HashSet::from([home]);
    let mut pending = vec![(home, PathBuf::new(), prefix)];
    while let Some((parent, above, prefix)) = pending.pop() {
        for (id, link) in all.children_of(parent) {
            // One that went meanwhile has no place.
            let Some(place) = places.of(parent, link.directory)? else {
                continue;
            };
            // Both end with a slash, or are empty: names are compared as a whole.
            let Some(below) = place.strip_prefix(prefix.as_slice()) else {
                continue;
            };
            let path = above
                .join(OsStr::from_bytes(below))
                .join(OsStr::from_bytes(&link.name));
            if seen.insert(id) {
                pending.push((id, path.clone(), Vec::new()));
                let read_only = all.read_only.contains(&id);
                found.push(Subvolume { path, id, read_only });
            }
        }
    }
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Where directories are in their subvolumes. Snapshots tend to share one directory.
struct Places<'a> {
    dir: BorrowedFd<'a>,
    known: HashMap<(u64, u64), Option<Vec<u8>>>,
}

impl Places<'_> {
    fn of(&mut self, subvolume: u64, inode: u64) -> io::Result<Option<&[u8]>> {
        use std::collections::hash_map::Entry;
        let place = match self.known.entry((subvolume, inode)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match sys::btrfs_ino_lookup(self.dir, subvolume, inode) {
                Ok((_, place)) => new.insert(Some(place)),
                Err(Errno::NOENT) => new.insert(None),
                Err(error) => return Err(error.into()),
            },
        };
        Ok(place.as_deref())
    }
}

/// The subvolumes of a whole file system.
#[derive(Default)]
struct All {
    /// By the subvolume they are in, then by their id.
    links: BTreeMap<(u64, u64), Link>,
    read_only: HashSet<u64>,
}

impl All {
    fn children_of(&self, parent: u64) -> impl Iterator<Item = (u64, &Link)> {
        let range = self.links.range((parent, 0)..=(parent, u64::MAX));
        range.map(|((_, id), link)| (*id, link))
    }
}

/// The entry of a directory that stands for a subvolume.
struct Link {
    directory: u64,
    name: Vec<u8>,
}

/// All subvolumes of the file system that `dir` lies on. `struct btrfs_root_item` and `struct btrfs_root_ref` of
/// `include/uapi/linux/btrfs_tree.h`; the key of the latter is (id, `ROOT_BACKREF`, id of the parent).
fn all(dir: BorrowedFd<'_>) -> io::Result<All> {
    let mut all = All::default();
    let from = BtrfsKey {
        object: FIRST,
        kind: ROOT_ITEM,
        offset: 0,
    };
    let to = BtrfsKey {
        object: LAST,
        kind: ROOT_BACKREF,
        offset: u64::MAX,
    };
    search(dir, from, to, |key, item| {
        match key.kind {
            ROOT_ITEM if root_is_read_only(item)? => {
                all.read_only.insert(key.object);
            }
            ROOT_BACKREF => {
                all.links.insert((key.offset, key.object), link(item)?);
            }
            // The tree also holds the inodes of the free space cache, with numbers in the same range.
            _ => {}
        }
        Some(())
    })?;
    Ok(all)
}

/// `flags` of `struct btrfs_root_item` stands behind an inode of 160 bytes and six numbers.
fn root_is_read_only(item: &[u8]) -> Option<bool> {
    const ROOT_SUBVOL_RDONLY: u64 = 1;
    Some(number(item, 160 + 6 * 8)? & ROOT_SUBVOL_RDONLY != 0)
}

/// `struct btrfs_root_ref`: the inode of the directory, a sequence number, the length of the name in two bytes, the name.
fn link(item: &[u8]) -> Option<Link> {
    let length = usize::from(u16::from_le_bytes(*item.get(16..)?.first_chunk()?));
    Some(Link {
        directory: number(item, 0)?,
        name: item.get(18..18 + length)?.to_vec(),
    })
}

fn number(item: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*item.get(at..)?.first_chunk()?))
}

/// Calls back for each item of the tree of roots in a range of keys. A callback that gives None says that the item makes no
/// sense.
fn search(
    dir: BorrowedFd<'_>,
    mut from: BtrfsKey,
    to: BtrfsKey,
    mut each: impl FnMut(BtrfsKey, &[u8]) -> Option<()>,
) -> io::Result<()> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "a btrfs tree of no known shape");
    loop {
        let (count, buffer) = sys::btrfs_tree_search(dir, ROOT_TREE, from, to)?;
        let mut rest = buffer.as_slice();
        let mut last = None;
        for _ in 0..count {
            let (key, item, next) = split_item(rest).ok_or_else(odd)?;
            // What does not go forward would never end.
            if key < from || last.is_some_and(|last| key <= last) {
                return Err(odd());
            }
            each(key, item).ok_or_else(odd)?;
            (last, rest) = (Some(key), next);
        }
        match last.and_then(after) {
            Some(next) if next <= to => from = next,
            _ => return Ok(()),
        }
    }
}

/// `struct btrfs_ioctl_search_header` (in the byte order of the machine), the content, and what follows.
fn split_item(buffer: &[u8]) -> Option<(BtrfsKey, &[u8], &[u8])> {
    let (header, rest) = buffer.split_first_chunk::<32>()?;
    let word = |at: usize| Some(u64::from_ne_bytes(*header.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u32::from_ne_bytes(*header.get(at..)?.first_chunk()?));
    let key = BtrfsKey {
        object: word(8)?,
        kind: half(24)?,
        offset: word(16)?,
    };
    let (item, rest) = rest.split_at_checked(usize::try_from(half(28)?).ok()?)?;
    Some((key, item, rest))
}

/// The next key, if there is one. A kind has eight bits.
fn after(key: BtrfsKey) -> Option<BtrfsKey> {
    let BtrfsKey { object, kind, offset } = key;
    if let Some(offset) = offset.checked_add(1) {
        return Some(BtrfsKey { object, kind, offset });
    }
    if kind < 255 {
        return Some(BtrfsKey {
            object,
            kind: kind + 1,
            offset: 0,
        });
    }
    Some(BtrfsKey {
        object: object.checked_add(1)?,
        kind: 0,
        offset: 0,
    })
}

#[cfg(test)]
mod tests;
