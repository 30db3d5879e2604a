//! One survey, arranged for questions: its sandboxes, and what is said of each.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use nodemend_cni::CacheEntry;
use nodemend_evidence::{Claim, Look, Source};
use nodemend_procns::{Detail, Holder, Listener, Netns, NetnsId};
use nodemend_rtnl::Seen;
use nodemend_runtime::{Index, Known, Pod, RecordKind};

use crate::assemble::Subject;
use crate::claims::{self, Sources};
use crate::foreign::foreign;
use crate::ids::in_run;
use crate::join::{Join, cached, records};
use crate::judge::{Looks, Policy};
use crate::sandbox::Cgroup;
use crate::survey::Survey;

/// A survey with the lookups that the claims need.
pub(crate) struct Scene<'a> {
    pub(crate) survey: &'a Survey,
    pub(crate) policy: &'a Policy,
    pub(crate) index: Index,
    pub(crate) sources: Sources,
    /// The sockets of the containerds that were asked, whatever they answered.
    pub(crate) containerds: HashSet<PathBuf>,
    pub(crate) namespaces: HashMap<NetnsId, &'a Netns>,
    pub(crate) details: HashMap<u32, &'a Detail>,
    /// libcni's cache, by container id and by the path of the namespace.
    pub(crate) cached: HashMap<&'a str, Vec<&'a CacheEntry>>,
    pub(crate) cached_at: HashMap<PathBuf, Vec<&'a CacheEntry>>,
    /// The pods of what is on record, by its id.
    pub(crate) pods: HashMap<&'a str, &'a Pod>,
    /// The sandboxes on record of each pod, by UID and by name: id and words, those that are ready first.
    pub(crate) recorded: HashMap<String, Vec<(String, String)>>,
    /// By container.
    pub(crate) cgroups: HashMap<&'a str, Vec<&'a Cgroup>>,
    /// By the inode of the socket.
    pub(crate) listeners: HashMap<u64, Vec<&'a Listener>>,
    pub(crate) views: HashMap<NetnsId, &'a Seen>,
    /// The host's ends of the pairs that lead into a namespace, by the host's id for it.
    pub(crate) veths: HashMap<i32, Vec<&'a str>>,
}

impl<'a> Scene<'a> {
    pub(crate) fn of(survey: &'a Survey, policy: &'a Policy) -> Self {
        let details = survey.details.processes.iter();
        let namespaces = survey.census.namespaces.iter();
        let cgroups = survey.places.cgroups.iter();
        let pods = records(survey).filter_map(|record| Some((record.id.as_str(), record.pod.as_ref()?)));
        Self {
            survey,
            policy,
            index: Index::new(&survey.knowledge, &survey.census, &[]),
            sources: Sources::new(),
            containerds: containerds(survey),
            namespaces: namespaces.map(|netns| (netns.id, netns)).collect(),
            details: details.map(|detail| (detail.pid, detail)).collect(),
            cached: cached(survey),
            cached_at: grouped(survey.cache.iter().map(|entry| (in_run(&entry.netns), entry))),
            pods: pods.collect(),
            recorded: recorded(survey),
            cgroups: grouped(cgroups.map(|one| (one.container.as_str(), &one.cgroup))),
            listeners: grouped(survey.listeners.iter().map(|listener| (listener.inode, listener))),
            views: survey.views.iter().map(|view| (view.netns, &view.seen)).collect(),
            veths: veths(survey),
        }
    }

    /// Everything that this survey says of each sandbox.
    pub(crate) fn looks(&self) -> Looks {
        let mut looks = Looks {
            required: self.required(),
            ours: Vec::new(),
            foreign: Vec::new(),
        };
        for subject in self.subjects() {
            let evidence = claims::of(self, &subject);
            let known = evidence
                .iter()
                .any(|one| self.index.is_record(&one.source) && matches!(one.claim, Claim::InUse(_)));
            match foreign(self, &subject).filter(|_| !known) {
                Some(reason) => looks.foreign.push((subject.sandbox, reason)),
                None => looks.ours.push(Look {
                    subject: subject.sandbox,
                    evidence,
                }),
            }
        }
        looks
    }

    fn required(&self) -> Vec<Source> {
        let records = self.index.required().iter();
        let records = records.filter(|source| self.index.is_record(source));
        records.chain(self.sources.all()).cloned().collect()
    }

    /// Every sandbox.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = Subject<'a>> {
        Join::traces(self.survey)
            .into_iter()
            .map(|traces| self.subject(traces))
    }

    /// The cgroups of a process, as paths in their hierarchies.
    pub(crate) fn cgroups_of(&self, pid: u32) -> impl Iterator<Item = &'a Path> {
        let detail = self.details.get(&pid).copied();
        detail
            .into_iter()
            .flat_map(|detail| &detail.cgroups)
            .map(|member| member.path.as_path())
    }

    /// Where a namespace is mounted on this host.
    pub(crate) fn paths(&self, netns: NetnsId) -> Vec<&'a Path> {
        let holders = self.namespaces.get(&netns).map(|netns| netns.holders.as_slice());
        let paths = holders
            .unwrap_or_default()
            .iter()
            .filter_map(|holder| match holder {
                Holder::Mount { path } => Some(path.as_path()),
                Holder::Process { .. }
                | Holder::Thread { .. }
                | Holder::ForeignMount { .. }
                | Holder::Fd { .. } => None,
            });
        paths.collect()
    }
}

fn grouped<K: std::hash::Hash + Eq, V>(pairs: impl Iterator<Item = (K, V)>) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}

fn veths(survey: &Survey) -> HashMap<i32, Vec<&str>> {
    let host = survey.views.iter().find(|view| view.netns == survey.census.host);
    let links = host.and_then(|view| match &view.seen {
        Seen::Inside { links, .. } => Some(links.as_slice()),
        Seen::Unknown { .. } | Seen::Ended => None,
    });
    let veths = links
        .unwrap_or_default()
        .iter()
        .filter(|link| link.kind.as_deref() == Some("veth"));
    grouped(veths.filter_map(|link| Some((link.peer_nsid?, link.name.as_str()))))
}

/// The sockets whose API is containerd's.
fn containerds(survey: &Survey) -> HashSet<PathBuf> {
    let answers = survey
        .knowledge
        .answers
        .iter()
        .filter(|answer| answer.is_of_containerd());
    let offered = answers.filter(|answer| !matches!(answer.known, Known::NotOffered(_)));
    offered.filter_map(|answer| answer.socket()).map(in_run).collect()
}

/// `namespace/name`, if the name is known.
pub(crate) fn full_name(pod: &Pod) -> Option<String> {
    (!pod.name.is_empty()).then(|| format!("{}/{}", pod.namespace, pod.name))
}

/// Each pod's sandboxes on record: id and words, those that are ready first.
fn recorded(survey: &Survey) -> HashMap<String, Vec<(String, String)>> {
    let mut recorded: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let sandboxes = records(survey).filter(|record| record.kind == RecordKind::Sandbox);
    let mut sandboxes: Vec<_> = sandboxes
        .filter_map(|record| Some((record, record.pod.as_ref()?)))
        .collect();
    sandboxes.sort_by_key(|(record, _)| record.state.as_deref() != Some("SANDBOX_READY"));
    for (record, pod) in sandboxes {
        for key in [Some(pod.uid.clone()), full_name(pod)].into_iter().flatten() {
            recorded
                .entry(key)
                .or_default()
                .push((record.id.clone(), record.to_string()));
        }
    }
    recorded
}
