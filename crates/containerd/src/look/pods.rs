//! The pods of one containerd that have a process, by its records, its shims, its bundles and the cgroups of processes: one
//! that lost its records still has the others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;
use nodemend_procns::Census;
use nodemend_runtime::daemons::{Files, flag};
use nodemend_runtime::{Answer, Knowledge, Known, Pod, Record, RecordKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// A pod of this containerd that has a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningPod {
    /// The sandbox's id; of a container that belongs to none, its own.
    pub sandbox: String,
    /// The namespace of containerd: `k8s.io`.
    pub namespace: Option<String>,
    /// The pod, if anything tells it.
    pub pod: Option<Pod>,
    /// Its shims.
    pub shims: Vec<u32>,
    /// Its containers that have a process, the sandbox's own included.
    pub containers: Vec<String>,
    /// How many processes run in them.
    pub processes: usize,
    /// Who answered for it: names of sources.
    pub sources: Vec<String>,
}

/// A shim of this containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shim {
    pid: u32,
    id: String,
    namespace: Option<String>,
}

/// What belongs to this containerd, by what it has on the host itself.
#[derive(Debug, Default)]
struct Own {
    shims: Vec<Shim>,
    /// Containers with a bundle in its state directory, each with its namespace.
    bundles: BTreeMap<String, String>,
    /// What could not be read.
    unseen: Vec<String>,
}

/// Below its state directory: `<namespace>/<id>` (core/runtime/v2/bundle.go; the second up to containerd 1.7).
const BUNDLES: [&str; 2] = ["io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"];

/// The pods, and why they may not be all.
pub(super) fn find(
    host: &Host,
    census: &Census,
    knowledge: &Knowledge,
    settings: &Settings,
) -> (Vec<RunningPod>, Vec<String>) {
    let own = Own::look(host, census, settings);
    let (pods, adrift) = gather(&own, census, knowledge, &settings.socket);
    let mut unseen = [own.unseen, census.unread.clone()].concat();
    if adrift > 0 {
        unseen.push(format!(
            "{adrift} containers run of which nothing tells whose they are"
        ));
    }
    (pods, unseen)
}

impl Own {
    fn look(host: &Host, census: &Census, settings: &Settings) -> Self {
        let mut own = Self::default();
        for process in census
            .processes
            .iter()
            .filter(|process| process.comm.starts_with("containerd-shim"))
        {
            match nodemend_procns::cmdline(host, process.pid) {
                Ok(words) => {
                    let path = |names: &[&str]| flag(&words, names);
                    let text = |names: &[&str]| Some(path(names)?.to_string_lossy().into_owned());
                    // Shims of runtime v1 name their container in `-workdir` only.
                    let of_workdir = || Some(path(&["workdir"])?.file_name()?.to_string_lossy().into_owned());
                    let address = path(&["address"]);
                    if let Some(id) = text(&["id"]).or_else(of_workdir)
                        && address.is_some_and(|address| same(&address, &settings.socket))
                    {
                        own.shims.push(Shim {
                            pid: process.pid,
                            id,
                            namespace: text(&["namespace"]),
                        });
                    }
                }
                Err(error) => own.unseen.push(error.to_string()),
            }
        }
        for below in BUNDLES {
            if let Err(reason) = own.enter_bundles(&Files::of_host(host), &settings.state.join(below)) {
                own.unseen.push(reason);
            }
        }
        own
    }

    fn enter_bundles(&mut self, files: &Files, dir: &Path) -> Result<(), String> {
        for namespace in files.list(dir)? {
            for id in files.list(&dir.join(&namespace))? {
                let namespace = namespace.to_string_lossy().into_owned();
                self.bundles.insert(id.to_string_lossy().into_owned(), namespace);
            }
        }
        Ok(())
    }
}

/// /var/run is a link to /run everywhere. Other links are resolved, as long as the socket is there.
fn same(one: &Path, other: &Path) -> bool {
    let plain = |path: &Path| match path.strip_prefix("/var/run") {
        Ok(below) => Path::new("/run").join(below),
        Err(_) => path.to_owned(),
    };
    let real = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    plain(one) == plain(other) || real(one).is_some_and(|one| real(other) == Some(one))
}

/// What the sources say of one container.
#[derive(Default)]
struct Said<'k> {
    sandbox: Option<&'k str>,
    namespace: Option<&'k str>,
    pod: Option<&'k Pod>,
    sources: BTreeSet<&'k str>,
}

