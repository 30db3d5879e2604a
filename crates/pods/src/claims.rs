//! What each source says of one pod directory.

use std::collections::HashMap;
use std::path::Path;

use nodemend_evidence::{Claim, Evidence, Source};
use nodemend_hostfs::Spoken;

use crate::mount::{PodMount, Tie};
use crate::pod::PodDir;
use crate::scene::Scene;
use crate::testimony::{KUBELET, Known, KubeletProcess, MANIFESTS};
use crate::uid::Uid;

/// Before this moment (2001) no cluster ran: a directory of such an age was made before the clock was set.
const CLOCK_NOT_SET: i64 = 1_000_000_000;

/// One answer of the testimony, arranged.
pub(crate) struct Heard<'a> {
    pub(crate) source: Source,
    pods: HashMap<&'a Uid, &'a str>,
    others: Claim,
}

impl<'a> Heard<'a> {
    /// Of what was said, if anything was. `doubt` is a reason to believe what it knows, and not what it does not.
    pub(crate) fn of(source: &str, known: Option<&'a Known>, doubt: Option<String>) -> Self {
        let (pods, others) = match known {
            Some(Known::Pods { pods, asked }) => (&pods[..], Claim::absent(asked.as_str())),
            Some(Known::Partly { pods, reason }) => (&pods[..], Claim::unknown(reason.as_str())),
            Some(Known::Silent(reason)) => (&[][..], Claim::unknown(reason.as_str())),
            Some(Known::NotHere(reason)) => (&[][..], Claim::absent(reason.as_str())),
            None => (&[][..], Claim::unknown("was not asked")),
        };
        Self {
            source: Source::new(source),
            pods: pods.iter().map(|(uid, said)| (uid, said.as_str())).collect(),
            others: doubt.map_or(others, Claim::unknown),
        }
    }

    /// True if it can say of a pod that it does not know it.
    pub(crate) fn answered(&self) -> bool {
        self.silence().is_none()
    }

    /// Why it cannot.
    pub(crate) fn silence(&self) -> Option<&str> {
        match &self.others {
            Claim::Unknown(reason) => Some(reason),
            Claim::Absent(_) | Claim::InUse(_) => None,
        }
    }

    pub(crate) fn knows(&self, uid: &Uid) -> bool {
        self.pods.contains_key(uid)
    }

    fn claim(&self, uid: &Uid) -> Claim {
        let known = self.pods.get(uid).map(|said| Claim::in_use(*said));
        known.unwrap_or_else(|| self.others.clone())
    }
}

/// The sources that are made here.
pub(crate) struct Sources {
    pub(crate) directory: Source,
    pub(crate) mounts: Source,
    pub(crate) age: Source,
    pub(crate) kubelet_process: Source,
    pub(crate) log: Source,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            directory: Source::new("pod directory"),
            mounts: Source::new("mounts elsewhere"),
            age: Source::new("age"),
            kubelet_process: Source::new("kubelet process"),
            log: Source::new("log that was given"),
        }
    }
}

/// Every claim on one pod directory.
pub(crate) fn of(scene: &Scene<'_>, pod: &PodDir) -> Vec<Evidence> {
    let mut said = Vec::with_capacity(24);
    for heard in &scene.heard {
        let claim = match heard.source.name() {
            MANIFESTS => static_pods(scene, heard, &pod.uid),
            crate::testimony::CHECKPOINTS => checkpoint(heard, &pod.uid),
            _ => heard.claim(&pod.uid),
        };
        said.push(Evidence::new(&heard.source, claim));
    }
    said.extend(scene.runtimes.of_pod(pod.uid.as_str()));
    let sources = &scene.sources;
    said.push(Evidence::new(&sources.directory, directory(scene, pod)));
    said.push(Evidence::new(&sources.mounts, mounts(scene, pod)));
    said.push(Evidence::new(&sources.age, age(scene, pod)));
    if scene.policy.kubelet_down {
        said.push(Evidence::new(&sources.kubelet_process, scene.kubelet_is_down()));
    }
    if let Some(only) = &scene.policy.only {
        said.push(Evidence::new(&sources.log, named(only.contains(&pod.uid))));
    }
    said
}

/// A checkpoint is never ahead of kubelet's own list: `HandlePodAdditions` enters a pod in the pod manager, which is what
/// `/pods` gives, before it writes the first of them (`pkg/kubelet/kubelet.go`). It is behind it: `HandlePodRemoves` takes a
/// pod out of the manager first, the CPU, memory and device managers drop a pod when they look at their states again, and what
/// a kubelet that crashed has left stays until the next one cleans up.
fn checkpoint(heard: &Heard<'_>, uid: &Uid) -> Claim {
    match heard.claim(uid) {
        Claim::InUse(said) => Claim::Unknown(format!("{said}, which may be old").into()),
        claim @ (Claim::Absent(_) | Claim::Unknown(_)) => claim,
    }
}

