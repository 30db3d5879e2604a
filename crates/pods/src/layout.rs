//! What lies on the disk: kubelet's root and its pod directories.
//!
//! Nothing is asked of a file system that may not answer: the mount tables say first what is mounted where, the walk stays on
//! the mount of `pods/`, and the work is done by threads that can be left behind.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodemend_hostfs::pool::{self, PATIENCE};
use nodemend_hostfs::{FileId, Host};
use nodemend_procns::Census;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::block::{self, BlockLink};
use crate::mount::PodMount;
use crate::pod::{PodDir, PodName};
use crate::uid::Uid;
use crate::volume::Part;

mod class;
mod content;
mod csi;
mod error;
mod find;
mod name;
mod root;
mod sight;
mod tie;
mod walk;

pub use error::LayoutError;
pub use find::{DEFAULT_KUBELET_ROOT, FoundRoot, find_root};
use root::Root;
use sight::{Sight, sight};
use tie::lock;
use walk::{Draft, Limits, Walked, Way};

/// Where containers' logs are, in directories that tell the names of pods.
const POD_LOGS: &str = "/var/log/pods";

/// kubelet's root and its pod directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The root, without symlinks.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub root: PathBuf,
    /// Who says that it is the root: `--kubelet-root`, `kubelet (pid 812) --root-dir`, `the default`.
    pub known_by: String,
    /// What the root is.
    pub root_id: FileId,
    /// Other paths by which the same root is seen, by mounts.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<PathBuf>")]
    pub also_at: Vec<PathBuf>,
    /// The pod directories, by UID.
    pub pods: Vec<Arc<PodDir>>,
    /// What else lies in `pods/`, each with the reason why it is not ours.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<(PathBuf, String)>")]
    pub strangers: Vec<(PathBuf, String)>,
    /// What could not be read of the mount tables or of the root, so that nothing is known of any pod.
    pub unread: Vec<String>,
}

/// Where to look, and how much to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutOptions {
    /// kubelet's root, if the operator says it.
    pub kubelet_root: Option<PathBuf>,
    /// How many entries of one volume are counted. Default: 100,000.
    pub count_entries: u64,
    /// How long one volume is counted. Default: 1 s.
    pub count_time: Duration,
    /// How long all volumes together are counted; after that each is only looked at for whether it is empty. Default: 5 s.
    pub count_all: Duration,
}

impl Default for LayoutOptions {
    fn default() -> Self {
        Self {
            kubelet_root: None,
            count_entries: 100_000,
            count_time: Duration::from_secs(1),
            count_all: Duration::from_secs(5),
        }
    }
}

/// Looks at kubelet's root, at every pod directory in it, and at every mount table. Changes nothing.
///
/// A pod directory that gives no sign of life for two seconds is left behind, and says so in [`PodDir::unread`]. Of a tree
/// on a disk ([`Host::at`]) only the files are read: what is mounted there now nobody knows.
///
/// # Errors
/// As [`find_root`]; if there is no root, or if it does not answer. What could not be read of a root that is there is no error.
pub fn layout(host: &Host, options: &LayoutOptions, census: &Census) -> Result<Layout, LayoutError> {
    let found = find_root(host, census, options.kubelet_root.as_deref())?;
    let root = match Root::open(host, &found)? {
        Ok(root) => root,
        Err((path, reason)) => return Ok(left_alone(path, found, reason)),
    };
    let (names, strangers) = sorted(&root);
    let sight = sight(host, census, &root, &names)?;
    let logs = logs(host)?;
    let blocks = blocks(host, &root, &names)?;
    let walked = walk_all(&sight, root, names, options)?;
    let mut layout = assemble(sight, found, walked, strangers, logs);
    blocks.enter(&mut layout.pods);
    Ok(layout)
}

fn left_alone(root: PathBuf, found: FoundRoot, reason: String) -> Layout {
    Layout {
        root,
        known_by: found.known_by,
        root_id: FileId::default(),
        also_at: Vec::new(),
        pods: Vec::new(),
        strangers: Vec::new(),
        unread: vec![reason],
    }
}

/// The names that are UIDs, and the others with the reason.
fn sorted(root: &Root) -> (Vec<Uid>, Vec<(PathBuf, String)>) {
    let (mut uids, mut strangers) = (Vec::new(), Vec::new());
    for (name, _) in &root.entries {
        let path = || root.path.join("pods").join(OsStr::from_bytes(name.to_bytes()));
        match name.to_str().map(str::parse::<Uid>) {
            Ok(Ok(uid)) => uids.push(uid),
            Ok(Err(error)) => strangers.push((path(), error.to_string())),
            Err(_) => strangers.push((path(), "its name is no text".to_owned())),
        }
    }
    (uids, strangers)
}

/// The pods of the directories of logs. What they do not tell, something else may.
fn logs(host: &Host) -> Result<HashMap<Uid, PodName>, LayoutError> {
    let host = host.clone();
    let names = root::answered(move || host.list(Path::new(POD_LOGS)).unwrap_or_default())?;
    Ok(name::from_logs(names.unwrap_or_default()))
}

/// What kubelet keeps of block volumes outside of the pod directories, or why nobody knows.
struct Blocks(Result<Vec<(Uid, BlockLink)>, String>);

