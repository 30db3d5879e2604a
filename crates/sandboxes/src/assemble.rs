//! One sandbox, from its traces: what they say together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use nodemend_cni::CacheEntry;
use nodemend_procns::{Detail, NetnsId};
use nodemend_rtnl::Seen;
use nodemend_runtime::{Keeper, Pod};

use crate::ids::in_run;
use crate::join::{Traces, attachments, pod_uid};
use crate::sandbox::{Bundle, Cgroup, Container, Network, Process, RuncState, Sandbox, Shim, Task};
use crate::scene::{Scene, full_name};

/// USER_HZ: the unit of the start times in /proc, 100 on every architecture that Rust's std runs on (proc(5)).
const TICKS_PER_SECOND: u64 = 100;
/// A command line is cut after so many characters.
const COMMAND: usize = 200;

/// A sandbox with what it was put together from.
pub(crate) struct Subject<'a> {
    pub(crate) sandbox: Sandbox,
    pub(crate) traces: Traces<'a>,
    /// The oldest sign that it was there, in seconds since 1970: it is at least that old.
    pub(crate) since: Option<u64>,
}

impl<'a> Scene<'a> {
    pub(crate) fn subject(&self, traces: Traces<'a>) -> Subject<'a> {
        let pod = self.pod(&traces);
        let mut sandbox = Sandbox {
            id: traces.id.clone(),
            namespace: traces.namespaces.first().map(|name| (*name).to_owned()),
            twin: pod.as_ref().and_then(|pod| self.twin(pod, &traces)),
            pod,
            containers: self.containers(&traces),
            shims: self.shims(&traces),
            processes: Vec::new(),
            tasks: traces
                .tasks
                .iter()
                .map(|(socket, task)| Task {
                    endpoint: (*socket).to_owned(),
                    namespace: task.namespace.clone().unwrap_or_default(),
                    id: task.id.clone(),
                })
                .collect(),
            bundles: traces
                .bundles
                .iter()
                .map(|bundle| Bundle {
                    path: bundle.path.clone(),
                    dir: bundle.dir,
                    container: bundle.id.clone(),
                })
                .collect(),
            runc_states: traces
                .runc_states
                .iter()
                .map(|state| RuncState {
                    path: state.path.clone(),
                    dir: state.dir,
                    container: state.id.clone(),
                    init: state.init,
                    cgroups: state.cgroups.clone(),
                })
                .collect(),
            // The deepest come first, as they must be taken off.
            mounts: traces.mounts.iter().rev().map(|mount| (*mount).clone()).collect(),
            network: traces.netns.map(|netns| self.network(netns)),
            cgroups: self.cgroups(&traces),
            attachments: self.attachments(&traces),
            age: None,
            reap: false,
        };
        sandbox.processes = self.processes(&traces, &sandbox.containers);
        sandbox.reap = self.policy.reap && sandbox.runs();
        sandbox.age = self.age(&traces, &sandbox);
        let since = self.since(&traces, &sandbox);
        Subject {
            sandbox,
            traces,
            since,
        }
    }

    /// By the bundles and runc's states, else the records of it, else the UID in a cgroup's path.
    fn pod(&self, traces: &Traces<'_>) -> Option<Pod> {
        let of_bundle = traces.bundles.iter().filter_map(|bundle| bundle.pod.clone());
        let of_state = traces.runc_states.iter().filter_map(|state| state.pod.clone());
        let of_record = traces
            .containers
            .iter()
            .filter_map(|id| self.pods.get(id.as_str()).copied().cloned());
        let named = of_bundle
            .chain(of_state)
            .chain(of_record)
            .max_by_key(|pod| !pod.name.is_empty());
        let of_cgroup = || {
            let mut details = traces
                .processes
                .iter()
                .filter_map(|(process, _)| self.details.get(&process.pid));
            details.find_map(|detail| pod_uid(detail))
        };
        named.or_else(|| {
            Some(Pod {
                uid: of_cgroup()?,
                namespace: String::new(),
                name: String::new(),
            })
        })
    }

    /// A record of the same pod, or of one of the same name, in another sandbox.
    fn twin(&self, pod: &Pod, traces: &Traces<'_>) -> Option<String> {
        let by = |key: &str| self.recorded.get(key).into_iter().flatten();
        let name = full_name(pod).unwrap_or_default();
        let mut others = by(&pod.uid).chain(by(&name));
        others
            .find(|(id, _)| !traces.containers.contains(id))
            .map(|(_, words)| words.clone())
    }

    fn containers(&self, traces: &Traces<'_>) -> Vec<Container> {
        let has_others = traces.containers.len() > 1;
        let mut containers: Vec<_> = traces
            .containers
            .iter()
            .filter(|id| **id != traces.id || self.is_container(traces, id))
            .map(|id| {
                let bundle = traces.bundles.iter().find(|bundle| bundle.id == *id);
                let state = traces.runc_states.iter().find(|state| state.id == *id);
                let comm = traces
                    .processes
                    .iter()
                    .find(|(_, of)| of == id)
                    .map(|(process, _)| process.comm.as_str());
                let looks_so = *id == traces.id && (has_others || comm == Some("pause"));
                Container {
                    id: id.clone(),
                    name: bundle
                        .map(|bundle| &bundle.name)
                        .or(state.map(|state| &state.name))
                        .cloned()
                        .flatten(),
                    pause: bundle
                        .map(|bundle| bundle.is_sandbox)
                        .or(state.map(|state| state.is_sandbox))
                        .unwrap_or(looks_so),
                }
            })
            .collect();
        containers.sort_by_key(|container| (!container.pause, container.id.clone()));
        containers
    }

    /// A network namespace that nobody else belongs to gives a sandbox an id, and no container.
    fn is_container(&self, traces: &Traces<'_>, id: &str) -> bool {
        let running = traces.processes.iter().any(|(_, of)| *of == id);
        let listed = traces.tasks.iter().any(|(_, task)| task.id == id);
        let bundled = traces.bundles.iter().any(|bundle| bundle.id == id);
        let kept = traces.runc_states.iter().any(|state| state.id == id);
        running || listed || bundled || kept || !traces.shims.is_empty()
    }

    fn shims(&self, traces: &Traces<'_>) -> Vec<Shim> {
        let shims = traces.shims.iter().filter_map(|shim| {
            let process = self.survey.census.process(shim.pid)?;
            let program = self
                .details
                .get(&shim.pid)
                .and_then(|detail| detail.program.clone());
            let containerd = match &shim.keeper {
                Keeper::Containerd { address, .. } => address.clone(),
                Keeper::Crio | Keeper::Other => None,
            };
            Some(Shim {
                pid: shim.pid,
                start_time: process.start_time,
                program: program.unwrap_or_default(),
                containerd,
            })
        });
        let mut shims: Vec<_> = shims.collect();
        shims.sort_by_key(|shim| shim.pid);
        shims
    }

    fn processes(&self, traces: &Traces<'_>, containers: &[Container]) -> Vec<Process> {
        let processes = traces.processes.iter().map(|(process, container)| {
            let detail = self.details.get(&process.pid);
            Process {
                pid: process.pid,
                start_time: process.start_time,
                container: (*container).to_owned(),
                command: detail
                    .map(|detail| command(detail))
                    .filter(|words| !words.is_empty())
                    .unwrap_or_else(|| process.comm.clone()),
                memory: detail.map_or(0, |detail| detail.memory),
                pause: containers.iter().any(|one| one.pause && one.id == *container),
                listens: detail.map(|detail| self.listens(detail)).unwrap_or_default(),
            }
        });
        let mut processes: Vec<_> = processes.collect();
        processes.sort_by_key(|process| (!process.pause, process.pid));
        processes
    }

    fn listens(&self, detail: &Detail) -> Vec<String> {
        let own = detail
            .sockets
            .iter()
            .filter_map(|inode| self.listeners.get(inode));
        let mut at: Vec<_> = own.flatten().map(ToString::to_string).collect();
        at.sort_unstable();
        at.dedup();
        at
    }

    fn cgroups(&self, traces: &Traces<'_>) -> Vec<Cgroup> {
        let own = traces
            .containers
            .iter()
            .filter_map(|id| self.cgroups.get(id.as_str()));
        own.flatten().map(|cgroup| (*cgroup).clone()).collect()
    }

    /// By its ids, and by the path of its namespace.
    fn attachments(&self, traces: &Traces<'a>) -> Vec<CacheEntry> {
        let by_id = attachments(&self.cached, traces);
        let paths = traces.netns.map(|netns| self.paths(netns)).unwrap_or_default();
        let by_path = paths
            .iter()
            .filter_map(|path| self.cached_at.get(&in_run(path)))
            .flatten()
            .copied();
        let mut entries: Vec<CacheEntry> = Vec::new();
        for entry in by_id.chain(by_path) {
            if !entries.iter().any(|known| known.path == entry.path) {
                entries.push(entry.clone());
            }
        }
        entries
    }

    fn network(&self, netns: NetnsId) -> Network {
        let (veths, addresses) = match self.views.get(&netns) {
            Some(Seen::Inside { nsid, addresses, .. }) => {
                let veths = nsid.and_then(|nsid| self.veths.get(&nsid));
                let veths = veths.into_iter().flatten().map(|name| (*name).to_owned());
                let own = addresses
                    .iter()
                    .map(|address| address.ip)
                    .filter(|ip| !is_local(*ip));
                (veths.collect(), own.collect())
            }
            Some(Seen::Unknown { .. } | Seen::Ended) | None => (Vec::new(), Vec::new()),
        };
        Network {
            netns,
            paths: self.paths(netns).into_iter().map(Path::to_owned).collect(),
            veths,
            addresses,
        }
    }

    /// When a process started, by today's wall clock.
    fn unix(&self, start_time: u64) -> u64 {
        let moment = &self.survey.moment;
        moment.unix.saturating_sub(self.seconds_since(start_time))
    }

    fn seconds_since(&self, start_time: u64) -> u64 {
        self.survey
            .moment
            .since_boot
            .saturating_sub(start_time / TICKS_PER_SECOND)
    }

    /// Seconds since the newest sign that it was made. A container is as old as its oldest process.
    fn age(&self, traces: &Traces<'_>, sandbox: &Sandbox) -> Option<u64> {
        let now = self.survey.moment.unix;
        let mut oldest: HashMap<&str, u64> = HashMap::new();
        for process in &sandbox.processes {
            let start = oldest.entry(&process.container).or_insert(process.start_time);
            *start = process.start_time.min(*start);
        }
        let starts = oldest
            .into_values()
            .chain(sandbox.shims.iter().map(|shim| shim.start_time));
        let running = starts.map(|start| self.seconds_since(start)).min();
        let cached = sandbox
            .attachments
            .iter()
            .map(|entry| now.saturating_sub(entry.mtime));
        let bundled = traces
            .bundles
            .iter()
            .map(|bundle| now.saturating_sub(bundle.modified));
        let kept = traces
            .runc_states
            .iter()
            .map(|state| now.saturating_sub(state.modified));
        // Whatever is executed in a container leaves its pid in the bundle, and a change of its limits a new state.
        let bundled = bundled.chain(kept).filter(|_| running.is_none());
        running
            .into_iter()
            .chain(cached)
            .chain(bundled)
            .min()
            .or_else(|| self.first_seen(sandbox))
    }

    fn first_seen(&self, sandbox: &Sandbox) -> Option<u64> {
        let first = self.survey.first_seen.get(&crate::judge::sighting_key(sandbox))?;
        Some(self.survey.moment.since(first)?.as_secs())
    }

    fn since(&self, traces: &Traces<'_>, sandbox: &Sandbox) -> Option<u64> {
        let starts = sandbox.processes.iter().map(|process| process.start_time);
        let starts = starts.chain(sandbox.shims.iter().map(|shim| shim.start_time));
        let running = starts.map(|start| self.unix(start));
        let cached = sandbox.attachments.iter().map(|entry| entry.mtime);
        let bundled = traces.bundles.iter().map(|bundle| bundle.modified);
        let kept = traces.runc_states.iter().map(|state| state.modified);
        running.chain(cached).chain(bundled).chain(kept).min()
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

fn command(detail: &Detail) -> String {
    let words: Vec<_> = detail.command.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ").chars().take(COMMAND).collect()
}
