//! A node as data, to be judged.

use nodemend_cni::CacheEntry;
use nodemend_evidence::Source;
use nodemend_hostfs::{FileId, Moment};
use nodemend_procns::{Census, Detail, Details, Holder, Membership, Netns, NetnsId, Process};
use nodemend_rtnl::{Seen, View};
use nodemend_runtime::{
    Answer, BundleDir, Keeper, Knowledge, Known, Leftovers, Made, MetadataFile, NetnsRef, Pod, Record,
    RecordKind, RuncState, Shim,
};

use crate::places::{ContainerCgroup, Places};
use crate::sandbox::{Cgroup, SandboxMount};
use crate::survey::{SURVEY_VERSION, Survey};

pub(crate) const RUN: &str = "/run/containerd/containerd.sock";
pub(crate) const K3S: &str = "/run/k3s/containerd/containerd.sock";
pub(crate) const HOST: NetnsId = NetnsId { dev: 4, ino: 1 };
pub(crate) const POD: NetnsId = NetnsId { dev: 4, ino: 7 };
pub(crate) const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
pub(crate) const MOUNTED: &str = "/run/netns/cni-70988231-108f-dcda-bbdf-bc1ee609dc48";

/// The clock: the node has been up for this long, in seconds, and it is so late.
pub(crate) const UP: u64 = 100_000;
pub(crate) const NOW: u64 = 2_000_000_000;
/// What is old enough, in seconds.
pub(crate) const OLD: u64 = 7_200;

/// An id of one digit.
pub(crate) fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A node in the making.
pub(crate) struct Node(pub(crate) Survey);

pub(crate) fn pod() -> Pod {
    Pod {
        uid: UID.into(),
        namespace: "default".into(),
        name: "web-1".into(),
    }
}

pub(crate) fn record(kind: RecordKind, id: &str) -> Record {
    Record {
        kind,
        id: id.to_owned(),
        sandbox_id: (kind == RecordKind::Sandbox).then(|| id.to_owned()),
        namespace: None,
        state: (kind == RecordKind::Sandbox).then(|| "SANDBOX_READY".to_owned()),
        pid: None,
        netns: None,
        host_network: false,
        pod: None,
    }
}

/// What a runtime knows that has lost nothing: one sandbox, of which nothing is on this node.
pub(crate) fn another() -> Vec<Record> {
    let netns = NetnsRef {
        path: "/run/netns/cni-of-another".into(),
        id: None,
    };
    vec![Record {
        netns: Some(netns),
        ..record(RecordKind::Sandbox, &id('e'))
    }]
}

fn answer(source: String, known: Known) -> Answer {
    let source = Source::new(source);
    Answer { source, known }
}

impl Node {
    /// A containerd that answers, with a sandbox of its own.
    pub(crate) fn new() -> Self {
        let moment = Moment {
            boot_id: "boot".into(),
            since_boot: UP,
            unix: NOW,
        };
        let init = Process {
            pid: 1,
            comm: "systemd".into(),
            start_time: 0,
            netns: Some(HOST),
            container_ids: vec![],
            cni: None,
        };
        let mut node = Self(Survey {
            version: SURVEY_VERSION,
            moment,
            census: Census {
                host: HOST,
                processes: vec![init],
                ..Census::default()
            },
            details: Details::default(),
            listeners: vec![],
            views: vec![],
            cache: vec![],
            leftovers: Leftovers::default(),
            places: Places::default(),
            knowledge: Knowledge::default(),
            metadata: vec![],
            first_seen: Default::default(),
        });
        node.asked(RUN, Known::Records(another()));
        node
    }

    /// A containerd that was asked: its CRI and its containers say the same.
    pub(crate) fn asked(&mut self, socket: &str, known: Known) -> &mut Self {
        let sources = [format!("cri {socket}"), format!("containerd {socket} containers")];
        let answers = &mut self.0.knowledge.answers;
        answers.retain(|answer| answer.socket() != Some(socket.as_ref()));
        answers.extend(sources.map(|source| answer(source, known.clone())));
        answers.push(answer(
            format!("containerd {socket} sandboxes"),
            Known::NotOffered("this runtime has no sandbox Store.List".into()),
        ));
        answers.push(answer(
            format!("containerd {socket} tasks"),
            Known::Records(vec![]),
        ));
        self
    }

