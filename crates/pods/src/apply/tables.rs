//! The mount tables of all mount namespaces, by the pod directory that each mount has to do with.
//!
//! Where a mount lies is told by what it is mounted on: its parent's device and root, and the path between their mount
//! points. So a mount is found under whatever path a namespace, or a second view of kubelet's root, shows it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodemend_hostfs::mountinfo::Mount;

use super::namespaces::{Groups, Row, comm, has_ended, namespaces, read};
use crate::error::Error;
use crate::mount::{Seer, Tie};

/// For how long a look at all tables is good. What is removed in a namespace of its own meanwhile is seen by the kernel.
const FRESH: Duration = Duration::from_secs(1);

/// Where `pods/` is on its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    dev: (u32, u32),
    path: PathBuf,
}

impl Home {
    /// By the path of the directory and the id of the mount that it lies on.
    pub(crate) fn of(pods: &Path, mount: u64) -> Result<Self, Error> {
        let rows = read("thread-self")?;
        let row = rows.iter().find(|row| row.mount.id == mount);
        let row = row.ok_or_else(|| Error::unfit(pods, "its mount is not in the mount table"))?;
        let below = pods.strip_prefix(&row.mount.mountpoint);
        let below = below.map_err(|_| Error::unfit(pods, "is not below the mount that it lies on"))?;
        Ok(Self {
            dev: row.mount.dev,
            path: row.mount.root.join(below),
        })
    }

    /// The pod directory that a place on a file system lies in, or is.
    fn pod(&self, dev: (u32, u32), place: &Path) -> Option<String> {
        if dev != self.dev {
            return None;
        }
        let below = place.strip_prefix(&self.path).ok()?;
        Some(
            below
                .components()
                .next()?
                .as_os_str()
                .to_string_lossy()
                .into_owned(),
        )
    }
}

/// A mount that has to do with a pod directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    pub(crate) mount: Mount,
    pub(crate) tie: Tie,
    /// None in this thread's own mount namespace.
    pub(crate) seer: Option<Arc<Seer>>,
    /// The peer groups that what it is mounted on sends to or gets from: an unmount goes the same way.
    groups: Groups,
}

impl Near {
    /// True if it goes when `ours` is unmounted, as their parents share what happens on them.
    pub(crate) fn goes_with(&self, ours: &Self) -> bool {
        let Some(sent) = ours.groups.shared else {
            return false;
        };
        self.mount.dev == ours.mount.dev
            && self.mount.root == ours.mount.root
            && (self.groups.shared == Some(sent) || self.groups.master == Some(sent))
    }
}

/// One look at all tables.
#[derive(Debug)]
pub(crate) struct Tables {
    home: Home,
    near: HashMap<String, Vec<Near>>,
    /// Devices that are mounted in our own namespace outside of all pod directories.
    elsewhere: HashSet<(u32, u32)>,
    /// What could not be read: then nobody can say what is mounted.
    pub(crate) unread: Vec<String>,
    taken: Instant,
}

impl Tables {
    pub(crate) fn take(home: &Home) -> Result<Self, Error> {
        let mut tables = Self {
            home: home.clone(),
            near: HashMap::new(),
            elsewhere: HashSet::new(),
            unread: Vec::new(),
            taken: Instant::now(),
        };
        let own = read("thread-self")?;
        tables.add(&own, None);
        let (namespaces, unnamed) = namespaces()?;
        for (namespace, viewers) in namespaces {
            tables.foreign(namespace, &viewers);
        }
        for (viewer, why) in unnamed {
            tables.unnamed(viewer, &own, &why);
        }
        Ok(tables)
    }

    /// True if the look is good enough for a removal now.
    pub(crate) fn is_fresh(&self) -> bool {
        self.taken.elapsed() < FRESH
    }

    /// True if nothing that happened until that moment is missed by the look.
    pub(crate) fn is_after(&self, moment: Instant) -> bool {
        self.taken >= moment
    }

    /// The mounts of a pod directory, those of each namespace in the order of its table.
    pub(crate) fn of(&self, uid: &str) -> &[Near] {
        self.near.get(uid).map_or(&[], Vec::as_slice)
    }

    /// Those in our own namespace that are in the directory.
    pub(crate) fn ours<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Near> {
        self.of(uid)
            .iter()
            .filter(|near| near.seer.is_none() && near.tie == Tie::In)
    }

    /// True if this device is mounted here at a place that is in no pod directory: an unmount there takes nothing away.
    pub(crate) fn is_mounted_elsewhere(&self, dev: (u32, u32)) -> bool {
        self.elsewhere.contains(&dev)
    }

    fn foreign(&mut self, namespace: u64, viewers: &[u32]) {
        let mut rows: Vec<Row> = Vec::new();
        let mut seer: Option<Arc<Seer>> = None;
        let mut unread = None;
        for viewer in viewers {
            match read(&viewer.to_string()) {
                Ok(table) => rows.extend(table),
                // It sees nothing.
                Err(error) if has_ended(&error) => continue,
                Err(error) => {
                    unread = Some(format!("mount namespace {namespace}: {error}"));
                    continue;
                }
            }
            seer.get_or_insert_with(|| {
                Arc::new(Seer {
                    pid: *viewer,
                    comm: comm(*viewer),
                    namespace,
                })
            });
            // A table leaves out what the root of its viewer does not reach.
            if rows.iter().any(|row| row.mount.mountpoint == Path::new("/")) {
                unread = None;
                break;
            }
        }
        self.unread.extend(unread);
        if let Some(seer) = seer {
            self.add(&rows, Some(&seer));
        }
    }

