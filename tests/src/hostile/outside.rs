//! Everything that a removal must not change, and what changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr};
use sha2::{Digest, Sha256};

use crate::error::{Doing, Result};
use crate::hostile::build::{Flag, flag_of};

/// Everything below some directories: types, modes, owners, link counts, flags, extended attributes, times and contents, by path.
/// Mounts are entered: what they show must stay as well.
#[derive(Clone, PartialEq, Eq)]
pub struct Outside {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// The file system, so that it is seen when a mount is gone.
    dev: u64,
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Not of directories: it counts subdirectories, which are in the list themselves.
    links: Option<u64>,
    rdev: u64,
    /// Of files: directories change theirs when the tree beside goes.
    modified: Option<(i64, i64)>,
    flags: Vec<Flag>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The hash of a file, the target of a symlink.
    content: String,
}

impl Outside {
    /// What is below these directories, except what is at or below some paths.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn of(roots: &[PathBuf], except: &[PathBuf]) -> Result<Self> {
        let mut seen = Self {
            entries: BTreeMap::new(),
        };
        for root in roots {
            seen.add(root, except)?;
        }
        Ok(seen)
    }

    fn add(&mut self, path: &Path, except: &[PathBuf]) -> Result<()> {
        if except.iter().any(|skipped| skipped == path) {
            return Ok(());
        }
        let meta = fs::symlink_metadata(path).at("look at", path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(path).at("list", path)? {
                self.add(&entry.at("list", path)?.path(), except)?;
            }
        }
        self.entries.insert(path.to_owned(), Entry::of(path, &meta)?);
        Ok(())
    }

    /// The same, but one file has lost so many names, which were in the tree.
    #[must_use]
    pub fn with_fewer_links(mut self, path: &Path, names: u64) -> Self {
        for (other, entry) in &mut self.entries {
            if other == path {
                entry.links = entry.links.map(|links| links - names);
            }
        }
        self
    }

    /// What was there and is not now, with `-`, what is new, with `+`, and what became other, with both. Nothing if nothing
    /// changed.
    pub fn changes(&self, now: &Self) -> String {
        let mut changes = String::new();
        let paths = self.entries.keys().chain(now.entries.keys());
        let paths: std::collections::BTreeSet<_> = paths.collect();
        for path in paths {
            let (before, after) = (self.entries.get(path), now.entries.get(path));
            if before == after {
                continue;
            }
            let shown = path.as_os_str().as_bytes().escape_ascii();
            for (sign, entry) in [('-', before), ('+', after)] {
                if let Some(entry) = entry {
                    let _ = writeln!(changes, "{sign} {shown}: {entry}");
                }
            }
        }
        changes
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries", self.entries.len())
    }
}

impl Entry {
    fn of(path: &Path, meta: &Metadata) -> Result<Self> {
        let kind = meta.file_type();
        let kind = match () {
            () if kind.is_dir() => "directory",
            () if kind.is_file() => "file",
            () if kind.is_symlink() => "symlink",
            () if kind.is_fifo() => "fifo",
            () if kind.is_socket() => "socket",
            () if kind.is_char_device() => "character device",
            () => "block device",
        };
        let content = match kind {
            "file" => hash(path).at("read", path)?,
            "symlink" => fs::read_link(path)
                .at("read", path)?
                .as_os_str()
                .as_bytes()
                .escape_ascii()
                .to_string(),
            _ => String::new(),
        };
        let directory = meta.is_dir();
        Ok(Self {
            dev: meta.dev(),
            kind,
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            links: (!directory).then(|| meta.nlink()),
            rdev: meta.rdev(),
            modified: (!directory).then(|| (meta.mtime(), meta.mtime_nsec())),
            // Only files and directories have flags; to ask, they are opened.
            flags: if directory || kind == "file" {
                flag_of(path)?
            } else {
                Vec::new()
            },
            xattrs: xattrs(path)?,
            content,
        })
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Entry {
            kind, mode, owner, ..
        } = self;
        write!(
            f,
            "{kind} on {:x} mode {mode:o} of {}:{}",
            self.dev, owner.0, owner.1
        )?;
        if let Some(links) = self.links {
            write!(f, ", {links} links")?;
        }
        if let Some((seconds, nanoseconds)) = self.modified {
            write!(f, ", written {seconds}.{nanoseconds:09}")?;
        }
        for flag in &self.flags {
            write!(f, ", {flag}")?;
        }
        for (name, value) in &self.xattrs {
            write!(f, ", {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        write!(f, " {}", self.content)
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    let digest = hasher.finalize();
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let length = match llistxattr(path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).at("list attributes of", path),
    };
    names.truncate(length);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length =
            lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice()).at("read attributes of", path)?;
        value.truncate(length);
        Ok((name.to_owned(), value))
    };
    names.map(value).collect()
}

/// Gives a file an attribute.
///
/// # Errors
/// If the file system has none.
pub(super) fn set_xattr(path: &Path, name: &str, value: &str) -> Result<()> {
    rustix::fs::lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).at("set an attribute of", path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn changes(change: impl FnOnce(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::write(dir.path().join("except"), "content").unwrap();
        let seen = || Outside::of(&[dir.path().to_owned()], &[dir.path().join("except")]).unwrap();
        let before = seen();
        change(dir.path());
        let found = before.changes(&seen());
        found.replace(dir.path().to_str().unwrap(), "")
    }

    #[test]
    fn what_nobody_changed_is_the_same() {
        assert_eq!(changes(|_| ()), "");
        assert_eq!(changes(|dir| fs::write(dir.join("except"), "other").unwrap()), "");
    }

    #[test]
    fn every_change_is_seen() {
        let lost = changes(|dir| fs::remove_dir(dir.join("empty")).unwrap());
        assert!(lost.starts_with("- /empty: directory"), "{lost}");
        assert_eq!(lost.lines().count(), 1, "{lost}");
        let written = changes(|dir| fs::write(dir.join("file"), "contenT").unwrap());
        assert!(written.starts_with("- /file: file"), "{written}");
        let linked = changes(|dir| fs::hard_link(dir.join("file"), dir.join("except/../name")).unwrap_or(()));
        assert_eq!(linked, "", "a path through a file is none");
        let linked = changes(|dir| fs::hard_link(dir.join("file"), dir.join("name")).unwrap());
        assert!(
            linked.contains("+ /name: file") && linked.contains("2 links"),
            "{linked}"
        );
        let swapped = changes(|dir| {
            fs::remove_dir(dir.join("empty")).unwrap();
            std::os::unix::fs::symlink("file", dir.join("empty")).unwrap();
        });
        assert!(swapped.contains("+ /empty: symlink"), "{swapped}");
    }
}
