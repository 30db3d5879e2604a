//! What the runtimes say of a pod: the answers of [`nodemend_runtime`], by UID.

use std::collections::{BTreeSet, HashMap};

use nodemend_evidence::{Claim, Evidence, Source};
use nodemend_procns::Census;
use nodemend_runtime::{Index, Knowledge, Known, Record, RecordKind};

/// Processes that are a runtime, or hold one.
const RUNTIMES: [&str; 8] = [
    "containerd",
    "crio",
    "dockerd",
    "cri-dockerd",
    "k3s",
    "k3s-server",
    "k3s-agent",
    "kubelite",
];

/// The answers, arranged for questions by UID.
pub(crate) struct Runtimes {
    said: Vec<Said>,
    whole: Source,
    /// Of all of them together.
    together: Claim,
    required: Vec<Source>,
    silent: Vec<String>,
}

struct Said {
    source: Source,
    pods: HashMap<String, Claim>,
    others: Claim,
}

impl Runtimes {
    /// `members` are the pods that processes belong to; None if nobody knows that.
    pub(crate) fn of(knowledge: &Knowledge, census: &Census, members: Option<usize>) -> Self {
        let index = Index::new(knowledge, census, &[]);
        let sandboxes = sandboxes(knowledge);
        let dead = is_dead(knowledge, census, members);
        let mut required: Vec<Source> = index.required().to_vec();
        if dead {
            required.retain(|source| !index.is_record(source) && !is_silent(knowledge, source));
        }
        let whole = Source::new("container runtimes");
        required.push(whole.clone());
        Self {
            said: knowledge
                .answers
                .iter()
                .map(|answer| Said::of(&answer.source, &answer.known, &sandboxes, dead))
                .collect(),
            whole,
            together: together(knowledge, dead),
            required,
            silent: if dead { Vec::new() } else { index.silent() },
        }
    }

    pub(crate) fn required(&self) -> &[Source] {
        &self.required
    }

    /// Each required source that did not answer.
    pub(crate) fn silent(&self) -> &[String] {
        &self.silent
    }

    /// What each source says of a pod, and what all of them are.
    pub(crate) fn of_pod<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = Evidence> + 'a {
        let each = self.said.iter().map(move |said| {
            let claim = said.pods.get(uid).unwrap_or(&said.others);
            Evidence::new(&said.source, claim.clone())
        });
        each.chain(std::iter::once(Evidence::new(&self.whole, self.together.clone())))
    }
}

/// How many pods the runtimes know, each once.
pub(crate) fn pods(knowledge: &Knowledge) -> BTreeSet<&str> {
    let sandboxes = records(knowledge).filter(|record| record.kind == RecordKind::Sandbox);
    sandboxes
        .filter_map(|record| Some(record.pod.as_ref()?.uid.as_str()))
        .collect()
}

fn records(knowledge: &Knowledge) -> impl Iterator<Item = &Record> {
    knowledge.answers.iter().flat_map(|answer| match &answer.known {
        Known::Records(records) => records.as_slice(),
        Known::Unknown(_) | Known::Doubted(_) | Known::NotOffered(_) => &[],
    })
}

/// The pod of each sandbox and container, whoever tells it.
fn sandboxes(knowledge: &Knowledge) -> HashMap<&str, &str> {
    let mut pods = HashMap::new();
    for record in records(knowledge) {
        if let Some(pod) = &record.pod {
            pods.insert(record.id.as_str(), pod.uid.as_str());
            if let Some(sandbox) = &record.sandbox_id {
                pods.insert(sandbox.as_str(), pod.uid.as_str());
            }
        }
    }
    pods
}

impl Said {
    fn of(source: &Source, known: &Known, sandboxes: &HashMap<&str, &str>, dead: bool) -> Self {
        let mut pods = HashMap::new();
        let others = match known {
            Known::Records(records) => {
                for record in records {
                    if let Some(uid) = pod_of(record, sandboxes) {
                        pods.entry(uid.to_owned())
                            .or_insert_with(|| Claim::in_use(record.to_string()));
                    }
                }
                Claim::absent(format!("none of its {} is of this pod", records.len()))
            }
            Known::Unknown(reason) | Known::Doubted(reason) if dead => {
                Claim::unknown(format!("{reason}; it is dead, and so is not needed"))
            }
            Known::Unknown(reason) | Known::Doubted(reason) => Claim::unknown(reason.as_str()),
            Known::NotOffered(reason) => Claim::unknown(format!("not offered: {reason}")),
        };
        Self {
            source: source.clone(),
            pods,
            others,
        }
    }
}

fn pod_of<'a>(record: &'a Record, sandboxes: &HashMap<&str, &'a str>) -> Option<&'a str> {
    let named = record.pod.as_ref().map(|pod| pod.uid.as_str());
    let of = |id: &str| sandboxes.get(id).copied();
    named
        .or_else(|| of(record.sandbox_id.as_deref()?))
        .or_else(|| of(&record.id))
}

/// True if no runtime runs, and nothing of one either: no process of it, no shim, no bundle, no process in a pod's cgroup.
/// Nobody is left then who could use a pod directory for a container.
fn is_dead(knowledge: &Knowledge, census: &Census, members: Option<usize>) -> bool {
    let runs = census
        .processes
        .iter()
        .any(|process| RUNTIMES.contains(&process.comm.as_str()));
    let nothing_of = |name: &str| {
        let mut found = knowledge
            .answers
            .iter()
            .filter(|answer| answer.source.name() == name);
        found
            .next()
            .is_some_and(|answer| matches!(&answer.known, Known::Records(records) if records.is_empty()))
    };
    census.is_complete()
        && !census.processes.is_empty()
        && !runs
        && members == Some(0)
        && nothing_of("shim processes")
        && nothing_of("shim bundles")
}

fn is_silent(knowledge: &Knowledge, source: &Source) -> bool {
    let mut found = knowledge.answers.iter().filter(|answer| answer.source == *source);
    found.any(|answer| matches!(answer.known, Known::Unknown(_) | Known::Doubted(_)))
}

fn together(knowledge: &Knowledge, dead: bool) -> Claim {
    match knowledge.answers.len() {
        _ if dead => {
            Claim::absent("dead: no runtime process, no shim, no bundle, no process in a pod's cgroup")
        }
        0 => Claim::unknown("no runtime was asked"),
        count => Claim::absent(format!("{count} sources were asked")),
    }
}
