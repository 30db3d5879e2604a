//! The tool's own directory: its lock, its journal, its memory of first sightings.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nodemend_evidence::Lock;
use serde::Serialize;

use crate::boot::Moment;
use crate::error::Error;

/// The state directory, `/var/lib/nodemend` unless told otherwise. Made when first needed, for root's eyes only.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The state directory at that path. Nothing is made yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn make(&self) -> Result<(), Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(Error::io("create directory", &self.path))
    }

    /// Takes the lock that every repair on this node holds while it changes anything.
    ///
    /// # Errors
    /// [`Error::Locked`] if another run holds it.
    pub fn lock(&self) -> Result<HostLock, Error> {
        self.make()?;
        let path = self.path.join("lock");
        let mut file = private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(Error::Locked {
                    path,
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    what: "lock",
                    path,
                    source,
                });
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(HostLock { _file: file })
    }

    /// Opens the journal for appending.
    ///
    /// # Errors
    /// If the directory or the file cannot be made.
    pub fn journal(&self) -> Result<Journal, Error> {
        self.make()?;
        let path = self.path.join("journal.jsonl");
        let file = private()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Ok(Journal { path, file })
    }

    /// What was first seen when, as far as it is remembered.
    ///
    /// # Errors
    /// If the file is there and cannot be read or understood.
    pub fn sightings(&self) -> Result<Sightings, Error> {
        let path = self.path.join("sightings.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let seen = serde_json::from_slice(&bytes).map_err(|e| Error::State {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        Ok(Sightings {
            dir: self.clone(),
            path,
            seen,
        })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// The lock over all repairs of this node. Released when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

impl Lock for HostLock {}

/// One line for each action, written and synced before the action: what was done, to what, and what is needed
/// to undo it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Appends entries, each as a line of JSON, and waits until the disk has them.
    ///
    /// # Errors
    /// If they cannot be written: then none of the actions must happen.
    pub fn append_all<T: Serialize>(&mut self, entries: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, &entry).map_err(|e| Error::State {
                path: self.path.clone(),
                reason: e.to_string(),
            })?;
            lines.push(b'\n');
        }
        self.file
            .write_all(&lines)
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io("write", &self.path))
    }

    /// Appends one entry; see [`Journal::append_all`].
    ///
    /// # Errors
    /// If it cannot be written: then the action must not happen.
    pub fn append(&mut self, entry: &impl Serialize) -> Result<(), Error> {
        self.append_all([entry])
    }
}

/// When objects were first seen that carry no time of their own.
#[derive(Debug)]
pub struct Sightings {
    dir: StateDir,
    path: PathBuf,
    seen: BTreeMap<String, Moment>,
}

impl Sightings {
    /// The first sighting of each of `keys`, which is now for a new one. Forgets every other key with the
    /// given prefix: what is not there any more starts afresh when it returns.
    pub fn see(&mut self, prefix: &str, keys: &[String], now: &Moment) -> BTreeMap<String, Moment> {
        let first: BTreeMap<String, Moment> = keys
            .iter()
            .map(|key| {
                let known = self.seen.get(key).filter(|moment| now.since(moment).is_some());
                (key.clone(), known.unwrap_or(now).clone())
            })
            .collect();
        self.seen.retain(|key, _| !key.starts_with(prefix));
        self.seen.extend(first.clone());
        first
    }

    /// Writes them down, all or nothing.
    ///
    /// # Errors
    /// If the state directory cannot be written: then nothing without a time of its own ever comes of age.
    pub fn save(&self) -> Result<(), Error> {
        self.dir.make()?;
        let bytes = serde_json::to_vec_pretty(&self.seen).map_err(|e| Error::State {
            path: self.path.clone(),
            reason: e.to_string(),
        })?;
        let new = self.path.with_extension("json.new");
        let mut file = private()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new)
            .map_err(Error::io("create", &new))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", &new))?;
        fs::rename(&new, &self.path).map_err(Error::io("rename", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        let held = state.lock().unwrap();
        match state.lock() {
            Err(Error::Locked { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("expected Locked, got {other:?}"),
        }
        drop(held);
        state.lock().unwrap();
    }

    #[test]
    fn first_sightings_last_until_the_thing_goes_or_the_machine_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let at = |boot: &str, since_boot| Moment {
            boot_id: boot.into(),
            since_boot,
            unix: 0,
        };
        let keys = ["veth:a".to_owned()];

        let mut sightings = state.sightings().unwrap();
        sightings.see("veth:", &keys, &at("x", 100));
        sightings.save().unwrap();
        let mut sightings = state.sightings().unwrap();
        assert_eq!(
            sightings.see("veth:", &keys, &at("x", 700))["veth:a"].since_boot,
            100
        );
        assert_eq!(
            sightings.see("veth:", &keys, &at("y", 5))["veth:a"].since_boot,
            5,
            "another boot"
        );
        sightings.see("veth:", &[], &at("y", 6));
        assert_eq!(
            sightings.see("veth:", &keys, &at("y", 9))["veth:a"].since_boot,
            9,
            "it was gone"
        );
    }
}
