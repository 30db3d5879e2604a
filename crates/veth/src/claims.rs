//! What each source says of one pair.

use nodemend_evidence::{Claim, Evidence, Source};
use nodemend_hostfs::Spoken;
use nodemend_procns::Holder;
use nodemend_rtnl::Link;

use crate::pair::VethPair;
use crate::scene::{Leads, Scene};

/// The sources that this crate asks itself. All are required.
pub(crate) struct Sources {
    leads_to: Source,
    points_back: Source,
    processes: Source,
    open_files: Source,
    mounts: Source,
    plugins: Source,
    age: Source,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            leads_to: Source::new("namespace id"),
            points_back: Source::new("peer index"),
            processes: Source::new("processes"),
            open_files: Source::new("open files"),
            mounts: Source::new("mounts elsewhere"),
            plugins: Source::new("CNI plugins at work"),
            age: Source::new("age"),
        }
    }

    pub(crate) fn all(&self) -> [&Source; 7] {
        [
            &self.leads_to,
            &self.points_back,
            &self.processes,
            &self.open_files,
            &self.mounts,
            &self.plugins,
            &self.age,
        ]
    }
}

/// Every claim on one pair. What the runtimes have on record comes first, then what lives in the namespace: the first
/// claim that keeps a pair is the one that its reader is told.
pub(crate) fn of(scene: &Scene<'_>, link: &Link, pair: &VethPair, leads: &Leads<'_>) -> Vec<Evidence> {
    let sources = &scene.sources;
    let (mut said, leftovers): (Vec<_>, Vec<_>) = runtimes(scene, pair)
        .into_iter()
        .partition(|evidence| scene.index.is_record(&evidence.source));
    let owned = said
        .iter()
        .any(|evidence| matches!(evidence.claim, Claim::InUse(_)));
    said.push(Evidence::new(
        &sources.processes,
        set_aside(scene, processes(scene, pair, owned)),
    ));
    said.extend(leftovers);
    said.push(Evidence::new(&sources.leads_to, leads_to(leads)));
    said.push(Evidence::new(
        &sources.points_back,
        points_back(link, pair, leads),
    ));
    said.push(Evidence::new(&sources.open_files, open_files(scene, pair)));
    said.push(Evidence::new(&sources.mounts, mounts_elsewhere(scene, pair)));
    said.push(Evidence::new(&sources.plugins, plugins(scene, pair)));
    said.push(Evidence::new(&sources.age, age(scene, pair)));
    said
}

fn runtimes(scene: &Scene<'_>, pair: &VethPair) -> Vec<Evidence> {
    let Some(netns) = pair.netns else {
        let nowhere = |source| {
            Evidence::new(
                source,
                Claim::unknown("cannot be asked: nobody knows the netns of this pair"),
            )
        };
        return scene.index.required().iter().map(nowhere).collect();
    };
    let paths: Vec<_> = pair.mounts().collect();
    let mut said = scene.index.of_netns(netns, &paths);
    for evidence in said.iter_mut().filter(|evidence| scene.is_cut(&evidence.source)) {
        evidence.claim = set_aside(scene, evidence.claim.clone());
    }
    said
}

/// With `--cut-running`, what runs in the namespace is shown and does not count.
fn set_aside(scene: &Scene<'_>, claim: Claim) -> Claim {
    match claim {
        Claim::InUse(ref detail) if scene.policy.cut_running => {
            Claim::absent(format!("set aside by --cut-running: {detail}"))
        }
        Claim::InUse(_) | Claim::Absent(_) | Claim::Unknown(_) => claim,
    }
}

fn leads_to(leads: &Leads<'_>) -> Claim {
    match leads {
        Leads::Into(_) => Claim::absent("leads into this netns and no other"),
        Leads::Nowhere(reason) => Claim::unknown(reason.as_str()),
    }
}

