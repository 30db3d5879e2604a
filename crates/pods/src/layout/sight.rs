//! What the mount tables say, and what it makes of what was found on the disk.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nodemend_hostfs::Host;
use nodemend_procns::{Census, Tables};

use super::class::{Mounted, classify};
use super::error::LayoutError;
use super::root::Root;
use super::tie::{Found, Mounts, Search, below, is_memory};
use super::walk::Draft;
use crate::mount::{PodMount, Tie};
use crate::pod::{PodDir, PodIdentity, PodName};
use crate::uid::Uid;
use crate::volume::{Part, Volume};

/// What the mount tables say.
#[derive(Default)]
pub(super) struct Sight {
    /// By pod. Locked by whoever looks at that pod.
    pub(super) mounts: Arc<Mounts>,
    pub(super) root_at: Vec<PathBuf>,
    pub(super) pods_at: Vec<PathBuf>,
    pub(super) global_mounts: HashSet<PathBuf>,
    pub(super) memory: HashSet<(u32, u32)>,
    pub(super) unread: Vec<String>,
    /// False if this namespace's own table is not known: then nothing must be touched.
    pub(super) own: bool,
}

/// Reads every mount table.
pub(super) fn sight(host: &Host, census: &Census, root: &Root, uids: &[Uid]) -> Result<Sight, LayoutError> {
    let pods_at = root.path.join("pods");
    let mut sight = Sight {
        mounts: Arc::new(uids.iter().map(|_| Mutex::default()).collect()),
        pods_at: vec![pods_at],
        ..Sight::default()
    };
    let Some((root, pods)) = root.places.clone() else {
        let reason = "another root is read, and what is mounted on this kernel says nothing about it";
        sight.unread.push(reason.to_owned());
        sight.own = true;
        return Ok(sight);
    };
    let index = uids
        .iter()
        .enumerate()
        .map(|(at, uid)| (uid.as_str().to_owned(), at));
    let search = Search::new(root, pods, index.collect(), Arc::clone(&sight.mounts));
    let tables: Tables<Found> =
        nodemend_procns::mount_tables(host, census, move |viewer, table| search.table(viewer, table))?;
    sight.unread = tables.unread;
    for (viewer, found) in tables.read {
        sight.add(viewer.pid.is_none(), found);
    }
    Ok(sight)
}

impl Sight {
    fn add(&mut self, own: bool, found: Found) {
        self.global_mounts.extend(found.global_mounts);
        if own {
            self.own = true;
            self.root_at = found.root_at;
            self.pods_at = found.pods_at;
            self.memory = found.memory;
        }
    }

    /// Where something is mounted in a pod directory, by a path of it.
    pub(super) fn inside<'a>(pods_at: &[PathBuf], uid: &Uid, mount: &'a PodMount) -> Option<&'a Path> {
        if mount.tie != Tie::In || mount.seen_by.is_some() {
            return None;
        }
        pods_at.iter().find_map(|at| {
            let dir = at.join(uid.as_str());
            let mountpoint = &mount.mount.mountpoint;
            let itself = (*mountpoint == dir).then_some(Path::new(""));
            itself.or_else(|| below(mountpoint, &dir))
        })
    }

    /// A pod directory, whole.
    pub(super) fn pod(
        &self,
        uid: Uid,
        path: PathBuf,
        draft: Draft,
        mounts: Vec<PodMount>,
        name: Option<PodName>,
        mount: u64,
    ) -> PodDir {
        let Draft {
            mut volumes, places, ..
        } = draft;
        self.classify(&uid, &mut volumes, &mounts);
        for (at, places) in places {
            let there = places
                .into_iter()
                .find(|place| self.global_mounts.contains(place));
            if let Some(csi) = volumes.get_mut(at).and_then(|volume| volume.csi.as_mut()) {
                csi.global_mount = there;
            }
        }
        volumes.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let identity = PodIdentity {
            uid: uid.clone(),
            dir: draft.dir,
            mount,
        };
        PodDir {
            uid,
            path,
            identity,
            name: name.or(draft.name),
            changed: draft.changed,
            volumes,
            mounts,
            strange: draft.strange,
            outside: Vec::new(),
            unread: draft.unread,
        }
    }

    fn classify(&self, uid: &Uid, volumes: &mut [Volume], mounts: &[PodMount]) {
        let mut at: HashMap<&Path, Vec<&PodMount>> = HashMap::new();
        for mount in mounts {
            if let Some(path) = Self::inside(&self.pods_at, uid, mount) {
                at.entry(path).or_default().push(mount);
            }
        }
        // A subpath of a file system in memory is of the volume that this is.
        let mut plugins: HashMap<(u32, u32), String> = HashMap::new();
        for volume in volumes.iter().filter(|volume| volume.part == Part::Volume) {
            let stack = at.get(&*volume.path).into_iter().flatten();
            for mount in stack.filter(|mount| is_memory(&mount.mount)) {
                plugins.insert(mount.mount.dev, volume.plugin.clone());
            }
        }
        for volume in volumes {
            let stack = at.get(&*volume.path).map(Vec::as_slice).unwrap_or_default();
            let of_memory = (volume.part == Part::Subpath)
                .then(|| stack.iter().find_map(|mount| plugins.get(&mount.mount.dev)))
                .flatten();
            let plugin = of_memory.unwrap_or(&volume.plugin);
            let stack: Vec<Mounted> = stack.iter().map(|mount| self.mounted(mount)).collect();
            volume.class = classify(volume.part, plugin, &stack, &volume.content);
        }
    }

    fn mounted(&self, mount: &PodMount) -> Mounted {
        if is_memory(&mount.mount) {
            Mounted::Memory {
                elsewhere: self.memory.contains(&mount.mount.dev),
            }
        } else {
            Mounted::Other
        }
    }
}
