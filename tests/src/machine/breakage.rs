//! The incident's first half: a root full of small files, and a metadata store that lets containerd die at every start.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Machine;
use crate::error::{Doing, LabError, Result};
use crate::runtime::UNIT;

/// containerd's metadata store: a bbolt database.
pub const METADATA: &str = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db";

/// Where snapshots lie that no record knows.
pub const LEAKED: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Above any number that the snapshotter gives in a test.
const FIRST_LEAKED: u32 = 1_000_000;

const FILES_PER_DIR: u32 = 100;
const DIRS_PER_SNAPSHOT: u32 = 10;

/// As many as the machine has processors, usually.
const WRITERS: u32 = 2;

/// bbolt's page is the kernel's.
const PAGE: usize = 4096;

/// What becomes of the shims when containerd is killed: the two forms of the incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shims {
    /// They live on, as after `systemctl kill --kill-who=main` or the kernel's OOM killer.
    Live,
    /// They die with it, as after `systemctl kill`.
    Die,
}

impl Machine {
    /// Puts this many small files below the runtime's root, 1000 to a snapshot, as pods full of caches and `.git` directories leave them.
    ///
    /// A running containerd removes such snapshots when it next collects garbage: do this to one that does not run.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub fn leak_snapshots(&self, files: u32) -> Result<()> {
        let dirs = files.div_ceil(FILES_PER_DIR);
        let root = self.path(LEAKED);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|first| {
                    let root = &root;
                    scope.spawn(move || {
                        (first..dirs)
                            .step_by(WRITERS as usize)
                            .try_for_each(|n| fill(root, n))
                    })
                })
                .collect();
            writers.into_iter().try_for_each(|writer| {
                writer
                    .join()
                    .map_err(|_panic| LabError::Odd("a writer panicked".to_owned()))?
            })
        })
    }

    /// Kills containerd in the middle of its work and damages its metadata; returns when systemd has tried twice to start it again. The
    /// applications live on in either case; only the shims of containerd 1.4 take them with them.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] when containerd starts nevertheless.
    pub fn break_metadata(&self, shims: Shims) -> Result<()> {
        let before = self.unit(UNIT)?.restarts;
        match shims {
            Shims::Live => self.kill_main_process()?,
            Shims::Die => self.kill_all_processes()?,
        }
        self.damage_metadata()?;
        self.await_that("crash loop of containerd", Duration::from_secs(60), "", || {
            self.unit(UNIT).is_ok_and(|unit| unit.restarts >= before + 2)
        })
    }

    /// Overwrites every page of the metadata store but the two that describe it.
    fn damage_metadata(&self) -> Result<()> {
        let path = self.path(METADATA);
        let file = File::options().write(true).open(&path).at("open", &path)?;
        let size = file.metadata().at("look at", &path)?.len();
        let pages = vec![0; usize::try_from(size).unwrap_or_default().saturating_sub(2 * PAGE)];
        file.write_all_at(&pages, 2 * PAGE as u64).at("damage", &path)
    }
}

/// One directory of small files.
fn fill(root: &Path, n: u32) -> Result<()> {
    let snapshot = root.join((FIRST_LEAKED + n / DIRS_PER_SNAPSHOT).to_string());
    let dir = snapshot.join(format!("fs/app/.git/objects/{:02x}", n % DIRS_PER_SNAPSHOT));
    fs::create_dir_all(&dir).at("make", &dir)?;
    for file in 0..FILES_PER_DIR {
        let path = dir.join(format!("{file:038x}"));
        fs::write(&path, "x").at("write", &path)?;
    }
    Ok(())
}