/// The two proofs must agree: the namespace that the host's end leads to must have an inner end that leads back.
fn points_back(link: &Link, pair: &VethPair, leads: &Leads<'_>) -> Claim {
    let Leads::Into(room) = leads else {
        return match pair.netns {
            Some(netns) => Claim::unknown(format!("netns {netns} has an end for it, and no second proof")),
            None => Claim::unknown("no namespace that can be read has an end for it"),
        };
    };
    match room.inner_end(link.ifindex) {
        Some(inner) if link.peer.is_none_or(|peer| peer == inner.ifindex) => {
            Claim::absent("the inner end points back to it: the two proofs agree")
        }
        Some(inner) => Claim::unknown(format!(
            "the two proofs disagree: inside, {} has index {}, not {}",
            inner.name,
            inner.ifindex,
            link.peer.unwrap_or_default()
        )),
        None => Claim::unknown("the two proofs disagree: no interface of that netns points back to it"),
    }
}

/// A process keeps its namespace, and the pair with it. If no runtime has a record of it, somebody must end it first.
fn processes(scene: &Scene<'_>, pair: &VethPair, owned: bool) -> Claim {
    let mut living = pair.holders.iter().filter_map(|holder| match holder {
        Holder::Process { pid, comm } => Some(format!("process {pid} ({comm})")),
        Holder::Thread { pid, tid, comm } => Some(format!("thread {tid} ({comm}) of process {pid}")),
        Holder::Mount { .. } | Holder::ForeignMount { .. } | Holder::Fd { .. } => None,
    });
    let Some(first) = living.next() else {
        return whole_census(scene, pair, "none in this netns");
    };
    let who = match living.count() {
        0 => format!("{first} lives in this netns"),
        more => format!("{first} and {more} more live in this netns"),
    };
    if owned {
        return Claim::in_use(who);
    }
    Claim::in_use(format!(
        "{who}, and no runtime has a record of it; mend-sandboxes ends such sandboxes"
    ))
}

fn open_files(scene: &Scene<'_>, pair: &VethPair) -> Claim {
    let open = pair.holders.iter().find_map(|holder| match holder {
        Holder::Fd { pid, fd, comm } => Some(format!(
            "process {pid} ({comm}) has this netns open as file descriptor {fd}; restarting that program frees it"
        )),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::Mount { .. } | Holder::ForeignMount { .. } => None,
    });
    open.map_or_else(
        || whole_census(scene, pair, "nobody has this netns open"),
        Claim::in_use,
    )
}

fn mounts_elsewhere(scene: &Scene<'_>, pair: &VethPair) -> Claim {
    let foreign = pair.holders.iter().find_map(|holder| match holder {
        Holder::ForeignMount { pid, path } => Some(format!(
            "it is mounted at {}, in the mount namespace of process {pid} only",
            path.display()
        )),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::Mount { .. } | Holder::Fd { .. } => None,
    });
    foreign.map_or_else(
        || whole_census(scene, pair, "mounted in no other mount namespace alone"),
        Claim::in_use,
    )
}

/// Nobody holds it, if everybody could be looked at.
fn whole_census(scene: &Scene<'_>, pair: &VethPair, nobody: &'static str) -> Claim {
    match (scene.survey.census.unread.first(), pair.netns) {
        (Some(unread), _) => Claim::unknown(unread.as_str()),
        (None, None) => Claim::unknown("nobody knows the netns of this pair"),
        (None, Some(_)) => Claim::absent(nobody),
    }
}

fn plugins(scene: &Scene<'_>, pair: &VethPair) -> Claim {
    for process in &scene.survey.census.processes {
        let Some(call) = &process.cni else { continue };
        if pair
            .mounts()
            .any(|path| crate::scene::same_path(path, &call.netns))
        {
            return Claim::in_use(format!(
                "process {} ({}) is at CNI {} for this netns",
                process.pid, process.comm, call.command
            ));
        }
    }
    whole_census(scene, pair, "none at work for this netns")
}

fn age(scene: &Scene<'_>, pair: &VethPair) -> Claim {
    let grace = scene.policy.grace.as_secs();
    let words = Spoken(grace);
    match pair.age {
        Some(age) if age >= grace => Claim::absent(format!("older than the grace of {words}")),
        Some(age) => Claim::unknown(format!(
            "{} old, which is within the grace of {words}; see --grace",
            Spoken(age)
        )),
        None if grace == 0 => Claim::absent("no grace is asked for"),
        None => {
            Claim::unknown("nothing tells its age, and this is its first sighting; it counts from now on")
        }
    }
}
