//! A node as a survey sees it, changed one fact at a time.

use std::path::Path;

use nodemend_evidence::VerdictKind;
use nodemend_hostfs::FileId;
use nodemend_procns::{Census, Process};
use nodemend_runtime::{Answer as RuntimeAnswer, Knowledge, Known as RuntimeKnown, Pod, Record, RecordKind};

use super::super::*;
use crate::layout::Layout;
use crate::survey::SURVEY_VERSION;
use crate::testimony::{
    API_SERVER, Answer, BLOCKS, CGROUPS, CHECKPOINTS, KUBELET, Known, KubeletProcess, MANIFESTS, PROCESSES,
    Testimony,
};

pub(super) const DEAD: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
pub(super) const LIVE: &str = "7f1d2a3b-0000-4000-8000-000000000001";
pub(super) const STATIC: &str = "d41d8cd98f00b204e9800998ecf8427e";
pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const CRI: &str = "cri /run/containerd/containerd.sock";

pub(super) fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

pub(super) fn pod(name: &str) -> PodDir {
    PodDir {
        uid: uid(name),
        path: Path::new("/var/lib/kubelet/pods").join(name),
        identity: PodIdentity {
            uid: uid(name),
            dir: FileId { dev: 1, ino: 2 },
            mount: 3,
        },
        name: None,
        changed: NOW - 3600,
        volumes: Vec::new(),
        mounts: Vec::new(),
        strange: Vec::new(),
        outside: Vec::new(),
        unread: Vec::new(),
    }
}

pub(super) fn pods(names: &[&str]) -> Known {
    Known::Pods {
        pods: names.iter().map(|name| (uid(name), "said".to_owned())).collect(),
        asked: "asked".into(),
    }
}

/// A healthy node with one live pod, and the directories of these.
pub(super) fn node(names: &[&str]) -> Survey {
    let answer = |source: &str, known| Answer {
        source: source.into(),
        known,
    };
    let records = |source: &str, records| RuntimeAnswer {
        source: Source::new(source),
        known: RuntimeKnown::Records(records),
    };
    Survey {
        version: SURVEY_VERSION,
        taken: NOW,
        layout: Layout {
            root: "/var/lib/kubelet".into(),
            known_by: "the default".into(),
            root_id: FileId { dev: 1, ino: 1 },
            also_at: Vec::new(),
            pods: names.iter().map(|name| Arc::new(pod(name))).collect(),
            strangers: Vec::new(),
            unread: Vec::new(),
        },
        testimony: Testimony {
            answers: vec![
                answer(KUBELET, pods(&[LIVE])),
                answer(API_SERVER, Known::silent("nobody listens")),
                answer(MANIFESTS, pods(&[])),
                answer(CHECKPOINTS, pods(&[])),
                answer(CGROUPS, pods(&[LIVE])),
                answer(PROCESSES, pods(&[])),
                answer(BLOCKS, pods(&[])),
            ],
            kubelet: KubeletProcess::Running {
                pid: 812,
                comm: "kubelet".into(),
                since: 86_400,
            },
        },
        census: Census {
            processes: vec![
                process(1, "systemd"),
                process(700, "containerd"),
                process(812, "kubelet"),
            ],
            ..Census::default()
        },
        knowledge: Knowledge {
            answers: vec![
                records(CRI, vec![record(RecordKind::Sandbox, LIVE)]),
                records("shim processes", vec![record(RecordKind::Shim, LIVE)]),
                records("shim bundles", vec![record(RecordKind::Bundle, LIVE)]),
                records("container ids in cgroups", vec![]),
            ],
        },
    }
}

pub(super) fn process(pid: u32, comm: &str) -> Process {
    Process {
        pid,
        comm: comm.into(),
        start_time: 1,
        netns: None,
        container_ids: vec![],
        cni: None,
    }
}

pub(super) fn record(kind: RecordKind, uid: &str) -> Record {
    Record {
        kind,
        id: format!("sandbox-of-{uid}"),
        sandbox_id: None,
        namespace: None,
        state: Some("SANDBOX_NOTREADY".into()),
        pid: None,
        netns: None,
        host_network: false,
        pod: Some(Pod {
            uid: uid.into(),
            namespace: "default".into(),
            name: "web-1".into(),
        }),
    }
}

pub(super) fn set(survey: &mut Survey, source: &str, known: Known) {
    let found = survey
        .testimony
        .answers
        .iter_mut()
        .find(|answer| answer.source == source);
    found.unwrap().known = known;
}

pub(super) fn set_runtime(survey: &mut Survey, source: &str, known: RuntimeKnown) {
    let found = survey
        .knowledge
        .answers
        .iter_mut()
        .find(|answer| answer.source.name() == source);
    found.unwrap().known = known;
}

/// A node on which nothing runs any more: no runtime, no shim, no bundle, no pod.
pub(super) fn runtime_dead(survey: &mut Survey) {
    survey
        .census
        .processes
        .retain(|process| process.comm != "containerd");
    set(survey, CGROUPS, pods(&[]));
    set_runtime(
        survey,
        CRI,
        RuntimeKnown::Unknown("nobody listens on the socket".into()),
    );
    set_runtime(survey, "shim processes", RuntimeKnown::Records(vec![]));
    set_runtime(survey, "shim bundles", RuntimeKnown::Records(vec![]));
}

pub(super) fn kubelet_dead(survey: &mut Survey) {
    survey.testimony.kubelet = KubeletProcess::NotRunning;
    set(survey, KUBELET, Known::silent("no kubelet runs on this node"));
}

pub(super) fn planned(first: &Survey, second: &Survey, policy: &Policy) -> Plan<Arc<PodDir>> {
    plan(&Ownerless::of(first, policy), second, policy)
}

/// The first directory, for changes.
pub(super) fn change(survey: &mut Survey) -> &mut PodDir {
    Arc::make_mut(&mut survey.layout.pods[0])
}

/// The plan of two equal looks at one directory.
pub(super) fn judged(survey: &Survey, policy: &Policy) -> Plan<Arc<PodDir>> {
    let plan = planned(survey, survey, policy);
    assert_eq!(
        plan.verdicts().len(),
        survey.layout.pods.len(),
        "each directory once"
    );
    plan
}

pub(super) fn kind(survey: &Survey, policy: &Policy) -> (VerdictKind, String) {
    let plan = judged(survey, policy);
    let verdict = &plan.verdicts()[0];
    (verdict.kind(), verdict.reason().unwrap_or_default().to_owned())
}

#[track_caller]
pub(super) fn expect(survey: &Survey, policy: &Policy, wanted: VerdictKind, reason: &str) {
    let (kind, said) = kind(survey, policy);
    assert_eq!(kind, wanted, "{said}");
    assert!(said.contains(reason), "{said}");
}

pub(super) fn down() -> Policy {
    Policy {
        kubelet_down: true,
        ..Policy::default()
    }
}
