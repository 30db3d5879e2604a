//! All answers, arranged for questions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_evidence::{Claim, Evidence, Source};
use nodemend_procns::{Census, NetnsId};

use crate::bundles::UNREADABLE;
use crate::knowledge::{Answer, Knowledge, Known, Record, RecordKind};
use crate::ownership::{Ownership, full_name, in_run, namespaced};
use crate::sources;

/// What a node's sources say, prepared once, so that each of tens of thousands of questions costs a few lookups.
#[derive(Clone, Debug)]
pub struct Index {
    required: Vec<Source>,
    said: Vec<Said>,
    silent: Vec<String>,
    owners: HashMap<NetnsId, String>,
    live: usize,
}

/// One answer, arranged.
#[derive(Clone, Debug)]
struct Said {
    source: Source,
    ids: HashMap<String, Claim>,
    netns: HashMap<NetnsId, Claim>,
    paths: HashMap<PathBuf, Claim>,
    /// Of an id that is not in `ids`.
    no_such_id: Claim,
    /// Of a namespace that is not in `netns` or `paths`.
    no_such_netns: Claim,
}

impl Index {
    /// Arranges the answers.
    ///
    /// `ties` are further facts about which container id has which network namespace, from libcni's cache.
    pub fn new(knowledge: &Knowledge, census: &Census, ties: &[(String, NetnsId)]) -> Self {
        let ownership = Ownership::gather(knowledge, census, ties);
        let answers = &knowledge.answers;
        let offered = answers
            .iter()
            .filter(|answer| !matches!(answer.known, Known::NotOffered(_)));
        Self {
            required: offered.map(|answer| answer.source.clone()).collect(),
            said: answers
                .iter()
                .map(|answer| Said::of(answer, &ownership))
                .collect(),
            silent: answers.iter().filter_map(silence).collect(),
            owners: ownership.owners(),
            live: ownership.with_network(),
        }
    }

    /// The sources that must have answered before anything is proven: all but those that the runtime does not
    /// offer. They are empty only if nobody was asked, and then nothing is proven at all.
    pub fn required(&self) -> &[Source] {
        &self.required
    }

    /// True if the source is a runtime's own record (CRI, containerd's containers and sandboxes); false if it tells
    /// what merely still runs or lies about (tasks, shims, bundles, ids in cgroups).
    pub fn is_record(&self, source: &Source) -> bool {
        sources::is_record(source)
    }

    /// What each source says of a container id, as the CNI plugins got it.
    ///
    /// Ids are compared whole. Docker's short forms and other prefixes match nothing, which a caller must know
    /// before it reads `Absent`. An empty id is no question: every source is `Unknown` then.
    pub fn of_id(&self, id: &str) -> Vec<Evidence> {
        if id.is_empty() {
            let nothing = Claim::unknown("cannot be asked: there is no id");
            return self
                .said
                .iter()
                .map(|said| Evidence::new(&said.source, nothing.clone()))
                .collect();
        }
        self.said.iter().map(|said| said.of_id(id)).collect()
    }

    /// What each source says of a network namespace. `paths` are where it is mounted.
    ///
    /// The host's own namespace belongs to no sandbox: do not ask for it.
    pub fn of_netns(&self, netns: NetnsId, paths: &[&Path]) -> Vec<Evidence> {
        let paths: Vec<_> = paths.iter().map(|path| in_run(path)).collect();
        self.said
            .iter()
            .map(|said| said.of_netns(netns, &paths))
            .collect()
    }

    /// How many sandboxes with a network of their own the sources know, each counted once. One whose network
    /// namespace is gone does not count; one whose namespace nobody knows does.
    pub fn live_sandboxes(&self) -> usize {
        self.live
    }

    /// Who owns a network namespace: `namespace/name` of the pod if it is known, else the id.
    pub fn owner_of(&self, netns: NetnsId) -> Option<String> {
        self.owners.get(&netns).cloned()
    }

    /// Each required source that did not answer, as `source: reason`.
    pub fn silent(&self) -> Vec<String> {
        self.silent.clone()
    }
}

fn silence(answer: &Answer) -> Option<String> {
    match &answer.known {
        Known::Unknown(reason) | Known::Doubted(reason) => Some(format!("{}: {reason}", answer.source)),
        Known::Records(_) | Known::NotOffered(_) => None,
    }
}

