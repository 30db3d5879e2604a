//! What must hold before a purge changes anything. The whole pod is refused if one of these does not.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::inventory::{Found, RECORD};
use super::tables::{Near, Tables};
use super::unmount::seen;
use crate::error::Error;
use crate::held::Held;
use crate::measure::{Sum, measure};
use crate::mount::Tie;
use crate::volume::{Class, Content, CsiVolume};

/// File systems whose content ends with their last mount.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "hugetlbfs"];

/// A file system in memory that an unmount would end, and that has something in it.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The directory that it is mounted on, below the pod directory.
    pub(crate) place: PathBuf,
    /// The id of the mount.
    pub(crate) mount: u64,
    pub(crate) sum: Sum,
}

/// Mounts that would be torn out of somebody's hands, or that nobody here can unmount.
pub(crate) fn mounts(uid: &str, tables: &Tables) -> Result<(), String> {
    if let Some(unread) = tables.unread.first() {
        return Err(format!("not every mount table can be read: {unread}"));
    }
    let ours: Vec<&Near> = tables.ours(uid).collect();
    for near in tables.of(uid) {
        let ok = match (near.tie, &near.seer) {
            (Tie::In, None) => true,
            // Seen through another namespace, and unmounted there along with ours.
            (Tie::In, Some(_)) => ours.iter().any(|our| near.goes_with(our)),
            (Tie::From, _) => false,
        };
        if !ok {
            return Err(format!(
                "{}: removing what it is made of would take it away there",
                seen(near)
            ));
        }
    }
    Ok(())
}

/// The record of a CSI volume that is still staged: without it kubelet forgets the global mount, and the volume is attached
/// to a second node while it is mounted here.
pub(crate) fn record(found: &Found) -> Result<(), String> {
    if !found.record {
        return Ok(());
    }
    let record = found.place.join(RECORD);
    match &found.csi {
        None => Err(format!(
            "{} could not be understood, so nobody knows whether its volume is still staged",
            record.display()
        )),
        Some(CsiVolume {
            global_mount: Some(global),
            ..
        }) => Err(format!(
            "{} is needed: its volume is still staged at {}, and a kubelet that has lost the record lets the volume be \
             attached elsewhere meanwhile",
            record.display(),
            global.display()
        )),
        Some(_) => Ok(()),
    }
}

/// What could not be looked at.
pub(crate) fn readable(found: &Found) -> Result<(), String> {
    match &found.content {
        Content::Unread(why) => Err(format!("{}: {why}", found.leaf.display())),
        Content::Mounted | Content::Empty | Content::Files { .. } | Content::Other(_) => Ok(()),
    }
}

/// Content that ends with the pod by contract, on disk.
pub(crate) fn ephemeral(found: &[Found]) -> impl Iterator<Item = &Found> {
    found
        .iter()
        .filter(|found| found.class == Class::Ephemeral && !found.is_mounted())
}

/// What there is of it, in words.
pub(crate) fn amount(sum: &Sum) -> String {
    let more = if sum.more { "more than " } else { "" };
    format!(
        "{more}{} entries with {} bytes, the newest of {} s since 1970",
        sum.entries, sum.bytes, sum.newest
    )
}

/// How much ends with the pod by contract.
pub(crate) fn total(found: &[Found]) -> Sum {
    let mut total = Sum::default();
    for found in ephemeral(found) {
        match found.content {
            Content::Files {
                entries,
                bytes,
                newest,
                more,
            } => {
                total.entries += entries;
                total.bytes += bytes;
                total.newest = total.newest.max(newest);
                total.more |= more;
            }
            Content::Other(_) => total.entries += 1,
            Content::Mounted | Content::Empty | Content::Unread(_) => {}
        }
    }
    total
}

/// The file systems in memory that would be lost: not those that kubelet fills from the API, not those that are mounted
/// outside of the pod as well, not the empty ones. Each once, at the mount that shows all of it.
pub(crate) fn memory(pod: &Held, uid: &str, tables: &Tables, found: &[Found]) -> Result<Vec<Memory>, Error> {
    let place = |near: &Near| near.mount.mountpoint.strip_prefix(pod.path()).map(Path::to_owned);
    let in_memory: Vec<&Near> = tables
        .ours(uid)
        .filter(|near| IN_MEMORY.contains(&&*near.mount.fstype))
        .collect();
    let made: HashSet<(u32, u32)> = in_memory
        .iter()
        .filter(|near| {
            let leaf = place(near).unwrap_or_default();
            found.iter().any(|found| found.is_made() && found.leaf == leaf)
        })
        .map(|near| near.mount.dev)
        .collect();
    let mut lost = Vec::new();
    let mut known = HashSet::new();
    // A bind mount of a part may come first in the table: the mount that shows all of it is asked.
    let mut by_size = in_memory.clone();
    by_size.sort_by_key(|near| *near.mount.root != *Path::new("/"));
    for near in by_size {
        let dev = near.mount.dev;
        if made.contains(&dev) || tables.is_mounted_elsewhere(dev) || !known.insert(dev) {
            continue;
        }
        let Ok(place) = place(near) else { continue };
        let sum = match reach(pod, &place, near) {
            Ok(dir) => measure(&dir)?,
            // Covered by another mount, or a single file: what is in it cannot be seen.
            Err(_) => Sum {
                entries: 1,
                more: true,
                ..Sum::default()
            },
        };
        if sum.entries > 0 {
            lost.push(Memory {
                place,
                mount: near.mount.id,
                sum,
            });
        }
    }
    Ok(lost)
}

fn reach(pod: &Held, place: &Path, near: &Near) -> Result<Held, Error> {
    open_memory(pod, place, near.mount.id)
}

/// The root of a file system in memory that is mounted below the pod directory, not below another mount in it.
pub(crate) fn open_memory(pod: &Held, place: &Path, mount: u64) -> Result<Held, Error> {
    let gone = || Error::unfit(pod.path().join(place), "is not there any more");
    let above = pod
        .below(place.parent().unwrap_or(Path::new("")))?
        .ok_or_else(gone)?;
    above.cross(place.file_name().unwrap_or_default(), mount)
}
