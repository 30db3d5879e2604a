//! Time that passes for files only: grace periods are over at once.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::error::{Doing, Result};
use crate::node::Node;
use crate::sandbox::CNI_CACHE;

impl Node {
    /// Sets the time of a file or directory of the node back. Namespace files cannot be aged: their time is the kernel's.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn age_file(&self, inside: impl AsRef<Path>, by: Duration) -> Result<()> {
        age(&self.path(inside), by)
    }

    /// Sets back the time of every reservation, cache file and CNI configuration of the node.
    ///
    /// # Errors
    ///
    /// At the first that cannot be set.
    pub fn age_everything(&self, by: Duration) -> Result<()> {
        for dir in [self.data_dir(), Path::new(CNI_CACHE), Path::new("/etc/cni/net.d")] {
            age_tree(&self.path(dir), by)?;
        }
        Ok(())
    }
}

fn age_tree(dir: &Path, by: Duration) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().at("look at", &entry.path())?;
        if kind.is_dir() {
            age_tree(&entry.path(), by)?;
        } else if kind.is_file() {
            age(&entry.path(), by)?;
        }
    }
    Ok(())
}

fn age(path: &Path, by: Duration) -> Result<()> {
    let then = SystemTime::now()
        .checked_sub(by)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    File::open(path)
        .and_then(|file| file.set_modified(then))
        .at("age", path)
}
