//! Every gate before a purge: what would be done, or why nothing is.

use std::path::{Path, PathBuf};

use crate::apply::Purge;
use crate::apply::gates::{self, Memory};
use crate::apply::loops::{self, Loop};
use crate::apply::outside::{self, Outside};
use crate::apply::tables::Near;
use crate::apply::work::Work;
use crate::archive;
use crate::error::Error;
use crate::held::Held;
use crate::measure::Sum;
use crate::pod::PodDir;
use crate::quarantine::{QUARANTINE, Shelf, outside_of_pods, real};
use crate::volume::Class;

/// What a purge does with one pod, with every gate open.
pub(crate) struct Plan<'o> {
    pub(crate) options: &'o Purge,
    /// What is mounted in it here.
    pub(crate) mounts: Vec<Near>,
    /// Of that, what is in memory and would be lost.
    pub(crate) memory: Vec<Memory>,
    pub(crate) loops: Vec<Loop>,
    /// Its names among the plugins' block volumes.
    pub(crate) outside: Vec<Outside>,
    /// Where what may be the only copy goes.
    pub(crate) shelf: PathBuf,
}

/// Asks every gate. Changes nothing but that it may make an empty quarantine.
pub(crate) fn plan<'o>(
    pod: &Held,
    dir: &PodDir,
    options: &'o Purge,
    work: &mut Work<'_, '_>,
) -> Result<Plan<'o>, String> {
    let said = |error: Error| error.to_string();
    if let Some(unread) = dir.unread.first() {
        return Err(unread.clone());
    }
    work.look().map_err(said)?;
    let uid = dir.uid.as_str();
    let tables = work.tables().map_err(said)?;
    gates::mounts(uid, tables)?;
    let found = work.inventory(pod, dir).map_err(said)?;
    found.iter().try_for_each(gates::readable)?;
    found.iter().try_for_each(gates::record)?;
    let memory = gates::memory(pod, uid, tables, &found).map_err(said)?;
    let mut lost = gates::total(&found);
    for memory in &memory {
        lost.entries += memory.sum.entries;
        lost.bytes += memory.sum.bytes;
        lost.newest = lost.newest.max(memory.sum.newest);
        lost.more |= memory.sum.more;
    }
    ephemeral(&lost, &memory, options, pod)?;
    let loops = loops::of_pod(kubelet_root(dir), uid).map_err(said)?;
    for device in &loops {
        if let Some(user) = device.user() {
            return Err(format!(
                "{} lies on {}, and {user}",
                device.node.display(),
                device.backing.display()
            ));
        }
    }
    let outside = outside::of_pod(kubelet_root(dir), &dir.uid)?;
    let shelf = shelf_path(dir, options);
    // Anything may come to light below a mount, so there must be a place for it before anything is unmounted.
    let needed =
        found.iter().any(|found| found.class == Class::MaybeOnlyCopy) || tables.ours(uid).next().is_some();
    if needed {
        Shelf::for_pod(&shelf, pod).map_err(said)?;
    }
    Ok(Plan {
        options,
        mounts: tables.ours(uid).cloned().collect(),
        memory,
        loops,
        outside,
        shelf,
    })
}

/// Two levels above a pod directory.
fn kubelet_root(dir: &PodDir) -> &Path {
    dir.path.ancestors().nth(2).unwrap_or(Path::new("/"))
}

fn shelf_path(dir: &PodDir, options: &Purge) -> PathBuf {
    match &options.quarantine {
        Some(path) => real(path),
        None => kubelet_root(dir).join(QUARANTINE),
    }
}

/// The gate before what ends with the pod by contract.
pub(crate) fn ephemeral(lost: &Sum, memory: &[Memory], options: &Purge, pod: &Held) -> Result<(), String> {
    if lost.entries == 0 {
        return Ok(());
    }
    if let Some(dir) = &options.archive {
        return outside_of_pods(&real(dir), pod)
            .and_then(|()| archive::check_room(&real(dir), *lost))
            .map_err(|error| error.to_string());
    }
    if options.accept_ephemeral {
        return Ok(());
    }
    let memory = match memory.first() {
        Some(memory) => format!(
            ", part of them in memory at {}, where unmounting ends them",
            memory.place.display()
        ),
        None => String::new(),
    };
    Err(format!(
        "it holds data that has no other copy: {}{memory}. --archive DIR keeps it, --accept-ephemeral lets it go",
        gates::amount(lost)
    ))
}
