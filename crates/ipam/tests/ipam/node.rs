//! A node for tests: real files in a temporary directory; a kernel and a runtime that are made up.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodemend_evidence::{Plan, Source, Verdict, VerdictKind};
use nodemend_hostfs::{FileId, Host};
use nodemend_ipam::{Policy, Reservation, Survey, SurveyOptions, blocking, plan};
use nodemend_procns::{Census, CniCall, Holder, Netns, Process};
use nodemend_rtnl::{Address, Link, Seen, View};
use nodemend_runtime::{Answer, Discovery, Knowledge, Known, NetnsRef, Record, RecordKind};
use serde_json::{Value, json};

/// The host's network namespace.
pub(crate) const HOST: FileId = FileId { dev: 4, ino: 1 };
/// A pod's.
pub(crate) const POD: FileId = FileId { dev: 4, ino: 2 };

/// A container id.
pub(crate) fn id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

/// What host-local writes.
pub(crate) fn modern(n: u8) -> String {
    format!("{}\r\neth0", id(n))
}

pub(crate) struct Node {
    root: tempfile::TempDir,
}

impl Node {
    /// One network, `pods`, of two families, with its data directory in a place of its own.
    pub(crate) fn new() -> Self {
        let node = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for dir in ["net.d", "networks/pods", "results"] {
            fs::create_dir_all(node.path(dir)).unwrap();
        }
        node.configure(&node.conf());
        node
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// The directory of the network.
    pub(crate) fn pods(&self) -> PathBuf {
        self.path("networks/pods")
    }

    pub(crate) fn conf(&self) -> Value {
        let ranges = json!([[{"subnet": "10.88.0.0/25"}], [{"subnet": "fd00::/112"}]]);
        let ipam = json!({"type": "host-local", "dataDir": self.path("networks"), "ranges": ranges});
        json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "ipam": ipam}]})
    }

    pub(crate) fn configure(&self, conf: &Value) {
        fs::write(self.path("net.d/10-pods.conflist"), conf.to_string()).unwrap();
    }

    /// A file in the directory of the network, two hours old.
    pub(crate) fn reserve(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.reserve_in("pods", name, content)
    }

    pub(crate) fn reserve_in(&self, network: &str, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("networks").join(network).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        age(&path, Duration::from_secs(7200));
        path
    }

    /// The cache file of a container's attachment to the network.
    pub(crate) fn cache(&self, n: u8, ifname: &str) {
        let cached = json!({
            "kind": "cniCacheV1", "containerId": id(n), "ifName": ifname, "networkName": "pods", "netns": "",
            "config": STANDARD.encode(self.conf().to_string()),
            "result": {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.88.0.9/25"}]}
        });
        let path = self.path("results").join(format!("pods-{}-{ifname}", id(n)));
        fs::write(&path, cached.to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn cached(&self) -> usize {
        fs::read_dir(self.path("results")).unwrap().count()
    }

    pub(crate) fn is_reserved(&self, name: &str) -> bool {
        self.pods().join(name).symlink_metadata().is_ok()
    }

    /// One look: the files are read, and nobody on the node knows anything.
    pub(crate) fn look(&self) -> Survey {
        let socket = self.path("no.sock").display().to_string();
        let options = SurveyOptions {
            discovery: Discovery {
                flags: vec![socket],
                environment: None,
            },
            deadline: Duration::from_secs(1),
            conf_dir: self.path("net.d"),
        };
        let mut survey = blocking::survey(&Host::local(), &options).unwrap();
        // This machine may have networks of its own.
        survey
            .networks
            .retain(|network| Path::new(&*network.dir).starts_with(self.root.path()));
        survey
            .reservations
            .retain(|reservation| Path::new(&*reservation.dir).starts_with(self.root.path()));
        let results = self.path("results");
        survey.cache = nodemend_cni::cache_in(&Host::local(), [results.as_path()]).entries;
        quiet(&mut survey);
        survey
    }

    /// The plan of two looks, each of them changed in the same way.
    pub(crate) fn plan_with(&self, policy: &Policy, change: impl Fn(&mut Survey)) -> Plan<Reservation> {
        let (mut first, mut second) = (self.look(), self.look());
        change(&mut first);
        change(&mut second);
        plan(&first, &second, policy)
    }

    pub(crate) fn plan(&self) -> Plan<Reservation> {
        self.plan_with(&Policy::default(), |_| {})
    }
}

/// Makes a file look as old as that.
pub(crate) fn age(path: &Path, age: Duration) {
    let file = File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(SystemTime::now() - age))
        .unwrap();
}

/// A node on which nothing runs, and whose one runtime knows nothing.
pub(crate) fn quiet(survey: &mut Survey) {
    survey.census = Census {
        host: HOST,
        ..Census::default()
    };
    survey.views = vec![inside(HOST, None, vec![], vec![])];
    survey.knowledge = knowledge(Known::Records(vec![]));
}

pub(crate) fn knowledge(known: Known) -> Knowledge {
    let source = Source::new("cri unix:///run/containerd/containerd.sock");
    Knowledge {
        answers: vec![Answer { source, known }],
    }
}

/// Makes the runtime know one thing.
pub(crate) fn know(survey: &mut Survey, record: Record) {
    survey.knowledge = knowledge(Known::Records(vec![record]));
}

pub(crate) fn record(kind: RecordKind, n: u8) -> Record {
    Record {
        kind,
        id: id(n),
        sandbox_id: None,
        namespace: None,
        state: None,
        pid: None,
        netns: None,
        host_network: false,
        pod: None,
    }
}

/// A sandbox with a namespace of its own.
pub(crate) fn sandbox(n: u8, netns: FileId) -> Record {
    let path = format!("/var/run/netns/cni-{n}").into();
    Record {
        netns: Some(NetnsRef {
            path,
            id: Some(netns),
        }),
        ..record(RecordKind::Sandbox, n)
    }
}

pub(crate) fn inside(netns: FileId, nsid: Option<i32>, links: Vec<Link>, addresses: Vec<Address>) -> View {
    View {
        netns,
        seen: Seen::Inside {
            nsid,
            host_nsid: Some(0),
            links,
            addresses,
        },
    }
}

pub(crate) fn link(ifindex: u32, name: &str) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        ..Link::default()
    }
}

