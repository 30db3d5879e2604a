//! What EPERM means, and what helps: the immutable and the append-only flag (chattr(1), ioctl_iflags(2)).
//!
//! The kernel refuses to remove an entry that has one of them, and any entry of a directory that has one of them
//! (`may_delete` and `inode_permission` in fs/namei.c). A name may stand for something else by the time it is looked at, so:
//!
//! - What a name stands for is opened once, with `O_PATH`, without following a symlink and without crossing a mount. What is
//!   examined, changed and changed back is that inode, whatever gets the name meanwhile. What is mounted on a name is never
//!   changed: the flags that count are of what lies below, which cannot be reached, so that is a refusal.
//! - Only regular files and directories are opened for the ioctl. To open a device, a fifo or a socket can do something, and
//!   none of them can have the flags set by FS_IOC_SETFLAGS.
//! - After the attempt, the flags come back on whatever still has a name: a file that has another link, which may be outside
//!   of the tree, and an entry that stayed. Between the two calls the file is without protection; a kill there leaves it so.
//! - The flags of a directory of the tree, once taken off for what is in it, stay off: it is to go as well, other workers are
//!   removing from it, and what stays in it stays for a reason of its own. The root of a tree that is only emptied gets them
//!   back at the end ([`Outcome::directory`], [`put_back`]); the directory that the root is in, which is no part of the tree,
//!   at once ([`Directory`]).
//!
//! An active swap file gives EPERM as well, and has no flag.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nodemend_hostfs::FileId;
use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::descent::{mount_id, procfs, reopened};
use crate::report::Reason;

/// The two flags, on one inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Nothing of it can change.
    pub(crate) immutable: bool,
    /// It can only grow.
    pub(crate) append_only: bool,
}

impl Flags {
    /// True if neither is set.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn and(self, more: Self) -> Self {
        Self {
            immutable: self.immutable || more.immutable,
            append_only: self.append_only || more.append_only,
        }
    }

    fn bits(self) -> IFlags {
        let mut bits = IFlags::empty();
        bits.set(IFlags::IMMUTABLE, self.immutable);
        bits.set(IFlags::APPEND, self.append_only);
        bits
    }
}

impl From<IFlags> for Flags {
    fn from(bits: IFlags) -> Self {
        Self {
            immutable: bits.contains(IFlags::IMMUTABLE),
            append_only: bits.contains(IFlags::APPEND),
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.immutable, self.append_only) {
            (true, true) => "immutable and append-only",
            (true, false) => "immutable",
            (false, true) => "append-only",
            (false, false) => "without flags",
        })
    }
}

/// Which flags keep an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Protection {
    /// Those of the entry.
    pub(crate) entry: Flags,
    /// Those of the directory that it is in.
    pub(crate) directory: Flags,
}

impl Protection {
    /// For the report: the stronger one.
    pub(crate) fn reason(self) -> Reason {
        if self.entry.and(self.directory).immutable {
            Reason::Immutable
        } else {
            Reason::AppendOnly
        }
    }
}

/// `the directory is immutable, the entry is append-only`
impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.directory.is_empty(), self.entry.is_empty()) {
            (true, _) => write!(f, "the entry is {}", self.entry),
            (false, true) => write!(f, "the directory is {}", self.directory),
            (false, false) => write!(
                f,
                "the directory is {}, the entry is {}",
                self.directory, self.entry
            ),
        }
    }
}

/// Why an entry could not be removed with its flags off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Something is mounted on it, or the kernel cannot tell. Nothing was changed.
    Mounted,
    /// These flags were found and do not come off: EPERM without `CAP_LINUX_IMMUTABLE`, EROFS on a read-only mount.
    Stuck {
        /// The flags that were found.
        protection: Protection,
        /// What the kernel said to taking them off.
        error: Errno,
    },
    /// The attempt failed all the same; or the entry could not be looked at, with NOENT if it has gone by itself.
    Kernel(Errno),
}

/// What becomes of the directory that an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directory {
    /// It is part of the tree: flags that were taken off it stay off.
    Goes,
    /// It holds the root of the tree: its flags come back after each attempt.
    Stays,
}

