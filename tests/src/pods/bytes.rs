//! Every byte behind every mount, so that it can be said afterwards that none has changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Doing, LabError, Result};
use crate::hostile::Outside;
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

/// What is in some stores: everything that [`Outside`] tells of files, and the contents of devices.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes {
    trees: Outside,
    devices: BTreeMap<PathBuf, String>,
}

impl Node {
    /// What is in these stores now.
    ///
    /// # Errors
    ///
    /// When something of them is gone or cannot be read.
    pub fn bytes(&self, stores: &[Store]) -> Result<Bytes> {
        let (mut roots, mut except, mut devices) = (Vec::new(), Vec::new(), BTreeMap::new());
        for store in stores {
            let (pid, at) = match store {
                Store::Tree(at) => (1, at),
                Store::SeenBy(pid, at) => (*pid, at),
                Store::Device(at) => {
                    devices.insert(at.clone(), hash(&self.path(at)).at("read", at)?);
                    continue;
                }
            };
            let root = self.path(format!("/proc/{pid}/root"));
            let below = |at: &Path| root.join(at.strip_prefix("/").unwrap_or(at));
            roots.push(below(at));
            let mounts = self.mounts_seen_by(pid)?.into_iter();
            let hung = mounts.filter(|mount| mount.kind.starts_with("fuse"));
            except.extend(hung.map(|mount| below(&mount.at)));
        }
        let trees = Outside::of(&roots, &except)?;
        Ok(Bytes { trees, devices })
    }

    /// Everything in these stores must be as it was.
    ///
    /// # Errors
    ///
    /// With every difference.
    pub fn same_bytes(&self, stores: &[Store], before: &Bytes) -> Result<()> {
        let now = self.bytes(stores)?;
        if *before == now {
            return Ok(());
        }
        let devices = before.devices.iter();
        let other: Vec<String> = devices
            .filter(|(at, hash)| now.devices.get(*at) != Some(hash))
            .map(|(at, _)| at.display().to_string())
            .collect();
        let trees = before.trees.changes(&now.trees);
        Err(LabError::Odd(format!(
            "data changed: {}\n{trees}",
            other.join(" ")
        )))
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    let digest = hasher.finalize();
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} and {} devices", self.trees, self.devices.len())
    }
}