    /// A task that does not let its namespace be named, as it has rights that this process lacks. Its table can be read all
    /// the same; ids of mounts are unique, so what it shares with us is known.
    fn unnamed(&mut self, viewer: u32, own: &[Row], why: &str) {
        let rows = match read(&viewer.to_string()) {
            Ok(rows) => rows,
            // It has ended, and sees nothing.
            Err(error) if has_ended(&error) => return,
            Err(error) => return self.unread.push(format!("{why}; {error}")),
        };
        let ours: HashSet<u64> = own.iter().map(|row| row.mount.id).collect();
        if rows.iter().any(|row| ours.contains(&row.mount.id)) {
            return;
        }
        let seer = Arc::new(Seer {
            pid: viewer,
            comm: comm(viewer),
            namespace: 0,
        });
        self.add(&rows, Some(&seer));
    }

    fn add(&mut self, rows: &[Row], seer: Option<&Arc<Seer>>) {
        let index: HashMap<u64, usize> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| (row.mount.id, at))
            .collect();
        let mut inside: Vec<Option<Option<String>>> = vec![None; rows.len()];
        for (at, row) in rows.iter().enumerate() {
            let inside = inside_of(at, rows, &index, &self.home, &mut inside);
            let from = self.home.pod(row.mount.dev, &row.mount.root);
            if inside.is_none() && from.is_none() && seer.is_none() {
                self.elsewhere.insert(row.mount.dev);
            }
            let parent = index.get(&row.mount.parent).and_then(|at| rows.get(*at));
            let near = |tie| Near {
                mount: row.mount.clone(),
                tie,
                seer: seer.cloned(),
                groups: parent.map(|parent| parent.groups).unwrap_or_default(),
            };
            if let Some(from) = from
                && inside.as_ref() != Some(&from)
            {
                self.near.entry(from).or_default().push(near(Tie::From));
            }
            if let Some(inside) = inside {
                self.near.entry(inside).or_default().push(near(Tie::In));
            }
        }
    }
}

/// The pod directory that a mount is in, or that something it is mounted on is in. Mounts may be stacked by thousands: a
/// loop, no recursion.
fn inside_of(
    at: usize,
    rows: &[Row],
    index: &HashMap<u64, usize>,
    home: &Home,
    known: &mut [Option<Option<String>>],
) -> Option<String> {
    let mut chain = Vec::new();
    let mut next = Some(at);
    let mut found = None;
    while let Some(at) = next {
        if let Some(Some(answer)) = known.get(at) {
            found = answer.clone();
            break;
        }
        let Some(row) = rows.get(at) else { break };
        chain.push(at);
        if chain.len() > rows.len() {
            break;
        }
        let parent = index.get(&row.mount.parent).copied().filter(|up| *up != at);
        found = match parent.and_then(|up| rows.get(up)) {
            Some(parent) => directly(row, parent, home),
            None => by_name(row, home),
        };
        if found.is_some() {
            break;
        }
        next = parent;
    }
    for at in chain {
        if let Some(slot) = known.get_mut(at) {
            *slot = Some(found.clone());
        }
    }
    found
}

fn directly(row: &Row, parent: &Row, home: &Home) -> Option<String> {
    let below = row.mount.mountpoint.strip_prefix(&parent.mount.mountpoint).ok()?;
    home.pod(parent.mount.dev, &parent.mount.root.join(below))
}

/// Of a mount whose parent its viewer does not see, only the path can tell.
fn by_name(row: &Row, home: &Home) -> Option<String> {
    let mut names = row.mount.mountpoint.components().map(|name| name.as_os_str());
    let pods = home.path.file_name()?;
    names.find(|name| *name == pods)?;
    Some(names.next()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::namespaces::parse;
    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

    fn home() -> Home {
        Home {
            dev: (8, 1),
            path: "/var/lib/kubelet/pods".into(),
        }
    }

    fn found(table: &str) -> Vec<(u64, Tie)> {
        let mut tables = Tables {
            home: home(),
            near: HashMap::new(),
            elsewhere: HashSet::new(),
            unread: Vec::new(),
            taken: Instant::now(),
        };
        tables.add(&parse(table.as_bytes()).unwrap(), None);
        tables
            .of(UID)
            .iter()
            .map(|near| (near.mount.id, near.tie))
            .collect()
    }

    #[test]
    fn t18_a_mount_is_found_by_what_it_lies_on_under_whatever_path() {
        let table = format!(
            "26 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             30 26 8:1 /var/lib/kubelet /data/secure/kubelet rw - ext4 /dev/sda1 rw\n\
             31 30 8:16 / /data/secure/kubelet/pods/{UID}/volumes/x/mount rw - ext4 /dev/sdb rw\n\
             32 31 0:50 / /data/secure/kubelet/pods/{UID}/volumes/x/mount/deep rw - fuse x rw\n"
        );
        assert_eq!(found(&table), [(31, Tie::In), (32, Tie::In)]);
    }

    #[test]
    fn t21_a_uid_that_is_only_the_beginning_of_a_name_is_another_pod() {
        let table = format!(
            "26 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
             31 26 8:16 / /var/lib/kubelet/pods/{UID}x/volumes/a rw - ext4 /dev/sdb rw\n\
             32 26 8:16 / /var/lib/kubelet/pods/{UID}/volumes/a\\040b rw - ext4 /dev/sdb rw\n\
             33 26 8:1 /var/lib/kubelet/pods/{UID}/etc-hosts//deleted /mnt rw - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(found(&table), [(32, Tie::In), (33, Tie::From)]);
    }
}
