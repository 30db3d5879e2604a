//! Which network namespaces belong to which sandbox, gathered from all sources together.
//!
//! The CRI's list names no namespace. What ties a sandbox to one is elsewhere: in containerd's records, in the
//! bundles, in the processes that carry its id in their cgroup, in libcni's cache.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use nodemend_procns::{Census, Holder, NetnsId};

use crate::knowledge::{Knowledge, Known, NetnsRef, Pod, Record, RecordKind};

/// What is known of one sandbox, or of one container that belongs to none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// The namespaces that it has, or may have. Never the host's.
    pub(crate) netns: HashSet<NetnsId>,
    /// The paths of its namespace in the records, below /run.
    pub(crate) paths: HashSet<PathBuf>,
    pub(crate) pod: Option<Pod>,
    /// Something that can be relied on says where its network is, or was.
    tied: bool,
    host_network: bool,
    /// It stands for a pod.
    of_kubernetes: bool,
    recorded: bool,
}

impl Group {
    /// True if it may own any namespace of the node: nothing says which.
    pub(crate) fn may_own_any(&self) -> bool {
        !self.tied && !self.host_network
    }

    /// True if it has a network of its own: a namespace that is there, or one that nobody knows.
    fn has_network(&self) -> bool {
        !self.netns.is_empty() || (self.recorded && self.may_own_any())
    }
}

/// Every group, by the id of its sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ownership {
    groups: HashMap<String, Group>,
    /// The sandbox of a container; the plain id of `<namespace>-<id>`.
    sandbox_of: HashMap<String, String>,
    host: NetnsId,
}

impl Ownership {
    pub(crate) fn gather(knowledge: &Knowledge, census: &Census, ties: &[(String, NetnsId)]) -> Self {
        let mut own = Self {
            host: census.host,
            ..Self::default()
        };
        own.learn_sandboxes(knowledge);
        let living: HashMap<u32, NetnsId> = census
            .processes
            .iter()
            .filter_map(|process| Some((process.pid, process.netns?)))
            .collect();
        let elsewhere = mounted_elsewhere(census);
        for record in records(knowledge) {
            own.enter(record, &living, &elsewhere);
        }
        own.enter_processes(census);
        own.enter_ties(ties);
        own
    }

    /// The group that a record belongs to.
    pub(crate) fn group(&self, record: &Record) -> Option<&Group> {
        self.groups.get(self.key(record))
    }

    /// How many pods have a network of their own. Two ids in the same namespace are one pod.
    pub(crate) fn with_network(&self) -> usize {
        let pods = || {
            self.groups
                .values()
                .filter(|group| group.of_kubernetes && group.has_network())
        };
        let mut covered: HashSet<NetnsId> = HashSet::new();
        let mut count = 0;
        for group in pods().filter(|group| group.recorded) {
            covered.extend(&group.netns);
            count += 1;
        }
        for group in pods().filter(|group| !group.recorded) {
            if group.netns.is_disjoint(&covered) {
                count += 1;
            }
            covered.extend(&group.netns);
        }
        count
    }

    /// Who owns each namespace, in words: a pod rather than an id, and the first by name if there are several.
    pub(crate) fn owners(&self) -> HashMap<NetnsId, String> {
        let mut named: Vec<_> = self.groups.iter().collect();
        named.sort_by_key(|(id, group)| (group.pod.is_none(), !group.recorded, id.as_str()));
        let mut owners = HashMap::new();
        for (id, group) in named {
            let name = group.pod.as_ref().map_or_else(|| id.clone(), full_name);
            for netns in &group.netns {
                owners.entry(*netns).or_insert_with(|| name.clone());
            }
        }
        owners
    }

    fn learn_sandboxes(&mut self, knowledge: &Knowledge) {
        for record in records(knowledge) {
            if let Some(sandbox) = record
                .sandbox_id
                .as_ref()
                .filter(|sandbox| **sandbox != record.id)
            {
                self.sandbox_of.insert(record.id.clone(), sandbox.clone());
            }
        }
        for record in records(knowledge) {
            if let Some(long) = namespaced(record) {
                let key = self.key(record).to_owned();
                self.sandbox_of.entry(long).or_insert(key);
            }
        }
    }

    fn key<'a>(&'a self, record: &'a Record) -> &'a str {
        record
            .sandbox_id
            .as_deref()
            .unwrap_or_else(|| self.key_of_id(&record.id))
    }

    fn key_of_id<'a>(&'a self, id: &'a str) -> &'a str {
        self.sandbox_of.get(id).map_or(id, String::as_str)
    }

