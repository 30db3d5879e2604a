//! How kubelet itself cleans up after pods that are gone, era by era: `pkg/kubelet/kubelet_volumes.go`, `cleanupOrphanedPodDirs`.
//!
//! It shows that what a repair leaves is what kubelet can finish: then it removes the rest, and stops complaining.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use serde::{Deserialize, Serialize};

/// The versions of kubelet that clean up alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Era {
    /// Up to 1.5: removes everything, whatever is mounted. Here it only says so.
    UpTo1_5,
    /// 1.6 and 1.7: keeps its hands off while there is any volume directory.
    V1_6,
    /// 1.8 to 1.20.4: the same, but counts its complaints; since 1.13.2 it asks for subpaths as well.
    V1_8,
    /// 1.20.5 and 1.21, and late releases of 1.18 and 1.19 (kubernetes#95301 was picked to them in March 2021): tries to rmdir each volume.
    V1_20,
    /// 1.22 to 1.29: rmdir only, in all of `volumes`.
    V1_22,
    /// Since 1.30: subpaths that are files go as well (#123052), and bind mounts are seen (statx).
    V1_30,
}

impl Era {
    /// All of them, with their names on the command line.
    pub const ALL: [(&'static str, Era); 6] = [
        ("1.5", Era::UpTo1_5),
        ("1.6", Era::V1_6),
        ("1.8", Era::V1_8),
        ("1.20", Era::V1_20),
        ("1.22", Era::V1_22),
        ("1.30", Era::V1_30),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Era::ALL
            .iter()
            .find(|(_, era)| *era == self)
            .map_or("", |(name, _)| name)
    }

    /// The era of that name.
    pub fn named(name: &str) -> Option<Era> {
        Era::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, era)| *era)
    }
}

/// What one round of cleaning did and said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Everything that kubelet has to complain of; it logs the first.
    pub complaints: Vec<String>,
    /// What it says at `-v=3` only: a default log is silent here.
    pub whispers: Vec<String>,
    /// The line in its log, if there is one.
    pub log: Option<String>,
    /// What it removed.
    pub removed: Vec<PathBuf>,
    /// What it would have removed with all that is mounted in it. Only of [`Era::UpTo1_5`].
    pub wiped: Vec<PathBuf>,
}

impl Pass {
    /// Whether kubelet neither complains nor keeps still about something.
    pub fn is_clean(&self) -> bool {
        self.complaints.is_empty() && self.whispers.is_empty()
    }
}

/// One round over a directory of pod directories, of which some are of pods that kubelet knows. Mounts are seen, and respected as far as that
/// era does, in the mount namespace of the caller: call it inside the node.
///
/// # Errors
///
/// When the directory cannot be listed. What happens to single pods is in the result.
pub fn pass(era: Era, pods: &Path, known: &BTreeSet<String>) -> io::Result<Pass> {
    let mut names: Vec<String> = fs::read_dir(pods)?
        .flatten()
        // Every directory is taken for a pod, whatever its name.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut round = Round {
        era,
        done: Pass::default(),
    };
    for uid in names.iter().filter(|uid| !known.contains(*uid)) {
        round.orphan(uid, &pods.join(uid));
    }
    let mut done = round.done;
    done.log = log_line(era, &done.complaints);
    Ok(done)
}

struct Round {
    era: Era,
    done: Pass,
}

impl Round {
    fn orphan(&mut self, uid: &str, dir: &Path) {
        let volumes = match volume_paths(dir) {
            Ok(volumes) => volumes,
            Err(error) => {
                let what = if self.era == Era::UpTo1_5 {
                    "occured"
                } else {
                    "occurred"
                };
                self.complain(
                    uid,
                    &format!(
                        "error {} {what} during reading volume dir from disk",
                        text(&error)
                    ),
                );
                return;
            }
        };
        if self.era == Era::UpTo1_5 {
            self.done.wiped.push(dir.to_owned());
            return;
        }
        if self.era >= Era::V1_20 && volumes.iter().any(|volume| self.is_mounted(volume)) {
            self.done.whispers.push(format!(
                "\"Orphaned pod found, but volumes are not cleaned up\" podUID=\"{uid}\""
            ));
            return;
        }
        let finished = match self.era {
            Era::UpTo1_5 | Era::V1_6 | Era::V1_8 => self.waits_for_volumes(uid, dir, &volumes),
            Era::V1_20 => self.removes_leaves(uid, dir, &volumes),
            Era::V1_22 | Era::V1_30 => {
                self.removes_leaves(uid, dir, &volumes) && self.removes_directories(uid, &dir.join("volumes"))
            }
        };
        if finished {
            self.rest(uid, dir);
        }
    }

    fn waits_for_volumes(&mut self, uid: &str, dir: &Path, volumes: &[PathBuf]) -> bool {
        if !volumes.is_empty() {
            self.complain(uid, "volume paths are still present on disk");
            return false;
        }
        if self.era == Era::V1_8 && dir.join("volume-subpaths").exists() {
            self.complain(uid, "volume subpaths are still present on disk");
            return false;
        }
        true
    }

    /// Each volume's leaf, and each subpath.
    fn removes_leaves(&mut self, uid: &str, dir: &Path, volumes: &[PathBuf]) -> bool {
        let before = self.done.complaints.len();
        for volume in volumes {
            if let Err(error) = self.rmdir(volume) {
                let why = format!(
                    "failed to rmdir() volume at path {}: {}",
                    volume.display(),
                    text(&error)
                );
                self.complain(uid, &why);
            }
        }
        for subpath in subpaths(dir) {
            let gone = match self.rmdir(&subpath) {
                Err(_) if self.era >= Era::V1_30 => self.unlink(&subpath),
                other => other,
            };
            if let Err(error) = gone {
                let why = format!(
                    "failed to rmdir() subpath at path {}: {}",
                    subpath.display(),
                    text(&error)
                );
                self.complain(uid, &why);
            }
        }
        before == self.done.complaints.len()
    }

