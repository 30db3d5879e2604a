//! From the traces on a node to its sandboxes: everything that belongs to one, in one object.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use nodemend_cni::CacheEntry;
use nodemend_procns::{Detail, Holder, NetnsId, Process as Seen};
use nodemend_runtime::{BundleDir, Keeper, Known, Record, RecordKind, RuncState, Shim as Watcher};

use crate::ids::{Place, in_run, is_cni_mount, is_long, pod_of_cgroup, same_path};
use crate::sandbox::SandboxMount;
use crate::survey::{Survey, container_of};

/// The traces of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Traces<'a> {
    /// The sandbox's id.
    pub(crate) id: String,
    /// The namespaces of containerd that its traces name.
    pub(crate) namespaces: BTreeSet<&'a str>,
    /// Its containers, its own among them.
    pub(crate) containers: BTreeSet<String>,
    pub(crate) shims: Vec<&'a Watcher>,
    /// Its processes, with their containers.
    pub(crate) processes: Vec<(&'a Seen, &'a str)>,
    pub(crate) bundles: Vec<&'a BundleDir>,
    /// What runc keeps of its containers.
    pub(crate) runc_states: Vec<&'a RuncState>,
    /// Its tasks, with the sockets of the containerds that list them.
    pub(crate) tasks: Vec<(&'a Path, &'a Record)>,
    /// Its network namespace.
    pub(crate) netns: Option<NetnsId>,
    /// Its mounts, but for those of its network namespace.
    pub(crate) mounts: Vec<&'a SandboxMount>,
    /// The state directories of the containerds that its mounts and its bundles lie in, or did.
    pub(crate) state_dirs: BTreeSet<PathBuf>,
    /// A process of another pid namespace that started it: it is of a node in a container.
    pub(crate) outer: Option<u32>,
    /// Facts that do not go together.
    pub(crate) contradictions: Vec<String>,
}

/// A survey's lookups, and the sandboxes that they gave.
pub(crate) struct Join<'a> {
    survey: &'a Survey,
    /// The sandbox of a container, by what anybody says of it.
    sandbox_of: HashMap<&'a str, &'a str>,
    details: HashMap<u32, &'a Detail>,
    /// The namespaces that are mounted in this mount namespace, by their paths below /run.
    mounted: HashMap<PathBuf, NetnsId>,
    /// libcni's cache, by container id as CNI got it.
    cached: HashMap<&'a str, Vec<&'a CacheEntry>>,
    found: BTreeMap<String, Traces<'a>>,
}

/// What a sandbox is known by among the others of a node. Only short ids, which people choose, need their namespace.
fn key(namespace: Option<&str>, id: &str) -> String {
    match namespace {
        Some(namespace) if !is_long(id) => format!("{namespace}/{id}"),
        Some(_) | None => id.to_owned(),
    }
}

