//! A tree set aside: its name is free at once, and what it was is not forgotten.
//!
//! A tree is set aside by a new name in the directory it is in, `.NAME.nodemend-aside-` and 16 hex digits. What it was is
//! in an extended attribute of the tree's own root: that needs no inode and no second file, goes with the root as the very
//! last, and is there after a kill or a reboot.
//!
//! A name proves nothing: anybody may make a directory that is called so. A tree is ours only if its name, its marker
//! and the directory that the marker speaks of agree. Root's marker is a `trusted.` attribute, which nobody else can write.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, StatxFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr, fstat, fsync,
    openat, statx,
};
use rustix::io::Errno;

use crate::error::Error;
use crate::tree::Tree;

/// Between the name that the tree had and the digits.
const MARK: &[u8] = b".nodemend-aside-";
/// How many hex digits there are.
const DIGITS: usize = 16;
/// The longest name of a directory entry, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// The first line of a marker.
const HEAD: &[u8] = b"nodemend-aside 1";
/// The most of a marker that is read, in bytes: a path has at most 4,096.
const LIMIT: usize = 8192;

/// A tree that was set aside.
#[derive(Debug)]
pub struct Aside {
    /// The tree, under its new name.
    pub tree: Tree,
    /// Where it was: absolute.
    pub was: PathBuf,
    /// When it was set aside, by the wall clock.
    pub since: SystemTime,
}

/// A directory entry that is named like a tree set aside, and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookalike {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is none.
    pub reason: String,
}

/// What [`find`] found.
#[derive(Debug, Default)]
pub struct Found {
    /// The trees, by name.
    pub trees: Vec<Aside>,
    /// What only looks like one, by name. Nobody has the right to remove it for its name.
    pub lookalikes: Vec<Lookalike>,
}

/// Gives a tree a name of its own, in one step and in the directory it is in, after writing into it what it was.
///
/// # Errors
/// If the file system keeps no extended attributes, or the kernel refuses the new name. The tree has its old name then.
pub fn set_aside(tree: Tree) -> Result<Tree, Error> {
    let path = tree.path().to_owned();
    let root = reopen(tree.dir(), &path)?;
    let parent = reopen(tree.parent(), &path)?;
    let attribute = marker();
    mark(&root, attribute, &tree).map_err(Error::io(
        "cannot be set aside, as what it was cannot be kept in an extended attribute of it; remove it as it is",
        &path,
    ))?;
    // The marker must not come to the disk later than the name: without it nobody finds the tree again. A file system
    // that cannot sync a directory keeps the order by itself, or has no disk.
    let _ = fsync(&root);
    let name = aside_name(tree.name(), RandomState::new().build_hasher().finish());
    match tree.rename(&name) {
        Ok(tree) => {
            // Lost with the power, the tree has its old name again, and the next run starts afresh.
            let _ = fsync(&parent);
            Ok(tree)
        }
        Err(error) => {
            let _ = fremovexattr(&root, attribute);
            Err(error)
        }
    }
}

/// Gives a tree that was set aside its name back, in one step, and takes the marker off it: then it is as it was.
///
/// # Errors
/// If the name is taken, or the kernel refuses. If only the marker stays, the tree has its name: see [`unmark`].
pub fn put_back(aside: Aside) -> Result<Tree, Error> {
    let path = aside.was;
    let name = path
        .file_name()
        .ok_or_else(|| Error::NoName { path: path.clone() })?;
    let tree = aside.tree.rename(name)?;
    let _ = fsync(reopen(tree.parent(), &path)?);
    unmark(&tree)?;
    Ok(tree)
}

/// Takes the marker off a tree that has its name back. Without one nothing is done.
///
/// # Errors
/// If the kernel refuses.
pub fn unmark(tree: &Tree) -> Result<(), Error> {
    let path = tree.path();
    match fremovexattr(reopen(tree.dir(), path)?, marker()) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::io("take off the marker of", path)(errno)),
    }
}

/// The name of the extended attribute in which a tree that is set aside says what it was: it is no part of what the tree is
/// like.
///
/// Only root writes and reads `trusted.`; what anybody could have written is nothing that root acts on.
pub fn marker() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "trusted.nodemend.aside"
    } else {
        "user.nodemend.aside"
    }
}