fn blocks(host: &Host, root: &Root, uids: &[Uid]) -> Result<Blocks, LayoutError> {
    // In another root nothing is repaired, and a device number there is one of another kernel.
    if !host.is_running() || uids.is_empty() {
        return Ok(Blocks(Ok(Vec::new())));
    }
    let (path, uids) = (root.path.clone(), uids.iter().cloned().collect::<HashSet<_>>());
    let work = move |_: &(), pulse: &pool::Pulse, answer: &mut dyn FnMut(_)| {
        let found = block::links(&path, &|uid| uids.contains(uid), &|| pulse.beat());
        answer(found.map_err(|error| error.to_string()));
    };
    let done = pool::run(vec![()], Box::new(work)).map_err(LayoutError::Thread)?;
    let silent = || {
        Err(format!(
            "the block volumes below plugins/: no answer within {PATIENCE} s"
        ))
    };
    Ok(Blocks(done.answers.into_iter().next().unwrap_or_else(silent)))
}

impl Blocks {
    fn enter(self, pods: &mut [Arc<PodDir>]) {
        match self.0 {
            Ok(links) => {
                for (uid, link) in links {
                    // They are sorted.
                    let at = pods.binary_search_by(|pod| pod.uid.cmp(&uid));
                    if let Some(pod) = at.ok().and_then(|at| pods.get_mut(at)) {
                        Arc::make_mut(pod).outside.push(link);
                    }
                }
            }
            Err(reason) => {
                let has_device =
                    |pod: &&mut Arc<PodDir>| pod.volumes.iter().any(|volume| volume.part == Part::Device);
                for pod in pods.iter_mut().filter(has_device) {
                    Arc::make_mut(pod).unread.push(reason.clone());
                }
            }
        }
    }
}

/// What the walk gave.
struct AllWalked {
    root: PathBuf,
    root_id: FileId,
    mount: u64,
    pods: Vec<(Uid, Walked)>,
}

fn walk_all(
    sight: &Sight,
    root: Root,
    uids: Vec<Uid>,
    options: &LayoutOptions,
) -> Result<AllWalked, LayoutError> {
    let (path, root_id, mount) = (root.path.clone(), root.id, root.mount);
    let mut all: Vec<Option<Walked>> = uids.iter().map(|_| None).collect();
    if sight.own {
        let limits = Limits {
            entries: options.count_entries.max(1),
            time: options.count_time,
            until: later(options.count_all),
        };
        let mounts = Arc::clone(&sight.mounts);
        let jobs: Vec<(usize, Uid)> = uids.iter().cloned().enumerate().collect();
        let done = pool::run(
            jobs,
            Box::new(move |(at, uid): &(usize, Uid), pulse, answer| {
                let mountpoints = mounts
                    .get(*at)
                    .map(|mounts| mountpoints(&root, uid, &lock(mounts)));
                answer((
                    *at,
                    walk_one(&root, uid, &mountpoints.unwrap_or_default(), pulse, limits),
                ));
            }),
        );
        for (at, walked) in done.map_err(LayoutError::Thread)?.answers {
            if let Some(place) = all.get_mut(at) {
                *place = Some(walked);
            }
        }
    }
    let reason = if sight.own {
        format!("no answer within {PATIENCE} s")
    } else {
        "not looked at, as the mount table could not be read".to_owned()
    };
    let unread = || {
        Walked::Pod(Box::new(Draft {
            unread: vec![reason.clone()],
            ..Draft::default()
        }))
    };
    let pods = uids.into_iter().zip(all);
    Ok(AllWalked {
        root: path,
        root_id,
        mount,
        pods: pods
            .map(|(uid, walked)| (uid, walked.unwrap_or_else(unread)))
            .collect(),
    })
}

/// A moment that lies so far ahead; a year, if that cannot be said.
fn later(ahead: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(ahead)
        .unwrap_or(now + Duration::from_secs(365 * 86_400))
}

/// Where something is mounted in the pod directory, by the path that is walked.
fn mountpoints(root: &Root, uid: &Uid, mounts: &[PodMount]) -> HashSet<PathBuf> {
    let at = [root.path.join("pods")];
    let inside = mounts.iter().filter_map(|mount| Sight::inside(&at, uid, mount));
    inside.map(Path::to_owned).collect()
}

fn walk_one(
    root: &Root,
    uid: &Uid,
    mountpoints: &HashSet<PathBuf>,
    pulse: &pool::Pulse,
    limits: Limits,
) -> Walked {
    let Ok(name) = std::ffi::CString::new(uid.as_str()) else {
        return Walked::Stranger("its name is no text".to_owned());
    };
    let way = Way {
        pods: root.pods.as_fd(),
        name: &name,
        descent: root.descent,
        mountpoints,
        pulse,
        limits,
    };
    way.walk()
}

/// Puts it all together.
fn assemble(
    mut sight: Sight,
    found: FoundRoot,
    walked: AllWalked,
    mut strangers: Vec<(PathBuf, String)>,
    logs: HashMap<Uid, PodName>,
) -> Layout {
    let pods_path = walked.root.join("pods");
    let mut pods = Vec::new();
    for (at, (uid, what)) in walked.pods.into_iter().enumerate() {
        let mut path = pods_path.join(uid.as_str());
        path.shrink_to_fit();
        match what {
            Walked::Gone => {}
            Walked::Stranger(reason) => strangers.push((path, reason)),
            Walked::Pod(draft) => {
                let mounts = sight
                    .mounts
                    .get(at)
                    .map(|mounts| std::mem::take(&mut *lock(mounts)));
                let mounts = mounts.unwrap_or_default();
                let name = logs.get(&uid).cloned();
                pods.push(Arc::new(sight.pod(uid, path, *draft, mounts, name, walked.mount)));
            }
        }
    }
    strangers.sort_unstable();
    sight.root_at.retain(|path| *path != walked.root);
    Layout {
        root: walked.root,
        known_by: found.known_by,
        root_id: walked.root_id,
        also_at: sight.root_at,
        pods,
        strangers,
        unread: sight.unread,
    }
}

#[cfg(test)]
mod tests;