impl Said {
    fn of(answer: &Answer, ownership: &Ownership) -> Self {
        match &answer.known {
            Known::Records(records) => Self::of_records(&answer.source, records, ownership),
            Known::Unknown(reason) | Known::Doubted(reason) => Self::nothing(&answer.source, reason),
            Known::NotOffered(reason) => Self::nothing(&answer.source, &format!("not offered: {reason}")),
        }
    }

    fn nothing(source: &Source, reason: &str) -> Self {
        let unknown = Claim::unknown(reason);
        Self {
            source: source.clone(),
            ids: HashMap::new(),
            netns: HashMap::new(),
            paths: HashMap::new(),
            no_such_id: unknown.clone(),
            no_such_netns: unknown,
        }
    }

    fn of_records(source: &Source, records: &[Record], ownership: &Ownership) -> Self {
        let asked = records.len();
        let mut said = Self {
            no_such_id: Claim::absent(format!("no sandbox or container has this id ({asked} asked)")),
            no_such_netns: Claim::absent(format!("no sandbox owns this netns ({asked} asked)")),
            ..Self::nothing(source, "")
        };
        // Sandboxes first: theirs is the sentence that a reader wants to see.
        let (sandboxes, others): (Vec<_>, Vec<_>) = records
            .iter()
            .partition(|record| record.kind == RecordKind::Sandbox);
        for record in sandboxes.iter().chain(&others) {
            said.enter(record, ownership);
        }
        let loose = records
            .iter()
            .find(|record| must_be_tied(source, record) && may_own_any(record, ownership));
        if let Some(record) = loose {
            said.no_such_netns = Claim::unknown(may_own(record));
        }
        said
    }

    fn enter(&mut self, record: &Record, ownership: &Ownership) {
        let claim = Claim::InUse(sentence(record));
        for id in [
            Some(record.id.clone()),
            record.sandbox_id.clone(),
            namespaced(record),
        ]
        .into_iter()
        .flatten()
        {
            self.ids.entry(id).or_insert_with(|| claim.clone());
        }
        let Some(group) = ownership.group(record) else {
            return;
        };
        for netns in &group.netns {
            self.netns.entry(*netns).or_insert_with(|| claim.clone());
        }
        for path in &group.paths {
            self.paths.entry(path.clone()).or_insert_with(|| claim.clone());
        }
    }

    fn of_id(&self, id: &str) -> Evidence {
        Evidence::new(&self.source, self.ids.get(id).unwrap_or(&self.no_such_id).clone())
    }

    fn of_netns(&self, netns: NetnsId, paths: &[PathBuf]) -> Evidence {
        let by_path = || paths.iter().find_map(|path| self.paths.get(path));
        let claim = self
            .netns
            .get(&netns)
            .or_else(by_path)
            .unwrap_or(&self.no_such_netns);
        Evidence::new(&self.source, claim.clone())
    }
}

/// True for what has a network that its source should know: a sandbox in a runtime's records, and a bundle that told
/// nothing because it cannot be read.
fn must_be_tied(source: &Source, record: &Record) -> bool {
    match record.kind {
        RecordKind::Sandbox => sources::is_record(source),
        RecordKind::Bundle => record.state.as_deref() == Some(UNREADABLE),
        RecordKind::Container | RecordKind::Task | RecordKind::Shim => false,
    }
}

fn may_own_any(record: &Record, ownership: &Ownership) -> bool {
    ownership.group(record).is_none_or(|group| group.may_own_any())
}

fn may_own(record: &Record) -> String {
    format!(
        "{} is tied to no network namespace by any source; it may own this one",
        title(record)
    )
}

impl std::fmt::Display for Record {
    /// As in evidence: `sandbox 8f3… (default/web-1), SANDBOX_READY`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&sentence(self))
    }
}

/// `sandbox 8f3… (default/web-1), SANDBOX_READY`.
fn sentence(record: &Record) -> Arc<str> {
    let title = title(record);
    match (&record.state, record.pid) {
        (Some(state), Some(pid)) => format!("{title}, {state}, pid {pid}"),
        (Some(state), None) => format!("{title}, {state}"),
        (None, Some(pid)) => format!("{title}, pid {pid}"),
        (None, None) => title,
    }
    .into()
}

fn title(record: &Record) -> String {
    let kind = match record.kind {
        RecordKind::Sandbox => "sandbox",
        RecordKind::Container => "container",
        RecordKind::Task => "task",
        RecordKind::Shim => "shim of",
        RecordKind::Bundle => "bundle of",
    };
    match &record.pod {
        Some(pod) => format!("{kind} {} ({})", record.id, full_name(pod)),
        None => format!("{kind} {}", record.id),
    }
}

#[cfg(test)]
mod tests;
