//! The mount table: `/proc/PID/mountinfo`, as proc(5) describes it.
//!
//! A node may have fifty thousand mounts, and most say the same of themselves: a table keeps each such word once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::hash::Hash;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host::Host;

/// The most of a mount table that is read, in bytes: about half a million mounts.
const LIMIT: u64 = 128 << 20;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Its id; ids are reused after an unmount.
    pub id: u64,
    /// The id of the mount it is mounted on.
    pub parent: u64,
    /// Major and minor device number. Bind mounts share them with what they bind.
    pub dev: (u32, u32),
    /// What of the file system is mounted; `net:[4026532321]` for a network namespace.
    #[serde(with = "crate::text")]
    #[schemars(with = "PathBuf")]
    pub root: Arc<Path>,
    /// Where, seen from the root of the process.
    #[serde(with = "crate::text")]
    #[schemars(with = "PathBuf")]
    pub mountpoint: PathBuf,
    /// Type of the file system; `nsfs` for a namespace.
    pub fstype: Arc<str>,
    /// The source, as the file system tells it.
    #[serde(with = "crate::text")]
    #[schemars(with = "String")]
    pub source: Arc<OsStr>,
    /// The options of the file system itself, which all of its mounts share, as it tells them: `rw,subvolid=256,subvol=/a`.
    /// Only `subvolid` and `subvol` of btrfs are those of the mount.
    #[serde(default = "nothing", with = "crate::text")]
    #[schemars(with = "String")]
    pub options: Arc<OsStr>,
}

fn nothing() -> Arc<OsStr> {
    OsStr::new("").into()
}

impl Mount {
    /// The inode of the network namespace that this mount holds, if it holds one.
    pub fn netns_inode(&self) -> Option<u64> {
        let root = self.root.as_os_str().as_bytes();
        let inode = root.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
        std::str::from_utf8(inode).ok()?.parse().ok()
    }
}

/// The mounts that a process sees, in the order of the table.
///
/// # Errors
/// If the table cannot be read, or has a line of another form.
pub fn of_process(host: &Host, pid: u32) -> Result<Vec<Mount>, Error> {
    parse(&host.read(Path::new(&format!("/proc/{pid}/mountinfo")), LIMIT)?)
}

/// Parses a whole table.
///
/// # Errors
/// [`Error::MountTable`] with the number of the first line that does not parse: a table that is understood in
/// part says nothing of what is not mounted.
pub fn parse(table: &[u8]) -> Result<Vec<Mount>, Error> {
    rows(table).collect()
}

/// The mounts of a table one by one, for who needs few of many.
pub fn rows(table: &[u8]) -> impl Iterator<Item = Result<Mount, Error>> {
    let mut words = Words::default();
    table
        .split(|&byte| byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(move |(index, line)| parse_line(line, &mut words).ok_or(Error::MountTable { line: index + 1 }))
}

/// What a table says again and again, each kept once.
#[derive(Default)]
struct Words {
    roots: HashSet<Arc<Path>>,
    types: HashSet<Arc<str>>,
    others: HashSet<Arc<OsStr>>,
}

fn once<T>(known: &mut HashSet<Arc<T>>, word: &T) -> Arc<T>
where
    T: ?Sized + Eq + Hash,
    Arc<T>: for<'w> From<&'w T>,
{
    if let Some(word) = known.get(word) {
        return Arc::clone(word);
    }
    let word = Arc::from(word);
    known.insert(Arc::clone(&word));
    word
}

fn parse_line(line: &[u8], words: &mut Words) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut next = || fields.next();
    let id = number(next()?)?;
    let parent = number(next()?)?;
    let dev = std::str::from_utf8(next()?).ok()?.split_once(':')?;
    let root = once(&mut words.roots, Path::new(&*unescape(next()?)));
    let mountpoint = PathBuf::from(unescape(next()?).into_owned());
    // The mount options, then optional fields up to a lone dash.
    while next()? != b"-" {}
    let fstype = once(&mut words.types, &String::from_utf8_lossy(next()?));
    let source = once(&mut words.others, &unescape(next()?));
    let options = once(&mut words.others, &unescape(next()?));
    let dev = (dev.0.parse().ok()?, dev.1.parse().ok()?);
    Some(Mount {
        id,
        parent,
        dev,
        root,
        mountpoint,
        fstype,
        source,
        options,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Space, tab, newline and backslash stand as three octal digits behind a backslash.
fn unescape(field: &[u8]) -> Cow<'_, OsStr> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(OsStr::from_bytes(field));
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
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
    Cow::Owned(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netns_mount_gives_its_inode() {
        let line = b"581 26 0:4 net:[4026532321] /run/netns/cni-34d83b59 rw shared:5 - nsfs nsfs rw\n";
        let mounts = parse(line).unwrap();
        assert_eq!(mounts[0].netns_inode(), Some(4_026_532_321));
        assert_eq!(mounts[0].mountpoint, Path::new("/run/netns/cni-34d83b59"));
    }

    #[test]
    fn hostile_names_are_unescaped() {
        let line = br"40 1 8:1 /a\040b /mnt/new\012line\134 rw,noatime master:1 - ext4 /dev/x\011y rw";
        let mount = &parse(line).unwrap()[0];
        assert_eq!(mount.mountpoint, Path::new("/mnt/new\nline\\"));
        assert_eq!(&*mount.root, Path::new("/a b"));
        assert_eq!(&*mount.source, "/dev/x\ty");
        assert_eq!(&*mount.options, "rw");
        assert_eq!(mount.netns_inode(), None);
    }

    #[test]
    fn what_mounts_have_in_common_is_kept_once() {
        let table = b"40 1 8:1 /a /one rw - ext4 /dev/sda1 rw\n41 1 8:1 /a /two rw - ext4 /dev/sda1 rw\n";
        let mounts = parse(table).unwrap();
        assert!(Arc::ptr_eq(&mounts[0].root, &mounts[1].root));
        assert!(Arc::ptr_eq(&mounts[0].fstype, &mounts[1].fstype));
        assert!(Arc::ptr_eq(&mounts[0].source, &mounts[1].source));
        assert!(Arc::ptr_eq(&mounts[0].options, &mounts[1].options));
    }

    #[test]
    fn a_cut_table_is_an_error_that_names_the_line() {
        let table = b"26 1 8:1 / / rw - ext4 /dev/sda1 rw\n27 26 0:4 net:[40";
        assert!(matches!(parse(table), Err(Error::MountTable { line: 2 })));
    }
}