/// The pods, and how many containers run that nobody has.
fn gather(own: &Own, census: &Census, knowledge: &Knowledge, socket: &Path) -> (Vec<RunningPod>, usize) {
    let processes = processes(census);
    let said = said(knowledge);
    let ours: HashSet<&str> = own_ids(own, knowledge, socket);
    let mut pods: BTreeMap<String, RunningPod> = BTreeMap::new();
    let mut enter = |id: &str, shim: Option<&Shim>| {
        let facts = said.get(id);
        let sandbox = facts.and_then(|said| said.sandbox).unwrap_or(id).to_owned();
        let pod = pods.entry(sandbox).or_insert_with_key(|sandbox| RunningPod {
            sandbox: sandbox.clone(),
            namespace: None,
            pod: None,
            shims: Vec::new(),
            containers: Vec::new(),
            processes: 0,
            sources: Vec::new(),
        });
        let namespace = || {
            let of_shim = shim.and_then(|shim| shim.namespace.clone());
            let of_bundle = own.bundles.get(id).cloned();
            of_shim
                .or(of_bundle)
                .or_else(|| facts?.namespace.map(str::to_owned))
        };
        pod.namespace = pod.namespace.take().or_else(namespace);
        pod.pod = pod.pod.take().or_else(|| facts?.pod.cloned());
        pod.shims.extend(shim.map(|shim| shim.pid));
        if let Some(count) = processes
            .get(id)
            .filter(|_| !pod.containers.iter().any(|known| known == id))
        {
            pod.containers.push(id.to_owned());
            pod.processes += count;
        }
        let sources = facts.into_iter().flat_map(|said| &said.sources);
        pod.sources.extend(sources.map(|source| (*source).to_owned()));
    };
    for shim in &own.shims {
        enter(&shim.id, Some(shim));
    }
    for id in ours.iter().filter(|id| processes.contains_key(**id)) {
        enter(id, None);
    }
    let adrift = processes
        .keys()
        .filter(|id| !ours.contains(**id) && !said.contains_key(**id));
    let adrift = adrift.count();
    let mut pods: Vec<RunningPod> = pods.into_values().collect();
    for pod in &mut pods {
        pod.shims.sort_unstable();
        pod.containers.sort_unstable();
        pod.sources.sort_unstable();
        pod.sources.dedup();
    }
    (pods, adrift)
}

/// Containers with processes, and how many. What process 1 carries is the node's own, if that is a container itself.
fn processes(census: &Census) -> HashMap<&str, usize> {
    let outer = census.process(1).map_or(&[][..], |init| &init.container_ids);
    let mut counts = HashMap::new();
    for process in &census.processes {
        for id in process.container_ids.iter().filter(|id| !outer.contains(id)) {
            *counts.entry(id.as_str()).or_default() += 1;
        }
    }
    counts
}

/// What is said of each container, but for what its processes carry, which says nothing of whose it is.
fn said(knowledge: &Knowledge) -> HashMap<&str, Said<'_>> {
    let mut all: HashMap<&str, Said<'_>> = HashMap::new();
    for (answer, record) in records(knowledge).filter(|(answer, _)| answer.source.name() != IN_CGROUPS) {
        let said = all.entry(record.id.as_str()).or_default();
        let is_sandbox = record.kind == RecordKind::Sandbox;
        let sandbox = record
            .sandbox_id
            .as_deref()
            .or(is_sandbox.then_some(record.id.as_str()));
        said.sandbox = said.sandbox.or(sandbox);
        said.namespace = said.namespace.or(record.namespace.as_deref());
        // One that has a name is better than one that has a UID alone.
        let named = record.pod.as_ref().filter(|pod| !pod.name.is_empty());
        said.pod = named.or(said.pod).or(record.pod.as_ref());
        said.sources.insert(answer.source.name());
    }
    all
}

/// The source of `nodemend_runtime` that knows no owner.
const IN_CGROUPS: &str = "container ids in cgroups";

fn records(knowledge: &Knowledge) -> impl Iterator<Item = (&Answer, &Record)> {
    knowledge.answers.iter().flat_map(|answer| {
        let records = match &answer.known {
            Known::Records(records) => records.as_slice(),
            Known::Unknown(_) | Known::Doubted(_) | Known::NotOffered(_) => &[],
        };
        records.iter().map(move |record| (answer, record))
    })
}