/// What came of an attempt.
#[derive(Debug)]
#[must_use]
pub(crate) struct Outcome {
    /// Whether the entry is gone.
    pub(crate) result: Result<(), Refusal>,
    /// What was taken off the directory and is still off, whether or not the entry is gone.
    pub(crate) directory: Flags,
    /// The inode that the entry stood for lives on, by another name if the entry is gone, or the directory does that stays,
    /// without these flags: the kernel refused to put them back.
    pub(crate) bare: Option<(Flags, Errno)>,
}

impl Outcome {
    /// As unlinkat would have it: BUSY for a mount, PERM for flags that do not come off.
    pub(crate) fn in_errno(self) -> Result<(), Errno> {
        self.result.map_err(|refusal| match refusal {
            Refusal::Mounted => Errno::BUSY,
            Refusal::Stuck { .. } => Errno::PERM,
            Refusal::Kernel(error) => error,
        })
    }
}

/// Which flags keep an entry, after the kernel said EPERM; None if none do, or if it has gone.
pub(crate) fn protecting(dir: BorrowedFd<'_>, name: &CStr) -> Option<Protection> {
    let protection = Protection {
        entry: open_entry(dir, name)
            .and_then(|entry| entry.flags().map_err(Refusal::Kernel))
            .unwrap_or_default(),
        directory: directory_flags(dir).unwrap_or_default(),
    };
    (protection != Protection::default()).then_some(protection)
}

/// Removes an entry that the kernel kept with EPERM: takes the flags off it and the directory, removes it, and puts the flags
/// back on what still has a name. `how` is `REMOVEDIR` or nothing.
pub(crate) fn remove_protected(
    dir: BorrowedFd<'_>,
    name: &CStr,
    how: AtFlags,
    directory: Directory,
) -> Outcome {
    with_flags_off(dir, name, directory, || rustix::fs::unlinkat(dir, name, how))
}

/// As [`remove_protected`], with another way to remove the entry. It may be tried several times.
pub(crate) fn with_flags_off(
    dir: BorrowedFd<'_>,
    name: &CStr,
    directory: Directory,
    mut remove: impl FnMut() -> Result<(), Errno>,
) -> Outcome {
    // Another worker may remove another link of the same inode, and put the flags back between our two calls. One of the
    // two gets ahead each time, so a few rounds are enough for the few links that are removed at once.
    const ROUNDS: usize = 16;
    let mut outcome = Outcome {
        result: Err(Refusal::Kernel(Errno::PERM)),
        directory: Flags::default(),
        bare: None,
    };
    for _ in 0..ROUNDS {
        outcome.result = round(dir, name, &mut remove, &mut outcome.directory, &mut outcome.bare);
        if outcome.result != Err(Refusal::Kernel(Errno::PERM)) {
            break;
        }
    }
    if directory == Directory::Stays {
        let taken = std::mem::take(&mut outcome.directory);
        if let Err(error) = put_back(dir, taken) {
            outcome.bare = Some((taken, error));
        }
    }
    outcome
}

/// Puts flags back on a directory that stays.
///
/// # Errors
/// What the ioctl gives.
pub(crate) fn put_back(dir: BorrowedFd<'_>, flags: Flags) -> Result<(), Errno> {
    set(&reopened(dir)?, flags)
}

fn round(
    dir: BorrowedFd<'_>,
    name: &CStr,
    remove: &mut impl FnMut() -> Result<(), Errno>,
    directory_taken: &mut Flags,
    bare: &mut Option<(Flags, Errno)>,
) -> Result<(), Refusal> {
    let entry = open_entry(dir, name)?;
    let protection = Protection {
        entry: entry.flags().map_err(Refusal::Kernel)?,
        directory: directory_flags(dir).map_err(Refusal::Kernel)?,
    };
    let stuck = |error| Refusal::Stuck { protection, error };
    if !protection.directory.is_empty() {
        let taken = reopened(dir).and_then(|dir| take_off(&dir)).map_err(stuck)?;
        *directory_taken = directory_taken.and(taken);
    }
    if protection.entry.is_empty() {
        return remove().map_err(Refusal::Kernel);
    }
    let held = entry.reopen().map_err(stuck)?;
    let taken = take_off(&held).map_err(stuck)?;
    let result = remove().map_err(Refusal::Kernel);
    // This inode may not be what was removed, if the name was given to another one: then it has a name somewhere. When in
    // doubt the flags come back.
    let nameless = rustix::fs::fstat(&held).is_ok_and(|stat| stat.st_nlink == 0);
    if !nameless && let Err(error) = set(&held, taken) {
        *bare = Some((taken, error));
    }
    result
}