/// The trees that were set aside in `dir`, by whoever has the rights of this process. Symlinks in the path are followed:
/// it is the marker that proves a tree, not the way to it.
///
/// # Errors
/// If the directory cannot be read.
pub fn find(dir: &Path) -> Result<Found, Error> {
    let dir = std::fs::canonicalize(dir).map_err(Error::io("open", dir))?;
    let mut found = Found::default();
    for name in names(&dir)? {
        let path = dir.join(&name);
        match recognize(&dir, &path) {
            Ok(Some(aside)) => found.trees.push(aside),
            Ok(None) => {}
            Err(reason) => found.lookalikes.push(Lookalike { path, reason }),
        }
    }
    Ok(found)
}

/// The names in a directory that a tree set aside can have, sorted.
fn names(dir: &Path) -> Result<Vec<OsString>, Error> {
    let opened = rustix::fs::open(
        dir,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Error::io("open", dir))?;
    let mut names = Vec::new();
    for entry in Dir::new(opened).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        if is_aside_name(entry.file_name().to_bytes()) {
            names.push(OsString::from_vec(entry.file_name().to_bytes().to_vec()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// None if it is gone by now; an error is why it is not a tree that was set aside.
fn recognize(dir: &Path, path: &Path) -> Result<Option<Aside>, String> {
    let tree = match Tree::open(path) {
        Ok(tree) => tree,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let root = reopen(tree.dir(), path).map_err(|error| error.to_string())?;
    let attribute = marker();
    let mut bytes = Vec::with_capacity(LIMIT);
    match fgetxattr(&root, attribute, rustix::buffer::spare_capacity(&mut bytes)) {
        Ok(_) => {}
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Err(format!("it has no marker {attribute}")),
        Err(errno) => return Err(format!("its marker {attribute} cannot be read: {errno}")),
    }
    let marker = Marker::parse(&bytes).ok_or_else(|| format!("its marker {attribute} is none of ours"))?;
    let here = Identity::of(root.as_fd()).map_err(|errno| errno.to_string())?;
    if !marker.identity.agrees(here) {
        return Err("its marker speaks of another directory: it is a copy".to_owned());
    }
    Ok(Some(Aside {
        tree,
        was: dir.join(marker.was),
        since: UNIX_EPOCH + Duration::from_secs(marker.since),
    }))
}

/// Writes the marker. A path that has no room in an extended attribute is kept by its last name: on ext4 that fits
/// into the inode, and so it needs no block of a full disk.
fn mark(root: &OwnedFd, attribute: &str, tree: &Tree) -> Result<(), Errno> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut marker = Marker {
        since: since.as_secs(),
        identity: Identity::of(root.as_fd())?,
        was: tree.path().to_owned(),
    };
    let set = |marker: &Marker| fsetxattr(root, attribute, &marker.to_bytes(), XattrFlags::empty());
    match set(&marker) {
        Err(Errno::NOSPC | Errno::DQUOT | Errno::RANGE | Errno::TOOBIG) => {
            marker.was = tree.name().into();
            set(&marker)
        }
        done => done,
    }
}

/// The same directory, open for reading: the tree may hold it for lookups only.
fn reopen(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
    openat(
        dir,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Error::io("open", path))
}

fn aside_name(name: &OsStr, number: u64) -> OsString {
    let room = NAME_MAX - 1 - MARK.len() - DIGITS;
    let name = name.as_bytes();
    let mut digits = String::with_capacity(DIGITS);
    let _ = write!(digits, "{number:016x}");
    let kept = name.get(..room).unwrap_or(name);
    OsString::from_vec([b".", kept, MARK, digits.as_bytes()].concat())
}

fn is_aside_name(name: &[u8]) -> bool {
    let Some((head, digits)) = name.split_at_checked(name.len().saturating_sub(DIGITS)) else {
        return false;
    };
    digits.len() == DIGITS
        && digits
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && head.starts_with(b".")
        && head.ends_with(MARK)
        && head.len() > MARK.len() + 1
}

/// What the root of a tree says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marker {
    /// Seconds since 1970.
    since: u64,
    identity: Identity,
    /// Absolute, or the last name only.
    was: PathBuf,
}

impl Marker {
    /// Four lines, the path as the last, as it may hold newlines.
    fn to_bytes(&self) -> Vec<u8> {
        let Identity { ino, born } = self.identity;
        let born = born.map_or_else(|| "-".to_owned(), |(seconds, nanos)| format!("{seconds}.{nanos}"));
        let numbers = format!("\n{}\n{ino} {born}\n", self.since);
        [HEAD, numbers.as_bytes(), self.was.as_os_str().as_bytes()].concat()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
        let text = |line: &'_ [u8]| std::str::from_utf8(line).ok().map(str::to_owned);
        if lines.next()? != HEAD {
            return None;
        }
        let since = text(lines.next()?)?.parse().ok()?;
        let identity = text(lines.next()?)?;
        let (ino, born) = identity.split_once(' ')?;
        let born = match born {
            "-" => None,
            born => {
                let (seconds, nanos) = born.split_once('.')?;
                Some((seconds.parse().ok()?, nanos.parse().ok()?))
            }
        };
        let was = lines.next().filter(|was| !was.is_empty())?;
        Some(Self {
            since,
            identity: Identity {
                ino: ino.parse().ok()?,
                born,
            },
            was: OsStr::from_bytes(was).into(),
        })
    }
}

/// What makes a directory this one, also after a reboot: device numbers may be others then, so they are no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    ino: u64,
    /// When the inode was made, in seconds and nanoseconds, where the file system and the kernel tell: an inode number is
    /// used again.
    born: Option<(i64, u32)>,
}

impl Identity {
    fn of(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        let born = statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME)
            .ok()
            .filter(|stat| stat.stx_mask & StatxFlags::BTIME.bits() != 0)
            .map(|stat| (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
        Ok(Self {
            ino: fstat(dir)?.st_ino,
            born,
        })
    }

    /// A kernel that does not tell the time of birth does not tell it for either.
    fn agrees(self, other: Self) -> bool {
        let same_birth = match (self.born, other.born) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        self.ino == other.ino && same_birth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(was: &[u8]) -> Marker {
        Marker {
            since: 1_700_000_000,
            identity: Identity {
                ino: 12,
                born: Some((1_600_000_000, 5)),
            },
            was: OsStr::from_bytes(was).into(),
        }
    }

    #[test]
    fn a_name_is_recognized_however_long_it_was() {
        for name in ["containerd".to_owned(), "x".repeat(255), "\u{1b}[2J\n".to_owned()] {
            let aside = aside_name(OsStr::new(&name), 0xfe);
            assert!(is_aside_name(aside.as_bytes()), "{aside:?}");
            assert!(aside.len() <= NAME_MAX);
        }
        assert_eq!(
            aside_name(OsStr::new("a"), 0xfe),
            OsString::from(".a.nodemend-aside-00000000000000fe")
        );
    }

    #[test]
    fn what_only_resembles_a_name_is_none() {
        for name in [
            "",
            "a",
            "containerd",
            ".nodemend-aside-00000000000000fe",
            "..nodemend-aside-00000000000000f",
            "a.nodemend-aside-00000000000000fe",
            ".a.nodemend-aside-00000000000000FE",
            ".a.nodemend-aside-00000000000000fe.bak",
            ".a.nodemend-aside-000000000000000fe",
        ] {
            assert!(!is_aside_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_marker_is_read_as_it_was_written_whatever_the_path() {
        for was in [&b"/var/lib/containerd"[..], b"/a\nb\xff", b"name"] {
            let written = marker(was);
            assert_eq!(Marker::parse(&written.to_bytes()), Some(written));
        }
        let ageless = Marker {
            identity: Identity { ino: 1, born: None },
            ..marker(b"/a")
        };
        assert_eq!(Marker::parse(&ageless.to_bytes()), Some(ageless));
    }

    #[test]
    fn a_marker_that_is_cut_or_foreign_is_none() {
        let whole = marker(b"/a").to_bytes();
        for length in 0..whole.len() - 1 {
            assert_eq!(Marker::parse(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(Marker::parse(b"nodemend-aside 2\n1\n1 -\n/a"), None);
        assert_eq!(Marker::parse(b"nodemend-aside 1\nx\n1 -\n/a"), None);
    }

    #[test]
    fn an_inode_number_that_was_used_again_is_another_directory() {
        let was = Identity {
            ino: 12,
            born: Some((1, 0)),
        };
        assert!(was.agrees(was));
        assert!(was.agrees(Identity { born: None, ..was }));
        assert!(!was.agrees(Identity {
            born: Some((2, 0)),
            ..was
        }));
        assert!(!was.agrees(Identity { ino: 13, ..was }));
    }
}
