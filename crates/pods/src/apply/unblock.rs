//! The weakest repair: what stops kubelet from finishing by itself goes, and nothing else.
//!
//! kubelet's collector (`cleanupOrphanedPodDirs` in `pkg/kubelet/kubelet_volumes.go`) stops, by its age, at a directory of a
//! volume (up to 1.20.4), at `volume-subpaths` (1.13 to 1.20.4), at a file where it calls rmdir (1.20.5 to 1.29), at anything
//! that is not empty. `volumes` itself stays: kubelets before 1.8 complain if it is missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_evidence::{Confirmed, Outcome};
use rustix::fs::FileType;

use super::gates;
use super::inventory::{EMPTY_FILE, Found, RECORD};
use super::steps::{Step, name};
use super::work::Work;
use crate::error::Error;
use crate::held::Held;
use crate::pod::PodDir;
use crate::volume::{Class, Content, Part};

/// Removes what stops kubelet, if that is all that stops it. Otherwise nothing is done, and the outcome says what keeps it.
pub(crate) fn unblock(proof: Confirmed<'_, Arc<PodDir>>, work: &mut Work<'_, '_>) -> Outcome {
    let dir = proof.subject();
    match tried(dir, work) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn tried(dir: &PodDir, work: &mut Work<'_, '_>) -> Result<Outcome, Error> {
    let Some(pod) = work.hold(dir)? else {
        return Ok(Outcome::AlreadyGone);
    };
    work.look()?;
    if let Some(unread) = dir.unread.first().or(work.tables()?.unread.first()) {
        return Ok(Outcome::Refused(unread.clone()));
    }
    let found = work.inventory(&pod, dir)?;
    let stops: Vec<&Found> = found
        .iter()
        .filter(|found| matches!(found.part, Part::Volume | Part::Subpath))
        .collect();
    // What kubelet does not stop at, it removes with the directory: so nothing with content may lie anywhere in it.
    let precious = |found: &&Found| found.class > Class::NothingLost || stops.contains(found);
    let why = found.iter().filter(precious).find_map(|found| keeps(found, &pod));
    if let Some(why) = why {
        return Ok(Outcome::Refused(format!("nothing was removed: {why}")));
    }
    // In another namespace something of it may be in use although nothing is mounted in it.
    if let Some(near) = work.tables()?.of(dir.uid.as_str()).first() {
        let seen = super::unmount::seen(near);
        return Ok(Outcome::Refused(format!("nothing was removed: {seen}")));
    }
    let skeleton = skeleton(&pod)?;
    if stops.is_empty() && skeleton.is_empty() {
        let why = "nothing in it stops kubelet from removing it: is kubelet running?";
        return Ok(Outcome::Refused(why.to_owned()));
    }
    let records: Vec<&Found> = stops.iter().copied().filter(|found| found.record).collect();
    let kept = work.keep_records(&pod, dir, &records)?;
    let steps = planned(&pod, &stops, &skeleton);
    work.steps(dir).write_all(steps)?;
    let mut removed = 0;
    for found in &stops {
        removed += remove(&pod, found)?;
    }
    removed += remove_skeleton(&pod, &skeleton)?;
    Ok(Outcome::Mended(said(removed, kept.as_deref(), &found)))
}

/// Why this repair may not touch something, if it may not.
fn keeps(found: &Found, pod: &Held) -> Option<String> {
    let place = pod.path().join(&found.leaf);
    let place = place.display();
    match &found.content {
        Content::Mounted => Some(format!("something is mounted on {place}; --purge unmounts it")),
        Content::Files { entries, .. } => Some(format!(
            "{place} holds {entries} entries; --purge says what becomes of them"
        )),
        Content::Unread(why) => Some(format!("{place}: {why}")),
        Content::Other(kind) if found.part == Part::Subpath && kind == EMPTY_FILE => None,
        Content::Other(kind) => Some(format!("{place} is {kind}; --purge says what becomes of it")),
        Content::Empty => gates::record(found).err(),
    }
}

/// The directories above subpaths, deepest first: kubelet takes `volume-subpaths` for a sign of subpaths.
fn skeleton(pod: &Held) -> Result<Vec<PathBuf>, Error> {
    let mut directories = Vec::new();
    let mut level = vec![PathBuf::from("volume-subpaths")];
    for _ in 0..3 {
        let mut next = Vec::new();
        for path in level {
            match pod.below(&path) {
                Ok(Some(dir)) => next.extend(dir.names()?.iter().map(|name| path.join(name))),
                Ok(None) | Err(Error::NotADirectory { .. } | Error::Mounted { .. }) => continue,
                Err(error) => return Err(error),
            }
            directories.push(path);
        }
        level = next;
    }
    directories.reverse();
    Ok(directories)
}

fn remove_skeleton(pod: &Held, skeleton: &[PathBuf]) -> Result<usize, Error> {
    let mut removed = 0;
    for path in skeleton {
        removed += usize::from(rmdir(pod, path)?);
    }
    Ok(removed)
}

fn planned<'s>(pod: &Held, stops: &[&Found], skeleton: &[PathBuf]) -> Vec<Step<'s>> {
    let mut steps = Vec::new();
    for found in stops {
        let leaf = pod.path().join(&found.leaf);
        let place = pod.path().join(&found.place);
        match found.content {
            Content::Other(_) => steps.push(Step::RemoveFile { path: leaf.clone() }),
            Content::Empty | Content::Mounted | Content::Files { .. } | Content::Unread(_) => {
                steps.push(Step::RemoveDirectory { path: leaf.clone() });
            }
        }
        if found.record {
            steps.push(Step::RemoveFile {
                path: place.join(RECORD),
            });
        }
        if leaf != place {
            steps.push(Step::RemoveDirectory { path: place });
        }
    }
    steps.extend(skeleton.iter().map(|path| Step::RemoveDirectory {
        path: pod.path().join(path),
    }));
    steps
}

/// One thing, from the inside out. The kernel makes sure once more that a directory is empty and nothing is mounted on it.
fn remove(pod: &Held, found: &Found) -> Result<usize, Error> {
    let mut removed = 0;
    if matches!(found.content, Content::Other(_)) {
        return Ok(usize::from(unlink_empty(pod, &found.leaf)?));
    }
    removed += usize::from(rmdir(pod, &found.leaf)?);
    if found.record
        && let Some(dir) = pod.below(&found.place)?
    {
        removed += usize::from(dir.unlink(RECORD.as_ref())?);
    }
    if found.leaf != found.place {
        removed += usize::from(rmdir(pod, &found.place)?);
    }
    Ok(removed)
}

/// False if it is not there any more: kubelet works at the same time.
fn rmdir(pod: &Held, path: &Path) -> Result<bool, Error> {
    match pod.below(path.parent().unwrap_or(Path::new("")))? {
        Some(above) => above.rmdir(name(path)),
        None => Ok(false),
    }
}

fn unlink_empty(pod: &Held, path: &Path) -> Result<bool, Error> {
    let Some(above) = pod.below(path.parent().unwrap_or(Path::new("")))? else {
        return Ok(false);
    };
    match above.stat(name(path))? {
        None => Ok(false),
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0 => {
            above.unlink(name(path))
        }
        Some(_) => Err(Error::unfit(
            pod.path().join(path),
            "is not an empty file any more",
        )),
    }
}

fn said(removed: usize, kept: Option<&Path>, found: &[Found]) -> String {
    let mut text = format!("removed {removed} empty entries that stopped kubelet, which does the rest");
    if let Some(kept) = kept {
        text.push_str(&format!("; vol_data.json was copied to {}", kept.display()));
    }
    text.push_str(&super::leaked(found));
    text
}
