//! Which mounts have to do with which pod directory. Pure: mount tables in, ties out.
//!
//! Paths are compared by their components, never as text. One pass over a table finds by which paths the pod directories are
//! seen in it, a second one finds the mounts; both look each row up once, however many pods there are.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_procns::Viewer;

use crate::mount::{PodMount, Seer, Tie};

/// A directory as the file system has it, under whatever mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The device of its file system, as mount tables have it (that of a btrfs is not the one of lstat).
    pub(crate) dev: (u32, u32),
    /// Its path from the root of the file system.
    pub(crate) path: PathBuf,
    /// Its path in the caller's mount namespace.
    pub(crate) seen_at: PathBuf,
}

impl Place {
    /// Of a path, by the mount that it lies on.
    pub(crate) fn of(seen_at: &Path, on: &Mount) -> Option<Self> {
        let rest = seen_at.strip_prefix(&on.mountpoint).ok()?;
        Some(Self {
            dev: on.dev,
            path: join(&on.root, rest),
            seen_at: seen_at.to_owned(),
        })
    }

    /// Where a mount shows it, if it does.
    fn by(&self, mount: &Mount) -> Option<PathBuf> {
        if mount.dev != self.dev {
            return None;
        }
        let rest = self.path.strip_prefix(&mount.root).ok()?;
        Some(join(&mount.mountpoint, rest))
    }
}

/// What is looked for in the tables.
pub(crate) struct Search {
    /// kubelet's root.
    pub(crate) root: Place,
    /// `pods` in it.
    pub(crate) pods: Place,
    /// The pods, by the names of their directories.
    pub(crate) index: HashMap<String, usize>,
    /// Where the mounts of each pod are put, as there may be very many.
    pub(crate) mounts: Arc<Mounts>,
    /// The rows of other namespaces that were seen, by their hashes: a mount that is propagated to twenty namespaces is told
    /// once.
    seen: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

/// The mounts of each pod, in the order in which tables were read.
pub(crate) type Mounts = Vec<Mutex<Vec<PodMount>>>;

/// As the lock guards a list that is whole at any moment, a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one table said, but for the mounts of pods.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The paths by which kubelet's root is seen.
    pub(crate) root_at: Vec<PathBuf>,
    /// The paths by which the pod directories are seen.
    pub(crate) pods_at: Vec<PathBuf>,
    /// The global mounts of CSI volumes, relative to kubelet's root.
    pub(crate) global_mounts: HashSet<PathBuf>,
    /// The devices of file systems in memory that are mounted outside of the pod directories.
    pub(crate) memory: HashSet<(u32, u32)>,
}