/// The directory of a static pod is named by a hash that only kubelet can compute, and its mirror at the API server has
/// another UID. So only kubelet's own list can say that one is dead.
fn static_pods(scene: &Scene<'_>, heard: &Heard<'_>, uid: &Uid) -> Claim {
    if heard.knows(uid) {
        return heard.claim(uid);
    }
    if !uid.is_static() {
        return Claim::absent("not the name of a static pod's directory");
    }
    if scene.policy.kubelet_down {
        return Claim::unknown("the name of a static pod's directory: with --kubelet-down these stay");
    }
    if scene.answered(KUBELET) {
        return Claim::absent("kubelet's own list has the static pods, and answered");
    }
    let known = scene.survey.testimony.of(MANIFESTS);
    let may_be = "the name of a static pod's directory, and kubelet itself did not answer";
    match known {
        Some(Known::NotHere(reason)) => Claim::absent(reason.as_str()),
        Some(Known::Pods { asked, .. }) => Claim::unknown(format!("{may_be}: it may be of one of {asked}")),
        Some(Known::Partly { reason, .. } | Known::Silent(reason)) => {
            Claim::unknown(format!("{may_be}: {reason}"))
        }
        None => Claim::unknown(may_be),
    }
}

fn directory(scene: &Scene<'_>, pod: &PodDir) -> Claim {
    match scene.survey.layout.unread.first().or(pod.unread.first()) {
        Some(unread) => Claim::unknown(unread.as_str()),
        None => Claim::absent("read whole, with every mount table"),
    }
}

/// Mounts that somebody else has of it.
///
/// What is mounted in the directory itself is the repair's work, and says nothing of life: an orphan keeps its mounts. The
/// same mount, seen at the same place in another mount namespace, is a copy that the kernel made of the host's
/// (mount_namespaces(7)): CSI drivers, node exporters and services with a `PrivateTmp` have one of each. But what another
/// namespace alone has, or has at a place of its own, somebody uses.
fn mounts(scene: &Scene<'_>, pod: &PodDir) -> Claim {
    let mut copies = 0;
    for mount in &pod.mounts {
        let at = mount.mount.mountpoint.display();
        match (&mount.seen_by, mount.tie) {
            (None, Tie::In) => {}
            (None, Tie::From) if scene.is_in(&mount.mount.mountpoint, &pod.uid) => {}
            (None, Tie::From) => return Claim::in_use(format!("something of it is mounted at {at}")),
            (Some(_), _) if pod.mounts.iter().any(|own| is_copy(mount, own)) => copies += 1,
            (Some(seer), tie) => {
                let what = match tie {
                    Tie::In => "a mount in it that this namespace has not:",
                    Tie::From => "something of it mounted at",
                };
                return Claim::in_use(format!("process {} ({}) has {what} {at}", seer.pid, seer.comm));
            }
        }
    }
    match copies {
        0 => Claim::absent("nobody has a mount of it"),
        _ => Claim::absent(format!(
            "nobody has a mount of it but {copies} copies of the host's"
        )),
    }
}

/// True if a mount of another namespace is one of ours, seen there at the same place, or below where the host's root is.
fn is_copy(other: &PodMount, own: &PodMount) -> bool {
    let place = own
        .mount
        .mountpoint
        .strip_prefix("/")
        .unwrap_or(&own.mount.mountpoint);
    own.seen_by.is_none()
        && own.tie == Tie::In
        && (own.mount.dev, &own.mount.root) == (other.mount.dev, &other.mount.root)
        && other.mount.mountpoint.ends_with(place)
}

/// Young directories, and a kubelet that has just come up: nobody knows everything yet.
fn age(scene: &Scene<'_>, pod: &PodDir) -> Claim {
    let grace = scene.policy.grace.as_secs();
    if let KubeletProcess::Running { since, .. } = scene.survey.testimony.kubelet
        && let Some(young) = scene.too_young(since)
    {
        return Claim::unknown(format!("kubelet {young}"));
    }
    let age = scene
        .survey
        .taken
        .checked_sub(pod.changed)
        .and_then(|age| u64::try_from(age).ok());
    match age {
        None => {
            Claim::unknown("its time lies in the future, so the clock was set, and nothing tells its age")
        }
        Some(_) if pod.changed < CLOCK_NOT_SET => {
            Claim::unknown("its time is from before the clock was set, so nothing tells its age")
        }
        Some(age) if age >= grace => Claim::absent(format!("older than the grace of {}", Spoken(grace))),
        Some(age) => Claim::unknown(format!(
            "changed {} ago, which is within the grace of {}; see --grace",
            Spoken(age),
            Spoken(grace)
        )),
    }
}

fn named(is_named: bool) -> Claim {
    if is_named {
        Claim::absent("names it as an orphan")
    } else {
        Claim::unknown("does not name it")
    }
}

/// True if a path is the pod's directory below that root, or lies in it.
pub(crate) fn is_below(path: &Path, root: &Path, uid: &Uid) -> bool {
    path.starts_with(root.join("pods").join(uid.as_str()))
}