/// What a name stood for.
struct Entry {
    path: OwnedFd,
    stat: Stat,
}

impl Entry {
    fn flags(&self) -> Result<Flags, Errno> {
        match by_statx(self.path.as_fd()) {
            Some(flags) => Ok(flags),
            None => self.by_ioctl(),
        }
    }

    fn by_ioctl(&self) -> Result<Flags, Errno> {
        match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::RegularFile | FileType::Directory => get(&self.reopen()?).map(Flags::from),
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Ok(Flags::default()),
        }
    }

    /// The same inode, opened for reading, which the ioctls need.
    fn reopen(&self) -> Result<OwnedFd, Errno> {
        let file = match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::Directory => reopened(self.path.as_fd())?,
            FileType::RegularFile => reopen_file(self.path.as_fd())?,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(Errno::OPNOTSUPP),
        };
        // /proc could be somebody else's idea of one.
        if FileId::from(&rustix::fs::fstat(&file)?) == FileId::from(&self.stat) {
            Ok(file)
        } else {
            Err(Errno::STALE)
        }
    }
}

fn open_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<Entry, Refusal> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A last component that is a symlink is opened itself, with these flags.
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let path = match rustix::fs::openat2(dir, name, flags, Mode::empty(), stay) {
        Ok(path) => path,
        Err(Errno::XDEV) => return Err(Refusal::Mounted),
        Err(_) => open_entry_compared(dir, name)?,
    };
    let stat = rustix::fs::fstat(&path).map_err(Refusal::Kernel)?;
    Ok(Entry { path, stat })
}

/// Without openat2: what was opened is compared afterwards. Ids of mounts are not used again while both are held.
fn open_entry_compared(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(Refusal::Kernel)?;
    match (mount_id(path.as_fd()), mount_id(dir)) {
        (Some(entry), Some(home)) if entry == home => Ok(path),
        _ => Err(Refusal::Mounted),
    }
}

/// The regular file behind an `O_PATH` descriptor, opened for reading. Does not wait for a lease.
fn reopen_file(path: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let proc = procfs()?;
    // A thread may have a table of descriptors of its own; thread-self is there since Linux 3.17.
    let link = |of: &str| format!("{of}/fd/{}", path.as_raw_fd());
    match rustix::fs::openat(&proc, link("thread-self"), flags, Mode::empty()) {
        Err(Errno::NOENT) => rustix::fs::openat(&proc, link("self"), flags, Mode::empty()),
        other => other,
    }
}

/// The flags of an open directory.
///
/// # Errors
/// What the ioctl gives.
pub(crate) fn directory_flags(dir: BorrowedFd<'_>) -> Result<Flags, Errno> {
    match by_statx(dir) {
        Some(flags) => Ok(flags),
        None => get(&reopened(dir)?).map(Flags::from),
    }
}

/// By statx(2), Linux 4.11, where the file system says that it tells.
fn by_statx(file: BorrowedFd<'_>) -> Option<Flags> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::empty()).ok()?;
    let both = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    stat.stx_attributes_mask.contains(both).then_some(Flags {
        immutable: stat.stx_attributes.contains(StatxAttributes::IMMUTABLE),
        append_only: stat.stx_attributes.contains(StatxAttributes::APPEND),
    })
}

/// All flags of an inode; none where the file system has no flags.
fn get(file: &OwnedFd) -> Result<IFlags, Errno> {
    match rustix::fs::ioctl_getflags(file) {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(IFlags::empty()),
        other => other,
    }
}

/// Takes both flags off, and says which were on.
fn take_off(file: &OwnedFd) -> Result<Flags, Errno> {
    let now = get(file)?;
    let taken = Flags::from(now);
    if !taken.is_empty() {
        rustix::fs::ioctl_setflags(file, now.difference(taken.bits()))?;
    }
    Ok(taken)
}

fn set(file: &OwnedFd, flags: Flags) -> Result<(), Errno> {
    // To read the flags and write them is two steps: without a need it would only undo what another worker puts back.
    if flags.is_empty() {
        return Ok(());
    }
    let now = get(file)?;
    rustix::fs::ioctl_setflags(file, now.union(flags.bits()))
}

#[cfg(test)]
mod tests;