pub(crate) fn address(ip: &str, ifindex: u32) -> Address {
    Address {
        ip: ip.parse().unwrap(),
        prefix: 25,
        ifindex,
        age: Some(7200),
    }
}

/// A namespace that has this address on its eth0, and these holders.
pub(crate) fn configure(survey: &mut Survey, netns: FileId, ip: &str, holders: Vec<Holder>) {
    survey.census.namespaces.push(Netns { id: netns, holders });
    survey.views.push(inside(
        netns,
        Some(7),
        vec![link(2, "eth0")],
        vec![address(ip, 2)],
    ));
}

/// A CNI plugin at work for a container.
pub(crate) fn at_work(survey: &mut Survey, n: u8, command: &str) {
    survey.census.processes.push(Process {
        pid: 4711,
        comm: "bridge".to_owned(),
        start_time: 1,
        netns: Some(HOST),
        container_ids: vec![],
        cni: Some(CniCall {
            command: command.to_owned(),
            container_id: id(n),
            netns: "/var/run/netns/cni-1".into(),
            ifname: "eth0".to_owned(),
        }),
    });
}

/// The verdict on one file.
pub(crate) fn of<'p>(plan: &'p Plan<Reservation>, file: &str) -> &'p Verdict<Reservation> {
    plan.verdicts()
        .iter()
        .find(|verdict| &*verdict.subject().file == file)
        .expect("it is in the plan")
}

/// The verdict on one file and its reason.
pub(crate) fn verdict(plan: &Plan<Reservation>, file: &str) -> (VerdictKind, String) {
    let verdict = of(plan, file);
    (verdict.kind(), verdict.reason().unwrap_or_default().to_owned())
}

/// Fails unless the file got this verdict for this reason.
pub(crate) fn expect(plan: &Plan<Reservation>, file: &str, kind: VerdictKind, reason: &str) {
    let (got, why) = verdict(plan, file);
    assert!(
        got == kind && why.contains(reason),
        "{file}: {got}: {why}; expected {kind}: {reason}"
    );
}
