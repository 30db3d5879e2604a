//! What each source says of one sandbox.

mod keeper;

use std::collections::HashSet;
use std::path::PathBuf;

use nodemend_evidence::{Claim, Evidence, Source};
use nodemend_hostfs::Spoken;
use nodemend_procns::{Holder, NetnsId};
use nodemend_runtime::Known;

use crate::assemble::Subject;
use crate::describe;
use crate::ids::same_path;
use crate::join::cni_names;
use crate::lost::{self, Proof};
use crate::scene::Scene;
use keeper::{keeper, of_another};

/// The sources that this crate asks itself. All of [`Sources::all`] are required.
pub(crate) struct Sources {
    processes: Source,
    keeper: Source,
    leftovers: Source,
    strangers: Source,
    open_files: Source,
    mounts: Source,
    plugins: Source,
    age: Source,
    parts: Source,
    pod: Source,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            processes: Source::new("processes"),
            keeper: Source::new("its containerd"),
            leftovers: Source::new("shims, bundles and cgroups"),
            strangers: Source::new("other processes in its netns"),
            open_files: Source::new("open files"),
            mounts: Source::new("mounts elsewhere"),
            plugins: Source::new("CNI plugins at work"),
            age: Source::new("age"),
            parts: Source::new("what is left"),
            pod: Source::new("the same pod"),
        }
    }

    pub(crate) fn all(&self) -> [&Source; 8] {
        [
            &self.processes,
            &self.keeper,
            &self.leftovers,
            &self.strangers,
            &self.open_files,
            &self.mounts,
            &self.plugins,
            &self.age,
        ]
    }

    /// The one that `--reap` turns aside.
    pub(crate) fn processes(&self) -> &Source {
        &self.processes
    }
}

/// Every claim on one sandbox. What the runtimes have on record comes first: the first claim that keeps a sandbox is the
/// one that its reader is told.
pub(crate) fn of(scene: &Scene<'_>, subject: &Subject<'_>) -> Vec<Evidence> {
    let sources = &scene.sources;
    let mut said = records(scene, subject);
    let own = [
        (&sources.strangers, strangers(scene, subject)),
        (&sources.processes, processes(scene, subject)),
        (&sources.keeper, keeper(scene, subject)),
        (&sources.leftovers, leftovers(scene, subject)),
        (&sources.open_files, open_files(scene, subject)),
        (&sources.mounts, mounts_elsewhere(scene, subject)),
        (&sources.plugins, plugins(scene, subject)),
        (&sources.age, age(scene, subject)),
        (&sources.parts, Claim::absent(describe::parts(&subject.sandbox))),
        (&sources.pod, Claim::absent(describe::twin(&subject.sandbox))),
    ];
    said.extend(own.map(|(source, claim)| Evidence::new(source, claim)));
    said
}

/// What is on record of any of its ids, or of its network namespace. What merely runs or lies about (tasks, shims,
/// bundles, ids in cgroups) is what the sandbox is made of, and does not speak for it.
fn records(scene: &Scene<'_>, subject: &Subject<'_>) -> Vec<Evidence> {
    let mut said = Vec::new();
    let mut proofs: Vec<(PathBuf, Proof)> = Vec::new();
    let network = of_network(scene, subject);
    let by_id = of_ids(scene, subject);
    for (at, answer) in scene.survey.knowledge.answers.iter().enumerate() {
        if !scene.index.is_record(&answer.source) {
            continue;
        }
        let claim = match (&answer.known, answer.socket()) {
            (Known::NotOffered(_), _) => continue,
            (Known::Doubted(reason), Some(socket)) => match of_another(scene, subject, socket) {
                Some(own) => Claim::absent(format!(
                    "it lists nothing, and this sandbox is of {}",
                    own.display()
                )),
                None => {
                    let proof = lost::proof(scene, subject, socket);
                    let claim = proof.turn(scene.policy, reason);
                    if !proofs.iter().any(|(known, _)| known == socket) {
                        proofs.push((socket.to_owned(), proof));
                    }
                    claim
                }
            },
            (_, _) => weightier(
                by_id.get(at).cloned(),
                network.as_ref().and_then(|said| said.get(at)).cloned(),
            ),
        };
        said.push(Evidence::new(&answer.source, claim));
    }
    for (socket, proof) in proofs {
        let source = Source::new(format!("containerd {} metadata", socket.display()));
        said.push(Evidence::new(&source, proof.claim()));
    }
    said
}