    /// What is left of `volumes`, by rmdir alone.
    fn removes_directories(&mut self, uid: &str, volumes: &Path) -> bool {
        match self.only_directories(volumes) {
            Ok(()) => true,
            Err(why) => {
                let era = self.era;
                self.complain(
                    uid,
                    &if era >= Era::V1_30 {
                        format!("error occurred when trying to remove the volumes dir: {why}")
                    } else {
                        format!("error {why} occurred when trying to remove the volumes dir")
                    },
                );
                false
            }
        }
    }

    fn only_directories(&mut self, dir: &Path) -> Result<(), String> {
        let error = match self.rmdir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if !fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir()) {
            return Err(text(&error));
        }
        self.not_a_mount(dir)?;
        let mut first = None;
        for below in children(dir).map_err(|error| text(&error))? {
            let done = self.only_directories(&below);
            first = first.or(done.err());
        }
        let again = self.rmdir(dir).map_err(|error| text(&error));
        first.map_or(again, Err)
    }

    /// The rest of the pod directory, with its files: everything but `volumes`, on this file system only.
    fn rest(&mut self, uid: &str, dir: &Path) {
        let below = match children(dir) {
            Ok(below) => below,
            Err(error) => {
                let why = format!(
                    "error occurred during reading the pod dir from disk: {}",
                    text(&error)
                );
                self.complain(uid, &why);
                return;
            }
        };
        for path in below {
            if self.era >= Era::V1_22 && path.ends_with("volumes") {
                self.complain(uid, "volumes subdir was found after it was removed");
                return;
            }
            if let Err(why) = self.everything(&path) {
                self.complain(
                    uid,
                    &format!(
                        "error occurred when trying to remove subdir {}: {why}",
                        path.display()
                    ),
                );
                return;
            }
        }
        if let Err(error) = self.rmdir(dir) {
            self.complain(
                uid,
                &format!(
                    "error occurred when trying to remove the pod dir: {}",
                    text(&error)
                ),
            );
        }
    }

    fn everything(&mut self, path: &Path) -> Result<(), String> {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        if !meta.is_dir() {
            return self.unlink(path).map_err(|error| text(&error));
        }
        self.not_a_mount(path)?;
        for below in children(path).map_err(|error| text(&error))? {
            self.everything(&below)?;
        }
        self.rmdir(path).map_err(|error| text(&error))
    }

    fn not_a_mount(&self, path: &Path) -> Result<(), String> {
        if self.is_mounted(path) {
            return Err(format!(
                "cannot delete directory {}: it is a mount point",
                path.display()
            ));
        }
        Ok(())
    }

    /// `IsLikelyNotMountPoint`, turned round: before 1.30 it compares devices only, and a bind of the same file system escapes it.
    fn is_mounted(&self, path: &Path) -> bool {
        if self.era >= Era::V1_30 {
            let asked = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
            return asked.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
        path.parent()
            .is_some_and(|parent| device(path).is_some() && device(path) != device(parent))
    }

    fn rmdir(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)?;
        self.done.removed.push(path.to_owned());
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        self.done.removed.push(path.to_owned());
        Ok(())
    }

    fn complain(&mut self, uid: &str, why: &str) {
        let who = if self.era >= Era::V1_20 {
            "orphaned"
        } else {
            "Orphaned"
        };
        self.done
            .complaints
            .push(format!("{who} pod \"{uid}\" found, but {why}"));
    }
}

/// `getPodVolumePathListFromDisk`: two levels below `volumes`; of CSI a third, `mount`, and only that.
fn volume_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let plugins = match children(&dir.join("volumes")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
        other => other?,
    };
    for plugin in plugins {
        for volume in children(&plugin)? {
            if !plugin.ends_with("kubernetes.io~csi") {
                paths.push(volume);
            } else if volume.join("mount").exists() {
                paths.push(volume.join("mount"));
            }
        }
    }
    Ok(paths)
}

/// `getPodVolumeSubpathListFromDisk`: three levels below `volume-subpaths`.
fn subpaths(dir: &Path) -> Vec<PathBuf> {
    let below = |paths: Vec<PathBuf>| {
        let all = paths.iter().flat_map(|path| children(path).unwrap_or_default());
        all.collect::<Vec<PathBuf>>()
    };
    below(below(below(vec![dir.join("volume-subpaths")])))
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// As Go says it.
fn text(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Only the first complaint gets into the log.
fn log_line(era: Era, complaints: &[String]) -> Option<String> {
    let first = complaints.first()?;
    let all = complaints.len();
    Some(match era {
        Era::UpTo1_5 | Era::V1_6 => format!("E0105 10:00:00.000000    1234 kubelet_volumes.go:114] {first}"),
        Era::V1_8 | Era::V1_20 => format!(
            "E0105 10:00:00.000000    1234 kubelet_volumes.go:154] {first} : There were a total of {all} errors similar to this. \
             Turn up verbosity to see them."
        ),
        Era::V1_22 | Era::V1_30 => format!(
            "E0105 10:00:00.000000    1234 kubelet_volumes.go:263] \"There were many similar errors. Turn up verbosity to see them.\" \
             err=\"{}\" numErrs={all}",
            first.replace('"', "\\\"")
        ),
    })
}