    /// What one source of [`RUN`] answers instead.
    pub(crate) fn says(&mut self, source: &str, known: Known) -> &mut Self {
        let answers = &mut self.0.knowledge.answers;
        let found = answers
            .iter_mut()
            .find(|answer| answer.source.name().starts_with(source));
        found.unwrap().known = known;
        self
    }

    pub(crate) fn tasks(&mut self, ids: &[&str]) -> &mut Self {
        let task = |id: &&str| Record {
            namespace: Some("k8s.io".into()),
            ..record(RecordKind::Task, id)
        };
        let tasks = Known::Records(ids.iter().map(task).collect());
        self.says(&format!("containerd {RUN} tasks"), tasks)
    }

    pub(crate) fn made(&mut self, socket: &str, ago: u64) -> &mut Self {
        self.0.metadata.push(MetadataFile {
            socket: socket.into(),
            made: Made::At {
                path: "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db".into(),
                unix: NOW - ago,
            },
        });
        self
    }

    pub(crate) fn process(
        &mut self,
        pid: u32,
        comm: &str,
        netns: NetnsId,
        ids: &[&str],
        age: u64,
    ) -> &mut Self {
        let start_time = (UP - age) * 100;
        self.0.census.processes.push(Process {
            pid,
            comm: comm.into(),
            start_time,
            netns: Some(netns),
            container_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            cni: None,
        });
        self.0.census.processes.sort_by_key(|process| process.pid);
        let path = ids
            .first()
            .map_or_else(|| "/".into(), |id| format!("/kubepods/burstable/pod{UID}/{id}"));
        self.0.details.processes.push(Detail {
            pid,
            start_time,
            command: vec![format!("/{comm}").into()],
            memory: 1 << 20,
            cgroups: vec![Membership {
                controllers: "memory".into(),
                path: path.into(),
            }],
            ..Detail::default()
        });
        let holder = Holder::Process {
            pid,
            comm: comm.into(),
        };
        self.held(netns, holder)
    }

    pub(crate) fn detail(&mut self, pid: u32) -> &mut Detail {
        let details = &mut self.0.details.processes;
        details.iter_mut().find(|detail| detail.pid == pid).unwrap()
    }

    pub(crate) fn held(&mut self, netns: NetnsId, holder: Holder) -> &mut Self {
        let namespaces = &mut self.0.census.namespaces;
        if !namespaces.iter().any(|known| known.id == netns) {
            namespaces.push(Netns {
                id: netns,
                holders: vec![],
            });
            namespaces.sort_by_key(|netns| netns.id);
            self.0.views.push(View {
                netns,
                seen: Seen::Ended,
            });
        }
        let known = self
            .0
            .census
            .namespaces
            .iter_mut()
            .find(|known| known.id == netns);
        known.unwrap().holders.push(holder);
        self
    }

    pub(crate) fn mounted(&mut self, netns: NetnsId, path: &str) -> &mut Self {
        self.held(netns, Holder::Mount { path: path.into() })
    }

    pub(crate) fn shim(&mut self, pid: u32, id: &str, namespace: &str, address: &str) -> &mut Self {
        let keeper = Keeper::Containerd {
            namespace: Some(namespace.into()),
            address: Some(address.into()),
        };
        self.watcher(pid, id, keeper, "containerd-shim")
    }

    pub(crate) fn watcher(&mut self, pid: u32, id: &str, keeper: Keeper, comm: &str) -> &mut Self {
        self.0.leftovers.shims.push(Shim {
            pid,
            id: id.into(),
            keeper,
        });
        self.process(pid, comm, HOST, &[], OLD)
    }

    pub(crate) fn bundle(&mut self, state: &str, namespace: &str, id: &str, sandbox: &str) -> &mut BundleDir {
        let bundles = &mut self.0.leftovers.bundles;
        bundles.push(BundleDir {
            path: format!("{state}/io.containerd.runtime.v2.task/{namespace}/{id}").into(),
            dir: FileId {
                dev: 20,
                ino: 100 + bundles.len() as u64,
            },
            modified: NOW - OLD,
            id: id.into(),
            namespace: Some(namespace.into()),
            unreadable: None,
            sandbox_id: Some(sandbox.into()),
            name: (id != sandbox).then(|| "app".to_owned()),
            is_sandbox: id == sandbox,
            pod: Some(pod()),
            netns: Some(MOUNTED.into()),
            host_network: false,
            cgroup: None,
        });
        bundles.last_mut().unwrap()
    }