/// One claim for each answer, by ids.
fn of_ids(scene: &Scene<'_>, subject: &Subject<'_>) -> Vec<Claim> {
    let traces = &subject.traces;
    let cached = subject
        .sandbox
        .attachments
        .iter()
        .map(|entry| entry.container_id.clone());
    let names = traces
        .containers
        .iter()
        .flat_map(|id| cni_names(id, &traces.namespaces));
    let mut ids: Vec<String> = names.chain(cached).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut claims: Vec<Option<Claim>> = vec![None; scene.survey.knowledge.answers.len()];
    for id in &ids {
        for (claim, evidence) in claims.iter_mut().zip(scene.index.of_id(id)) {
            *claim = Some(weightier(claim.take(), Some(evidence.claim)));
        }
    }
    claims.into_iter().map(|claim| weightier(claim, None)).collect()
}

/// One claim for each answer, by the network namespace. None without one.
///
/// A sandbox on record that nothing ties to a namespace may own any; but not this one, if a process, a bundle or a
/// state of runc ties it to this sandbox.
fn of_network(scene: &Scene<'_>, subject: &Subject<'_>) -> Option<Vec<Claim>> {
    let netns = subject.sandbox.network.as_ref()?.netns;
    let traces = &subject.traces;
    let tied = !traces.processes.is_empty() || !traces.bundles.is_empty() || !traces.runc_states.is_empty();
    let paths = scene.paths(netns);
    let said = scene.index.of_netns(netns, &paths).into_iter();
    let claims = said.map(|evidence| match evidence.claim {
        Claim::Unknown(_) if tied => Claim::absent("no sandbox owns this netns"),
        claim @ (Claim::InUse(_) | Claim::Absent(_) | Claim::Unknown(_)) => claim,
    });
    Some(claims.collect())
}

/// The one of two claims that argues more against removal.
fn weightier(one: Option<Claim>, other: Option<Claim>) -> Claim {
    let weight = |claim: &Claim| match claim {
        Claim::InUse(_) => 0,
        Claim::Unknown(_) => 1,
        Claim::Absent(_) => 2,
    };
    let both = one.into_iter().chain(other);
    both.min_by_key(weight)
        .unwrap_or_else(|| Claim::unknown("it was not asked"))
}

/// A sandbox that still runs something is no garbage by itself.
fn processes(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let survey = scene.survey;
    let unread = survey.census.unread.iter().chain(&survey.details.unread).next();
    let running = describe::processes(&subject.sandbox);
    match (running, unread) {
        (Some(running), _) if !scene.policy.reap => {
            Claim::in_use(format!("{running}; --reap ends what still runs"))
        }
        (_, Some(unread)) => Claim::unknown(unread.as_str()),
        (Some(running), None) => Claim::absent(format!("set aside by --reap: {running}")),
        (None, None) => Claim::absent("none of it runs"),
    }
}

/// What could not be read may be a part of it, or of the sandbox that it really is.
fn leftovers(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let survey = scene.survey;
    let traces = &subject.traces;
    let mut unread = survey.leftovers.unread.iter().chain(&survey.places.unread);
    if let Some(unread) = unread.next() {
        return Claim::unknown(unread.as_str());
    }
    if let Some(contradiction) = traces.contradictions.first() {
        return Claim::unknown(contradiction.as_str());
    }
    let bundles = traces.bundles.iter();
    let bundles = bundles.filter_map(|bundle| Some((&bundle.path, bundle.unreadable.as_ref()?)));
    let states = traces.runc_states.iter();
    let states = states.filter_map(|state| Some((&state.path, state.unreadable.as_ref()?)));
    match bundles.chain(states).next() {
        Some((path, reason)) => Claim::unknown(format!("{}: {reason}", path.display())),
        None => Claim::absent("all of them were read"),
    }
}

