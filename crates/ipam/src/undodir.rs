//! What is kept for an undo: one manifest for each run, whole and on the disk before anything is removed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodemend_hostfs::StateDir;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::reservation::Reservation;

/// The manifest, in the directory of its run.
const MANIFEST: &str = "manifest.jsonl";

/// One reservation as it was: a line of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Saved {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// The name in it: the address.
    pub(crate) file: String,
    /// The bytes in it, in base64.
    pub(crate) content: String,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Last change: seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
}

impl Saved {
    pub(crate) fn of(reservation: &Reservation) -> Self {
        Self {
            dir: PathBuf::from(&*reservation.dir),
            file: reservation.file.to_string(),
            content: STANDARD.encode(reservation.content.as_bytes()),
            mode: reservation.mode,
            mtime: (reservation.mtime, reservation.mtime_nanos),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(&self.file)
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        STANDARD.decode(&self.content).map_err(|error| error.to_string())
    }
}

/// Where the runs are kept.
pub(crate) fn undo_dir(state: &StateDir) -> PathBuf {
    state.path().join("undo")
}

/// The directory of one run.
///
/// # Errors
/// If the name could lead elsewhere.
pub(crate) fn run_dir(state: &StateDir, run: &str) -> Result<PathBuf, Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if run.is_empty() || run.len() > 128 || run.starts_with('.') || !run.bytes().all(plain) {
        return Err(Error::RunName { run: run.to_owned() });
    }
    Ok(undo_dir(state).join(run))
}

/// Writes the manifest of a run: under another name first, synced, and then given its own, so that it is either whole
/// or not there. One sync for all, since a node may have tens of thousands.
///
/// # Errors
/// If it cannot be written to the end, or the run has one already: then nothing must be removed.
pub(crate) fn save<'a>(
    state: &StateDir,
    run: &str,
    reservations: impl Iterator<Item = &'a Reservation>,
) -> Result<PathBuf, Error> {
    let dir = run_dir(state, run)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(Error::io("create directory", &dir))?;
    let manifest = dir.join(MANIFEST);
    if manifest.symlink_metadata().is_ok() {
        return Err(Error::Io {
            what: "create",
            path: manifest,
            source: ErrorKind::AlreadyExists.into(),
        });
    }
    let new = dir.join("manifest.new");
    let written = write(&new, reservations).and_then(|()| {
        fs::rename(&new, &manifest).map_err(Error::io("rename", &new))?;
        sync_up(&dir, state)
    });
    if let Err(error) = written {
        // A full disk is not made fuller by what is of no use.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(dir)
}

fn write<'a>(path: &Path, reservations: impl Iterator<Item = &'a Reservation>) -> Result<(), Error> {
    let failed = |source| Error::Io {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let options = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let mut file = BufWriter::new(options.map_err(Error::io("create", path))?);
    for reservation in reservations {
        serde_json::to_writer(&mut file, &Saved::of(reservation)).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// The names on the way to the manifest must be on the disk too.
fn sync_up(dir: &Path, state: &StateDir) -> Result<(), Error> {
    let parents = dir.ancestors().take_while(|path| path.starts_with(state.path()));
    for path in parents {
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("sync", path))?;
    }
    Ok(())
}

/// Reads the manifest of a run.
///
/// # Errors
/// [`Error::NoSuchRun`]; if it cannot be read or understood.
pub(crate) fn load(state: &StateDir, run: &str) -> Result<Vec<Saved>, Error> {
    let path = run_dir(state, run)?.join(MANIFEST);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(no_such_run(state, run)),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let mut saved = Vec::new();
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io("read", &path))?;
        let entry = serde_json::from_str(&line).map_err(|error| Error::Manifest {
            path: path.clone(),
            line: at + 1,
            reason: error.to_string(),
        })?;
        saved.push(entry);
    }
    Ok(saved)
}

fn no_such_run(state: &StateDir, run: &str) -> Error {
    let known = runs(state).unwrap_or_default();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Error::NoSuchRun {
        path: undo_dir(state),
        run: run.to_owned(),
        known,
    }
}

/// The runs that can be undone, by name.
///
/// # Errors
/// If the state directory is there and cannot be read.
pub fn runs(state: &StateDir) -> Result<Vec<String>, Error> {
    let dir = undo_dir(state);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", &dir)(error)),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", &dir))?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.path().join(MANIFEST).is_file()
        {
            runs.push(name);
        }
    }
    runs.sort_unstable();
    Ok(runs)
}