/// The containers of this containerd.
fn own_ids<'a>(own: &'a Own, knowledge: &'a Knowledge, socket: &Path) -> HashSet<&'a str> {
    let place = socket.display();
    let (cri, native) = (format!("cri {place}"), format!("containerd {place} "));
    let is_own = |answer: &Answer| {
        let name = answer.source.name();
        name == cri || name.starts_with(&native)
    };
    let of_records = records(knowledge).filter(|(answer, _)| is_own(answer));
    let of_records = of_records.map(|(_, record)| record.id.as_str());
    let of_shims = own.shims.iter().map(|shim| shim.id.as_str());
    let of_bundles = own.bundles.keys().map(String::as_str);
    of_records.chain(of_shims).chain(of_bundles).collect()
}

#[cfg(test)]
mod tests {
    use nodemend_evidence::Source;
    use nodemend_procns::Process;

    use super::*;

    const SOCKET: &str = "/run/containerd/containerd.sock";

    fn process(pid: u32, ids: &[&str]) -> Process {
        Process {
            pid,
            comm: "pause".into(),
            start_time: 1,
            netns: None,
            container_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            cni: None,
        }
    }

    fn record(kind: RecordKind, id: &str, sandbox: Option<&str>, pod: Option<&str>) -> Record {
        Record {
            kind,
            id: id.into(),
            sandbox_id: sandbox.map(str::to_owned),
            namespace: None,
            state: None,
            pid: None,
            netns: None,
            host_network: false,
            pod: pod.map(|name| Pod {
                uid: "u".into(),
                namespace: "default".into(),
                name: name.into(),
            }),
        }
    }

    fn answer(source: &str, records: Vec<Record>) -> Answer {
        Answer {
            source: Source::new(source),
            known: Known::Records(records),
        }
    }

    fn shim(pid: u32, id: &str) -> Shim {
        Shim {
            pid,
            id: id.into(),
            namespace: Some("k8s.io".into()),
        }
    }

    fn own(shims: Vec<Shim>, bundles: &[&str]) -> Own {
        Own {
            shims,
            bundles: bundles
                .iter()
                .map(|id| ((*id).to_owned(), "k8s.io".to_owned()))
                .collect(),
            unseen: vec![],
        }
    }

    #[test]
    fn pods_of_a_containerd_without_records_are_known_by_shims_and_bundles() {
        let census = Census {
            processes: vec![
                process(1, &["node"]),
                process(20, &["node", "pause"]),
                process(21, &["node", "web"]),
                process(22, &["node", "web"]),
                process(30, &["node", "dockers"]),
                process(40, &["node", "nobodys"]),
            ],
            ..Census::default()
        };
        let bundles = vec![
            record(RecordKind::Bundle, "pause", Some("pause"), Some("web-1")),
            record(RecordKind::Bundle, "web", Some("pause"), None),
            record(RecordKind::Bundle, "dead", Some("dead"), None),
        ];
        let knowledge = Knowledge {
            answers: vec![
                Answer {
                    source: Source::new(format!("cri {SOCKET}")),
                    known: Known::Unknown("nobody listens".into()),
                },
                answer(
                    "cri /run/other.sock",
                    vec![record(RecordKind::Sandbox, "dockers", None, None)],
                ),
                answer("shim bundles", bundles),
                answer(IN_CGROUPS, vec![record(RecordKind::Task, "nobodys", None, None)]),
            ],
        };
        let own = own(vec![shim(19, "pause")], &["pause", "web", "dead"]);
        let (pods, adrift) = gather(&own, &census, &knowledge, Path::new(SOCKET));
        assert_eq!(pods.len(), 1, "{pods:?}");
        let pod = &pods[0];
        assert_eq!(
            (pod.sandbox.as_str(), pod.namespace.as_deref()),
            ("pause", Some("k8s.io"))
        );
        assert_eq!((pod.shims.as_slice(), pod.processes), (&[19][..], 3));
        assert_eq!(pod.containers, ["pause", "web"]);
        assert_eq!(pod.pod.as_ref().map(|pod| pod.name.as_str()), Some("web-1"));
        assert_eq!(pod.sources, ["shim bundles"]);
        assert_eq!(adrift, 1);
    }

    #[test]
    fn a_shim_whose_containers_ended_is_a_pod_that_runs() {
        let own = own(vec![shim(19, "pause")], &[]);
        let (pods, adrift) = gather(&own, &Census::default(), &Knowledge::default(), Path::new(SOCKET));
        assert_eq!((pods.len(), pods[0].processes, adrift), (1, 0, 0));
    }

    #[test]
    fn a_socket_is_the_same_under_var_run() {
        assert!(same(
            Path::new("/var/run/containerd/x.sock"),
            Path::new("/run/containerd/x.sock")
        ));
        assert!(!same(
            Path::new("/run/k3s/containerd/x.sock"),
            Path::new("/run/containerd/x.sock")
        ));
    }
}