impl Search {
    pub(crate) fn new(root: Place, pods: Place, index: HashMap<String, usize>, mounts: Arc<Mounts>) -> Self {
        Self {
            root,
            pods,
            index,
            mounts,
            seen: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Searches one table.
    pub(crate) fn table(&self, viewer: &Viewer, table: &[u8]) -> Result<Found, String> {
        let mut found = Found {
            // In another namespace the same path may be something else. Whoever mounts there means pods all the same.
            root_at: vec![self.root.seen_at.clone()],
            pods_at: vec![self.pods.seen_at.clone()],
            ..Found::default()
        };
        for mount in mountinfo::rows(table) {
            let mount = mount.map_err(|error| error.to_string())?;
            add(&mut found.root_at, self.root.by(&mount));
            add(&mut found.pods_at, self.pods.by(&mount));
        }
        let seer = viewer.pid.map(|pid| {
            Arc::new(Seer {
                pid,
                comm: viewer.comm.clone(),
                namespace: viewer.namespace,
            })
        });
        for mount in mountinfo::rows(table) {
            let mount = mount.map_err(|error| error.to_string())?;
            self.row(seer.as_ref(), mount, &mut found);
        }
        Ok(found)
    }

    fn row(&self, seer: Option<&Arc<Seer>>, mount: Mount, found: &mut Found) {
        let inside = found.pods_at.iter().find_map(|at| below(&mount.mountpoint, at));
        if is_memory(&mount) && inside.is_none() {
            found.memory.insert(mount.dev);
        }
        let global = found
            .root_at
            .iter()
            .find_map(|at| global_mount(&mount.mountpoint, at));
        let global = global.map(Path::to_owned);
        let within = inside.and_then(|rest| self.pod(rest));
        let from = (mount.dev == self.pods.dev)
            .then(|| below(&mount.root, &self.pods.path))
            .flatten()
            .and_then(|rest| self.pod(rest));
        found.global_mounts.extend(global);
        match (within, from) {
            (None, None) => {}
            (Some(pod), None) => self.tie(seer, pod, Tie::In, mount),
            (None, Some(pod)) => self.tie(seer, pod, Tie::From, mount),
            (Some(pod), Some(source)) => {
                if source != pod {
                    self.tie(seer, source, Tie::From, mount.clone());
                }
                self.tie(seer, pod, Tie::In, mount);
            }
        }
    }

    fn pod(&self, rest: &Path) -> Option<usize> {
        let name = rest.iter().next()?.to_str()?;
        self.index.get(name).copied()
    }

    fn tie(&self, seer: Option<&Arc<Seer>>, pod: usize, tie: Tie, mount: Mount) {
        if seer.is_some() {
            let row = (pod, tie == Tie::In, mount.dev, &mount.root, &mount.mountpoint);
            let hash = self.hasher.hash_one(row);
            if !lock(&self.seen).insert(hash) {
                return;
            }
        }
        let seen_by = seer.cloned();
        if let Some(mounts) = self.mounts.get(pod) {
            let mut mounts = lock(mounts);
            // One more at a time: most pods have few, and there may be ten thousand of them.
            mounts.reserve_exact(1);
            mounts.push(PodMount { mount, tie, seen_by });
        }
    }
}

/// Without a slash at the end when nothing is joined.
fn join(above: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        above.to_owned()
    } else {
        above.join(rest)
    }
}

fn add(paths: &mut Vec<PathBuf>, path: Option<PathBuf>) {
    if let Some(path) = path
        && !paths.contains(&path)
    {
        paths.push(path);
    }
}

/// What of a path is below another, by components; None if nothing is. Both are absolute and plain, as the kernel writes them.
pub(crate) fn below<'a>(path: &'a Path, above: &Path) -> Option<&'a Path> {
    let above = above.as_os_str().as_bytes();
    let above = above.strip_suffix(b"/").unwrap_or(above);
    let rest = path
        .as_os_str()
        .as_bytes()
        .strip_prefix(above)?
        .strip_prefix(b"/")?;
    (!rest.is_empty()).then(|| Path::new(std::ffi::OsStr::from_bytes(rest)))
}

fn global_mount<'a>(mountpoint: &'a Path, root: &Path) -> Option<&'a Path> {
    let rest = below(mountpoint, root)?;
    (rest.starts_with("plugins") && rest.ends_with("globalmount")).then_some(rest)
}

/// A file system that ends with its last mount, and its data with it.
pub(crate) fn is_memory(mount: &Mount) -> bool {
    matches!(&*mount.fstype, "tmpfs" | "ramfs" | "hugetlbfs")
}

/// A file system that asks somebody else, who may not answer.
pub(crate) fn is_remote(fstype: &str) -> bool {
    let kind = fstype.split('.').next().unwrap_or_default();
    matches!(
        kind,
        "nfs"
            | "nfs4"
            | "cifs"
            | "smb3"
            | "smbfs"
            | "ncpfs"
            | "ceph"
            | "fuse"
            | "fuseblk"
            | "virtiofs"
            | "9p"
            | "afs"
            | "coda"
            | "lustre"
            | "glusterfs"
            | "gpfs"
            | "beegfs"
            | "orangefs"
            | "pvfs2"
            | "autofs"
            | "davfs"
            | "shfs"
    )
}

#[cfg(test)]
mod tests;
