//! What the stand-in knows of its sandboxes: one file each below the runtime's data directory, so that a wipe takes it away.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, LabError, Result};
use crate::runtime;

pub(crate) use crate::runtime::BUNDLES;

/// One sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) attempt: u32,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) created_at: i64,
    pub(crate) netns: PathBuf,
    pub(crate) ips: Vec<String>,
    /// The pause process; none until the network is set up.
    pub(crate) pause: Option<u32>,
    /// Set by StopPodSandbox.
    pub(crate) stopped: bool,
}

impl Record {
    /// The directory of what belongs to it while it runs.
    pub(crate) fn bundle(&self) -> PathBuf {
        Path::new(BUNDLES).join(&self.id)
    }

    /// Whether the CRI shows it: a sandbox in the making is in containerd's own list only.
    pub(crate) fn is_made(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether its pause process runs.
    pub(crate) fn is_ready(&self) -> bool {
        !self.stopped && self.pause.is_some_and(is_pause)
    }

    fn path(id: &str) -> PathBuf {
        Path::new(runtime::ROOT)
            .join("stand-in")
            .join(format!("{id}.json"))
    }

    pub(crate) fn save(&self) -> Result<()> {
        let path = Self::path(&self.id);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).at("make", dir)?;
        }
        let text = serde_json::to_string(self).map_err(|error| LabError::Odd(error.to_string()))?;
        // Listed by others at any moment: whole or not at all.
        let new = path.with_extension("new");
        fs::write(&new, text).at("write", &new)?;
        fs::rename(&new, &path).at("write", &path)
    }

    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(Self::path(&self.id));
    }

    pub(crate) fn load(id: &str) -> Option<Record> {
        serde_json::from_str(&fs::read_to_string(Self::path(id)).ok()?).ok()
    }

    /// All of them.
    pub(crate) fn all() -> Vec<Record> {
        let dir = Path::new(runtime::ROOT).join("stand-in");
        let names = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        names
            .filter_map(|name| Record::load(name.to_string_lossy().strip_suffix(".json")?))
            .collect()
    }
}

/// Whether that process is a pause that runs, and not what got its id later.
pub(crate) fn is_pause(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.strip_suffix(b"\0") == Some(b"/pause".as_slice())
}