    fn enter(&mut self, record: &Record, living: &HashMap<u32, NetnsId>, elsewhere: &Elsewhere) {
        let host = self.host;
        let key = self.key(record).to_owned();
        let is_the_sandbox = record.id == key;
        let group = self.groups.entry(key).or_default();
        group.recorded |= record.kind == RecordKind::Sandbox || record.sandbox_id.is_some();
        group.of_kubernetes |= group.recorded || record.pod.is_some() || is_of_cri(record);
        group.host_network |= record.host_network && is_the_sandbox;
        // A name is better than a UID alone.
        if group
            .pod
            .as_ref()
            .is_none_or(|pod| pod.name.is_empty() && record.pod.is_some())
        {
            group.pod.clone_from(&record.pod);
        }
        if let Some(netns) = &record.netns {
            enter_reference(group, netns, host, elsewhere);
        }
        let lived_in = record
            .pid
            .filter(|_| !is_over(record))
            .and_then(|pid| living.get(&pid).copied());
        if let Some(netns) = lived_in.filter(|netns| *netns != host) {
            group.netns.insert(netns);
            // The pid in a bundle may be another process's by now: it protects a namespace and proves nothing.
            group.tied |= record.kind != RecordKind::Bundle;
        }
    }

    fn enter_processes(&mut self, census: &Census) {
        for process in &census.processes {
            let Some(netns) = process.netns.filter(|netns| *netns != self.host) else {
                continue;
            };
            for id in &process.container_ids {
                let key = self.key_of_id(id).to_owned();
                let group = self.groups.entry(key).or_default();
                group.netns.insert(netns);
                group.tied = true;
            }
        }
    }

    fn enter_ties(&mut self, ties: &[(String, NetnsId)]) {
        for (id, netns) in ties.iter().filter(|(_, netns)| *netns != self.host) {
            let key = self.key_of_id(id).to_owned();
            if let Some(group) = self.groups.get_mut(&key) {
                group.netns.insert(*netns);
                group.tied = true;
            }
        }
    }
}

fn records(knowledge: &Knowledge) -> impl Iterator<Item = &Record> {
    knowledge.answers.iter().flat_map(|answer| match &answer.known {
        Known::Records(records) => records.as_slice(),
        Known::Unknown(_) | Known::Doubted(_) | Known::NotOffered(_) => &[],
    })
}

/// Where other mount namespaces have network namespaces mounted.
type Elsewhere = HashMap<PathBuf, Vec<NetnsId>>;

fn mounted_elsewhere(census: &Census) -> Elsewhere {
    let mut elsewhere = Elsewhere::new();
    for netns in census.namespaces.iter().filter(|netns| netns.id != census.host) {
        for holder in &netns.holders {
            if let Holder::ForeignMount { path, .. } = holder {
                elsewhere.entry(in_run(path)).or_default().push(netns.id);
            }
        }
    }
    elsewhere
}

/// A path below /proc names whatever process has that pid now: it protects a namespace and proves nothing.
///
/// Where a runtime has a mount namespace of its own (PrivateTmp=, snaps), its mounts do not come back: at the path that
/// it names there is nothing here, and the namespace is mounted there.
fn enter_reference(group: &mut Group, netns: &NetnsRef, host: NetnsId, elsewhere: &Elsewhere) {
    let path = in_run(&netns.path);
    let lasts = !path.starts_with("/proc");
    if netns.id == Some(host) {
        group.host_network |= lasts;
        return;
    }
    group.netns.extend(netns.id);
    if netns.id.is_none() && lasts {
        group.netns.extend(elsewhere.get(&path).into_iter().flatten());
    }
    if lasts {
        group.tied = true;
        group.paths.insert(path);
    }
}

/// A task that ended keeps its pid in containerd's answers, and the kernel may have given it away since.
fn is_over(record: &Record) -> bool {
    record
        .state
        .as_deref()
        .is_some_and(|state| state.eq_ignore_ascii_case("stopped"))
}

/// The CRI plugin keeps its containers in this namespace of containerd.
fn is_of_cri(record: &Record) -> bool {
    record.namespace.as_deref() == Some("k8s.io")
}

/// nerdctl gives CNI plugins `<namespace>-<id>` as container id (pkg/ocihook).
pub(crate) fn namespaced(record: &Record) -> Option<String> {
    record
        .namespace
        .as_ref()
        .map(|namespace| format!("{namespace}-{}", record.id))
}

pub(crate) fn full_name(pod: &Pod) -> String {
    if pod.name.is_empty() {
        return format!("pod {}", pod.uid);
    }
    format!("{}/{}", pod.namespace, pod.name)
}

/// /var/run is a link to /run; runtimes write either.
pub(crate) fn in_run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}
