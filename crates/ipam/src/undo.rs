//! Putting back what a run removed.

use std::collections::HashMap;
use std::path::PathBuf;

use nodemend_hostfs::{Host, StateDir};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::form::{self, Name};
use crate::netdir::{NetDir, Restored};
use crate::undodir::{Saved, load};

/// What an undo did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UndoReport {
    /// The files that are back.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<PathBuf>")]
    pub restored: Vec<PathBuf>,
    /// The files that were not put back, each with the reason.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<(PathBuf, String)>")]
    pub kept: Vec<(PathBuf, String)>,
}

/// Puts back every reservation of a run whose address still is free, with its content, mode and time, under
/// host-local's lock. Takes the lock of the state directory itself, so the caller must not hold it. May be repeated.
///
/// Only the reservations come back. What a CNI DEL took away beyond them (port mappings, masquerading) does not.
///
/// # Errors
/// [`Error::NoSuchRun`], which names those that are there; if the manifest cannot be read; if another run holds the
/// lock. What failed for one file is in the report.
pub fn undo(state: &StateDir, run: &str) -> Result<UndoReport, Error> {
    let saved = load(state, run)?;
    let _lock = state.lock()?;
    let mut dirs = HashMap::new();
    let mut report = UndoReport::default();
    for saved in saved {
        match put_back(&saved, &mut dirs) {
            Ok(Restored::Back) => report.restored.push(saved.path()),
            Ok(Restored::Kept(why)) => report.kept.push((saved.path(), why)),
            Err(error) => report.kept.push((saved.path(), error.to_string())),
        }
    }
    dirs.values().try_for_each(NetDir::sync)?;
    Ok(report)
}

fn put_back(saved: &Saved, dirs: &mut HashMap<PathBuf, NetDir>) -> Result<Restored, Error> {
    if !matches!(form::name(saved.file.as_bytes()), Name::Address(_)) {
        return Ok(Restored::Kept("its name is no IP address".to_owned()));
    }
    let bytes = match saved.bytes() {
        Ok(bytes) => bytes,
        Err(reason) => return Ok(Restored::Kept(format!("the copy cannot be read: {reason}"))),
    };
    if !dirs.contains_key(&saved.dir) {
        dirs.insert(saved.dir.clone(), NetDir::open(&Host::local(), &saved.dir)?);
    }
    match dirs.get_mut(&saved.dir) {
        Some(dir) => dir.restore(saved, &bytes),
        None => Ok(Restored::Kept("its directory is not open".to_owned())),
    }
}
