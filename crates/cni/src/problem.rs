//! What could not be understood.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file or directory that says less than it should, and why. What it would have said is unknown, not absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where. Bytes that are not UTF-8 are replaced, so that every problem can be written down as JSON.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Problem {
    pub(crate) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_string_lossy().into_owned().into(),
            reason: reason.into(),
        }
    }
}
