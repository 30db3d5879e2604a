//! Every byte behind every mount, so that it can be said afterwards that none has changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Doing, LabError, Result};
use crate::node::Node;

/// Where data is, inside a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A directory or a file, with all that is mounted below. FUSE mounts are not entered: they may hang.
    Tree(PathBuf),
    /// The content of a block device.
    Device(PathBuf),
    /// A tree in the mount namespace of a process.
    SeenBy(u32, PathBuf),
}

/// Types, modes, owners, times and contents of everything in some stores.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes {
    entries: BTreeMap<String, String>,
}

impl Node {
    /// What is in these stores now. Mounts that have gone away are missing in it, as is what was in them.
    ///
    /// # Errors
    ///
    /// When something of them cannot be read.
    pub fn bytes(&self, stores: &[Store]) -> Result<Bytes> {
        let mut entries = BTreeMap::new();
        for store in stores {
            let (pid, at, is_device) = match store {
                Store::Tree(at) => (1, at, false),
                Store::Device(at) => (1, at, true),
                Store::SeenBy(pid, at) => (*pid, at, false),
            };
            let mut walk = Walk {
                root: self.path(format!("/proc/{pid}/root")),
                pid,
                skipped: self
                    .mounts_seen_by(pid)?
                    .into_iter()
                    .filter(|mount| mount.kind.starts_with("fuse"))
                    .map(|mount| mount.at)
                    .collect(),
                entries: &mut entries,
            };
            walk.add(at, is_device)?;
        }
        Ok(Bytes { entries })
    }

    /// Everything in these stores must be as it was.
    ///
    /// # Errors
    ///
    /// With every difference.
    pub fn same_bytes(&self, stores: &[Store], before: &Bytes) -> Result<()> {
        let changes = before.changes(&self.bytes(stores)?);
        if changes.is_empty() {
            return Ok(());
        }
        Err(LabError::Odd(format!("data changed:\n{}", changes.join("\n"))))
    }
}

struct Walk<'a> {
    root: PathBuf,
    pid: u32,
    skipped: Vec<PathBuf>,
    entries: &'a mut BTreeMap<String, String>,
}

impl Walk<'_> {
    fn add(&mut self, at: &Path, is_device: bool) -> Result<()> {
        let name = format!("{}:{}", self.pid, at.as_os_str().as_bytes().escape_ascii());
        if self.skipped.iter().any(|mount| mount == at) {
            self.entries.insert(name, "FUSE".to_owned());
            return Ok(());
        }
        let path = self.root.join(at.strip_prefix("/").unwrap_or(at));
        let meta = fs::symlink_metadata(&path).at("look at", at)?;
        let kind = meta.file_type();
        let content = if kind.is_file() || (is_device && kind.is_block_device()) {
            hash(&path).at("read", at)?
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).at("read", at)?;
            target.as_os_str().as_bytes().escape_ascii().to_string()
        } else {
            String::new()
        };
        // A directory's own time changes when a mount point beside is used.
        let written = if kind.is_dir() {
            (0, 0)
        } else {
            (meta.mtime(), meta.mtime_nsec())
        };
        let entry = format!(
            "mode {:o} of {}:{}, device {}, written {}.{:09}, {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            written.0,
            written.1,
        );
        self.entries.insert(name, entry);
        if kind.is_dir() {
            for below in fs::read_dir(&path).at("list", at)? {
                let below = below.at("list", at)?.file_name();
                self.add(&at.join(below), is_device)?;
            }
        }
        Ok(())
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    let digest = hasher.finalize();
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

impl Bytes {
    /// How many files, directories and devices are in it.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// What was there and is not now, with `-`, and what is new, with `+`. Nothing if nobody changed anything.
    pub fn changes(&self, now: &Bytes) -> Vec<String> {
        let lines = |of: &Bytes, than: &Bytes, sign: char| -> Vec<String> {
            of.entries
                .iter()
                .filter(|(name, entry)| than.entries.get(*name) != Some(entry))
                .map(|(name, entry)| format!("{sign} {name} {entry}"))
                .collect()
        };
        [lines(self, now, '-'), lines(now, self, '+')].concat()
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries", self.count())
    }
}