impl<'a> Join<'a> {
    /// Every sandbox that left a trace, by id.
    pub(crate) fn traces(survey: &'a Survey) -> Vec<Traces<'a>> {
        let mut join = Self {
            survey,
            sandbox_of: sandboxes_of(survey),
            details: survey
                .details
                .processes
                .iter()
                .map(|detail| (detail.pid, detail))
                .collect(),
            mounted: mounted(survey),
            cached: cached(survey),
            found: BTreeMap::new(),
        };
        join.bundles();
        join.runc_states();
        join.shims();
        join.processes();
        join.unseen_processes();
        join.tasks();
        join.mounts();
        join.networks();
        join.lone_networks();
        join.found.into_values().collect()
    }

    /// The sandbox of a container.
    fn enter(&mut self, namespace: Option<&'a str>, container: &str) -> &mut Traces<'a> {
        let id = self.sandbox_of.get(container).copied().unwrap_or(container);
        let traces = self.found.entry(key(namespace, id)).or_default();
        if traces.id.is_empty() {
            id.clone_into(&mut traces.id);
        }
        traces.namespaces.extend(namespace);
        traces.containers.insert(container.to_owned());
        traces
    }

    fn bundles(&mut self) {
        for bundle in &self.survey.leftovers.bundles {
            let traces = self.enter(bundle.namespace.as_deref(), &bundle.id);
            traces.bundles.push(bundle);
            traces
                .state_dirs
                .extend(Place::of(&bundle.path).map(|place| in_run(place.state)));
        }
    }

    /// runc keeps the states of all containerds in one directory. The bundle that a state names, gone or not, tells whose it is.
    fn runc_states(&mut self) {
        for state in &self.survey.leftovers.runc_states {
            let traces = self.enter(Some(&state.namespace), &state.id);
            traces.runc_states.push(state);
            let place = state.bundle.as_deref().and_then(Place::of);
            traces.state_dirs.extend(place.map(|place| in_run(place.state)));
        }
    }

    /// First processes that runc wrote down, and that do not carry the id of their container.
    fn unseen_processes(&mut self) {
        for traces in self.found.values_mut() {
            for state in &traces.runc_states {
                let Some((pid, start_time)) = state.init else {
                    continue;
                };
                let process = self.survey.census.process(pid);
                let runs = process.is_some_and(|process| process.start_time == start_time);
                let is_seen = traces.processes.iter().any(|(process, _)| process.pid == pid);
                if runs && !is_seen {
                    traces.contradictions.push(format!(
                        "process {pid}, which runc started for it, runs, and is in none of its cgroups"
                    ));
                }
            }
        }
    }

    /// A shim in a container is that container's: its containerd is not this host's.
    fn shims(&mut self) {
        for shim in &self.survey.leftovers.shims {
            if !self.is_inside(shim.pid) {
                let namespace = namespace(shim);
                self.enter(namespace, &shim.id).shims.push(shim);
            }
        }
    }

    fn is_inside(&self, pid: u32) -> bool {
        let contained = self
            .survey
            .census
            .process(pid)
            .and_then(|process| container_of(&self.survey.census, process));
        contained.is_some() || self.details.get(&pid).is_some_and(|detail| detail.own_pids)
    }

    /// By the ids in their cgroups. Where nobody says whose sandbox a container is in, the shim tells that is the parent
    /// of its first process; else its network and its pod together.
    fn processes(&mut self) {
        let survey = self.survey;
        let mut by_container: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
        for process in &survey.census.processes {
            if let Some(id) = container_of(&survey.census, process) {
                by_container.entry(id).or_default().push(process);
            }
        }
        let shims = self
            .found
            .iter()
            .flat_map(|(key, traces)| traces.shims.iter().map(move |shim| (shim.pid, key)));
        let watched: HashMap<u32, String> = shims.map(|(pid, key)| (pid, key.clone())).collect();
        let networks = self.networks_of(&by_container);
        for (id, processes) in by_container {
            let known = self.sandbox_of.contains_key(id) || self.found.contains_key(id);
            let of_shim = || {
                processes
                    .iter()
                    .find_map(|process| watched.get(&self.details.get(&process.pid)?.parent))
            };
            let of_network = || {
                processes
                    .iter()
                    .find_map(|process| networks.get(&self.in_pod(process)?))
            };
            let outer = self.outer(id, &processes);
            let joined = if known {
                None
            } else {
                of_shim().or_else(of_network)
            };
            let traces = match joined.and_then(|key| self.found.get_mut(key)) {
                Some(traces) => traces,
                None => self.enter(None, id),
            };
            traces.containers.insert(id.to_owned());
            traces.outer = traces.outer.or(outer);
            traces
                .processes
                .extend(processes.into_iter().map(|process| (process, id)));
        }
    }

    /// The known sandbox whose processes live in a network namespace and in the cgroup of a pod. None for the host's
    /// network, and where there are two: whoever shares the network alone may be somebody else's.
    fn networks_of(&self, by_container: &BTreeMap<&str, Vec<&Seen>>) -> HashMap<(NetnsId, String), String> {
        let mut owners: HashMap<(NetnsId, String), BTreeSet<&str>> = HashMap::new();
        for (id, processes) in by_container {
            let sandbox = self.sandbox_of.get(id).copied().unwrap_or(id);
            if self.found.contains_key(sandbox) {
                for place in processes.iter().filter_map(|process| self.in_pod(process)) {
                    owners.entry(place).or_default().insert(sandbox);
                }
            }
        }
        let own = owners.into_iter().filter(|(_, of)| of.len() == 1);
        own.filter_map(|(place, of)| Some((place, (*of.first()?).to_owned())))
            .collect()
    }

    /// The network and the pod that a process is in.
    fn in_pod(&self, process: &Seen) -> Option<(NetnsId, String)> {
        let netns = process.netns.filter(|netns| *netns != self.survey.census.host)?;
        Some((netns, pod_uid(self.details.get(&process.pid)?)?))
    }

    /// The parent of a container's first process, if that is in another pid namespace than this host's: then the whole
    /// container is of a node that runs in a container itself.
    fn outer(&self, id: &str, processes: &[&Seen]) -> Option<u32> {
        let census = &self.survey.census;
        let parents = processes
            .iter()
            .filter_map(|process| Some(self.details.get(&process.pid)?.parent));
        let mut parents = parents.filter(|parent| {
            let of = census
                .process(*parent)
                .and_then(|parent| container_of(census, parent));
            of != Some(id)
        });
        parents.find(|parent| self.details.get(parent).is_some_and(|detail| detail.own_pids))
    }

    fn tasks(&mut self) {
        let survey = self.survey;
        for answer in survey
            .knowledge
            .answers
            .iter()
            .filter(|answer| answer.is_of_containerd())
        {
            let (Known::Records(records), Some(socket)) = (&answer.known, answer.socket()) else {
                continue;
            };
            for task in records.iter().filter(|record| record.kind == RecordKind::Task) {
                self.enter(task.namespace.as_deref(), &task.id)
                    .tasks
                    .push((socket, task));
            }
        }
    }

    /// A mount alone is a trace: containerd takes it off when it deletes a task.
    fn mounts(&mut self) {
        for mount in &self.survey.places.mounts {
            if let Some(place) = Place::of(&mount.mountpoint) {
                let traces = self.enter(place.namespace, place.id);
                traces.mounts.push(mount);
                traces.state_dirs.insert(in_run(place.state));
            }
        }
    }

    fn networks(&mut self) {
        let networks: Vec<_> = self
            .found
            .values()
            .map(|traces| self.network_of(traces))
            .collect();
        for (traces, (netns, contradiction)) in self.found.values_mut().zip(networks) {
            traces.netns = netns;
            traces.contradictions.extend(contradiction);
        }
    }

    /// By what runs in it first: a path can have been used again.
    fn network_of(&self, traces: &Traces<'a>) -> (Option<NetnsId>, Option<String>) {
        let host = self.survey.census.host;
        let lived_in = traces
            .processes
            .iter()
            .min_by_key(|(process, container)| (*container != traces.id, process.start_time))
            .and_then(|(process, _)| process.netns);
        let named = traces
            .bundles
            .iter()
            .find_map(|bundle| self.at(bundle.netns.as_deref()?));
        let mut states = traces.runc_states.iter();
        let started = states.find_map(|state| self.at(state.netns.as_deref()?));
        let cached = attachments(&self.cached, traces).find_map(|entry| self.at(&entry.netns));
        let contradiction = match (lived_in, named) {
            (Some(lived_in), Some(named)) if lived_in != named => Some(format!(
                "its processes live in netns {lived_in}, and its bundle names netns {named}"
            )),
            (_, _) => None,
        };
        let netns = lived_in
            .or(named)
            .or(started)
            .or(cached)
            .filter(|netns| *netns != host);
        (netns, contradiction)
    }

    fn at(&self, path: &Path) -> Option<NetnsId> {
        self.mounted.get(&in_run(path)).copied()
    }

    /// Namespaces that the CRI plugin of containerd mounted, and that no trace names.
    fn lone_networks(&mut self) {
        let survey = self.survey;
        let taken: HashSet<NetnsId> = self.found.values().filter_map(|traces| traces.netns).collect();
        for netns in &survey.census.namespaces {
            let paths = netns.holders.iter().filter_map(|holder| match holder {
                Holder::Mount { path } => Some(path.as_path()),
                Holder::Process { .. }
                | Holder::Thread { .. }
                | Holder::ForeignMount { .. }
                | Holder::Fd { .. } => None,
            });
            let Some(path) = paths.into_iter().find(|path| is_cni_mount(path)) else {
                continue;
            };
            if taken.contains(&netns.id) || netns.id == survey.census.host {
                continue;
            }
            let cached = survey.cache.iter().find(|entry| same_path(&entry.netns, path));
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let id = cached
                .map(|entry| entry.container_id.clone())
                .or(name)
                .unwrap_or_default();
            self.enter(None, &id).netns = Some(netns.id);
        }
    }
}

/// The namespace of containerd that a shim says it is in.
fn namespace(shim: &Watcher) -> Option<&str> {
    match &shim.keeper {
        Keeper::Containerd { namespace, .. } => namespace.as_deref(),
        Keeper::Crio | Keeper::Other => None,
    }
}

/// What libcni remembers of a sandbox. nerdctl gives CNI plugins `<namespace>-<id>` as container id (pkg/ocihook).
pub(crate) fn attachments<'a, 'c>(
    cached: &'c HashMap<&'a str, Vec<&'a CacheEntry>>,
    traces: &'c Traces<'a>,
) -> impl Iterator<Item = &'a CacheEntry> {
    let names = traces
        .containers
        .iter()
        .flat_map(|id| cni_names(id, &traces.namespaces));
    names
        .filter_map(|name| cached.get(name.as_str()))
        .flatten()
        .copied()
}

/// The ids by which CNI plugins may know a container.
pub(crate) fn cni_names(id: &str, namespaces: &BTreeSet<&str>) -> Vec<String> {
    let long = namespaces.iter().map(|namespace| format!("{namespace}-{id}"));
    std::iter::once(id.to_owned()).chain(long).collect()
}

/// libcni's cache, by container id as CNI got it.
pub(crate) fn cached(survey: &Survey) -> HashMap<&str, Vec<&CacheEntry>> {
    let mut cached: HashMap<&str, Vec<&CacheEntry>> = HashMap::new();
    for entry in &survey.cache {
        cached.entry(&entry.container_id).or_default().push(entry);
    }
    cached
}

fn sandboxes_of(survey: &Survey) -> HashMap<&str, &str> {
    let mut of = HashMap::new();
    for record in records(survey) {
        if let Some(sandbox) = &record.sandbox_id {
            of.entry(record.id.as_str()).or_insert(sandbox.as_str());
        }
    }
    for bundle in &survey.leftovers.bundles {
        if let Some(sandbox) = &bundle.sandbox_id {
            of.entry(bundle.id.as_str()).or_insert(sandbox.as_str());
        }
    }
    for state in &survey.leftovers.runc_states {
        if let Some(sandbox) = &state.sandbox_id {
            of.entry(state.id.as_str()).or_insert(sandbox.as_str());
        }
    }
    of
}

/// Every record of every source.
pub(crate) fn records(survey: &Survey) -> impl Iterator<Item = &Record> {
    survey
        .knowledge
        .answers
        .iter()
        .flat_map(|answer| match &answer.known {
            Known::Records(records) => records.as_slice(),
            Known::Unknown(_) | Known::Doubted(_) | Known::NotOffered(_) => &[],
        })
}

fn mounted(survey: &Survey) -> HashMap<PathBuf, NetnsId> {
    let mut mounted = HashMap::new();
    for netns in &survey.census.namespaces {
        for holder in &netns.holders {
            if let Holder::Mount { path } = holder {
                mounted.insert(in_run(path), netns.id);
            }
        }
    }
    mounted
}

/// The pod whose UID stands in the cgroup of a process.
pub(crate) fn pod_uid(detail: &Detail) -> Option<String> {
    detail
        .cgroups
        .iter()
        .find_map(|member| pod_of_cgroup(&member.path))
}
