//! The node's mounts, read from outside.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::node::Node;

/// A row of a mount table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mounted {
    /// Where.
    pub at: PathBuf,
    /// What of the file system.
    pub root: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// Device number, as text.
    pub device: String,
    /// The id of the mount.
    pub id: u64,
}

impl Node {
    /// Every mount in the node's own namespace, in the order of the table.
    ///
    /// # Errors
    ///
    /// When the table cannot be read.
    pub fn mounts(&self) -> Result<Vec<Mounted>> {
        self.mounts_seen_by(1)
    }

    /// Every mount that a process of the node sees.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn mounts_seen_by(&self, pid: u32) -> Result<Vec<Mounted>> {
        let table = self.read(format!("/proc/{pid}/mountinfo"))?;
        Ok(table.lines().filter_map(row).collect())
    }

    /// The mounts at or below a path of the node, in the order of the table.
    ///
    /// # Errors
    ///
    /// When the table cannot be read.
    pub fn mounts_below(&self, path: impl AsRef<Path>) -> Result<Vec<Mounted>> {
        let mut all = self.mounts()?;
        all.retain(|mount| mount.at.starts_with(&path));
        Ok(all)
    }
}

fn row(line: &str) -> Option<Mounted> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let device = fields.nth(1)?.to_owned();
    let root = plain(fields.next()?);
    let at = plain(fields.next()?);
    let kind = fields.skip_while(|field| *field != "-").nth(1)?.to_owned();
    Some(Mounted {
        at,
        root,
        kind,
        device,
        id,
    })
}

/// Blanks are written in octal.
fn plain(field: &str) -> PathBuf {
    let plain = field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n");
    PathBuf::from(plain.replace("\\134", "\\"))
}