    /// What runc 1.1 wrote of a container of a containerd with this state directory.
    pub(crate) fn runc_state(&mut self, state: &str, id: &str, sandbox: &str) -> &mut RuncState {
        let states = &mut self.0.leftovers.runc_states;
        states.push(RuncState {
            path: format!("/run/containerd/runc/k8s.io/{id}").into(),
            dir: FileId {
                dev: 20,
                ino: 200 + states.len() as u64,
            },
            modified: NOW - OLD,
            id: id.into(),
            namespace: "k8s.io".into(),
            bundle: Some(format!("{state}/io.containerd.runtime.v2.task/k8s.io/{id}").into()),
            sandbox_id: Some(sandbox.into()),
            name: (id != sandbox).then(|| "app".to_owned()),
            is_sandbox: id == sandbox,
            pod: Some(pod()),
            netns: Some(MOUNTED.into()),
            ..RuncState::default()
        });
        states.last_mut().unwrap()
    }

    pub(crate) fn cached(&mut self, container: &str, netns: &str) -> &mut Self {
        self.0.cache.push(CacheEntry {
            path: format!("/var/lib/cni/results/cbr0-{container}-eth0").into(),
            id: FileId { dev: 21, ino: 3 },
            network: "cbr0".into(),
            container_id: container.into(),
            ifname: "eth0".into(),
            netns: netns.into(),
            host_interfaces: vec![],
            ips: vec![],
            data_dirs: vec![],
            mtime: NOW - OLD,
            replayable: true,
        });
        self
    }

    pub(crate) fn mount(&mut self, mountpoint: &str) -> &mut Self {
        self.0.places.mounts.push(SandboxMount {
            mountpoint: mountpoint.into(),
            id: 500,
            fstype: "overlay".into(),
            lost_layer: None,
        });
        self
    }

    pub(crate) fn cgroup(&mut self, container: &str) -> &mut Self {
        self.0.places.cgroups.push(ContainerCgroup {
            container: container.into(),
            cgroup: Cgroup {
                path: format!("/sys/fs/cgroup/memory/kubepods/burstable/pod{UID}/{container}").into(),
                dir: FileId { dev: 22, ino: 4 },
            },
        });
        self
    }

    /// All that a sandbox with an application has, two hours old: nobody has it on record.
    pub(crate) fn forgotten(&mut self, sandbox: &str, application: &str) -> &mut Self {
        self.shim(70, sandbox, "k8s.io", RUN);
        self.process(71, "pause", POD, &[sandbox], OLD);
        self.process(72, "nginx", POD, &[application], OLD);
        self.detail(71).parent = 70;
        self.detail(72).parent = 70;
        self.bundle("/run/containerd", "k8s.io", sandbox, sandbox);
        self.bundle("/run/containerd", "k8s.io", application, sandbox);
        self.mounted(POD, MOUNTED).cached(sandbox, MOUNTED);
        self.mount(&format!(
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{sandbox}/rootfs"
        ));
        self.mount(&format!(
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{application}/rootfs"
        ));
        self.cgroup(sandbox)
            .cgroup(application)
            .tasks(&[sandbox, application])
    }

    /// The same, with every process dead.
    pub(crate) fn dead(&mut self, sandbox: &str, application: &str) -> &mut Self {
        self.forgotten(sandbox, application);
        self.ended(70..=72);
        self.0.leftovers.shims.clear();
        self.tasks(&[])
    }

    /// These processes are no more.
    pub(crate) fn ended(&mut self, pids: std::ops::RangeInclusive<u32>) -> &mut Self {
        let Census {
            processes,
            namespaces,
            ..
        } = &mut self.0.census;
        processes.retain(|process| !pids.contains(&process.pid));
        for netns in namespaces {
            netns
                .holders
                .retain(|holder| !matches!(holder, Holder::Process { pid, .. } if pids.contains(pid)));
        }
        self.0
            .details
            .processes
            .retain(|detail| !pids.contains(&detail.pid));
        self
    }
}