/// Who keeps its network namespace, and is no part of it.
fn others<'a>(scene: &Scene<'a>, subject: &Subject<'_>) -> impl Iterator<Item = &'a Holder> {
    let netns = subject.sandbox.network.as_ref().map(|network| network.netns);
    let holders = netns
        .and_then(|netns: NetnsId| scene.namespaces.get(&netns))
        .map(|netns| netns.holders.as_slice());
    let processes = subject.sandbox.processes.iter().map(|process| process.pid);
    let own: HashSet<u32> = processes
        .chain(subject.sandbox.shims.iter().map(|shim| shim.pid))
        .collect();
    holders
        .unwrap_or_default()
        .iter()
        .filter(move |holder| match holder {
            Holder::Process { pid, .. } | Holder::Thread { pid, .. } | Holder::Fd { pid, .. } => {
                !own.contains(pid)
            }
            Holder::Mount { .. } | Holder::ForeignMount { .. } => true,
        })
}

fn strangers(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let mut found = others(scene, subject).filter_map(|holder| match holder {
        Holder::Process { pid, comm } => Some(format!("process {pid} ({comm})")),
        Holder::Thread { pid, tid, comm } => Some(format!("thread {tid} ({comm}) of process {pid}")),
        Holder::Mount { .. } | Holder::ForeignMount { .. } | Holder::Fd { .. } => None,
    });
    match found.next() {
        Some(first) => Claim::in_use(format!("{first} lives there, and is of none of its containers")),
        None => whole_census(scene, "none"),
    }
}

fn open_files(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let open = others(scene, subject).find_map(|holder| match holder {
        Holder::Fd { pid, fd, comm } => Some(format!(
            "process {pid} ({comm}) has its netns open as file descriptor {fd}; restarting that program frees it"
        )),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::Mount { .. } | Holder::ForeignMount { .. } => None,
    });
    open.map_or_else(
        || whole_census(scene, "nobody else has its netns open"),
        Claim::in_use,
    )
}

fn mounts_elsewhere(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let foreign = others(scene, subject).find_map(|holder| match holder {
        Holder::ForeignMount { pid, path } => Some(format!(
            "its netns is mounted at {}, in the mount namespace of process {pid} only",
            path.display()
        )),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::Mount { .. } | Holder::Fd { .. } => None,
    });
    foreign.map_or_else(
        || whole_census(scene, "its netns is mounted in no other mount namespace alone"),
        Claim::in_use,
    )
}

/// Nobody holds it, if everybody could be looked at.
fn whole_census(scene: &Scene<'_>, nobody: &'static str) -> Claim {
    match scene.survey.census.unread.first() {
        Some(unread) => Claim::unknown(unread.as_str()),
        None => Claim::absent(nobody),
    }
}

fn plugins(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let traces = &subject.traces;
    let ids: HashSet<String> = traces
        .containers
        .iter()
        .flat_map(|id| cni_names(id, &traces.namespaces))
        .collect();
    let paths: Vec<_> = subject
        .sandbox
        .network
        .iter()
        .flat_map(|network| &network.paths)
        .collect();
    for (process, call) in scene.survey.census.cni_calls() {
        if ids.contains(&call.container_id) || paths.iter().any(|path| same_path(path, &call.netns)) {
            return Claim::in_use(format!(
                "process {} ({}) is at CNI {} for it",
                process.pid, process.comm, call.command
            ));
        }
    }
    whole_census(scene, "none at work for it")
}

fn age(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let grace = scene.policy.grace.as_secs();
    let words = Spoken(grace);
    match subject.sandbox.age {
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
