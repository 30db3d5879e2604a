#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nodemend_evidence::VerdictKind;
use nodemend_hostfs::FileId;
use nodemend_hostfs::mountinfo::Mount;
use nodemend_procns::{Census, Process};
use nodemend_runtime::{Answer as RuntimeAnswer, Knowledge, Known as RuntimeKnown, Pod, Record, RecordKind};

use super::*;
use crate::layout::Layout;
use crate::mount::{PodMount, Seer, Tie};
use crate::scene::silent;
use crate::survey::SURVEY_VERSION;
use crate::testimony::{
    API_SERVER, Answer, BLOCKS, CGROUPS, CHECKPOINTS, KUBELET, Known, KubeletProcess, MANIFESTS, PROCESSES,
    Testimony,
};

const DEAD: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
const LIVE: &str = "7f1d2a3b-0000-4000-8000-000000000001";
const STATIC: &str = "d41d8cd98f00b204e9800998ecf8427e";
const NOW: i64 = 1_800_000_000;
const CRI: &str = "cri /run/containerd/containerd.sock";

fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

fn pod(name: &str) -> PodDir {
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

fn pods(names: &[&str]) -> Known {
    Known::Pods {
        pods: names.iter().map(|name| (uid(name), "said".to_owned())).collect(),
        asked: "asked".into(),
    }
}

/// A healthy node with one live pod, and the directories of these.
fn node(names: &[&str]) -> Survey {
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

fn process(pid: u32, comm: &str) -> Process {
    Process {
        pid,
        comm: comm.into(),
        start_time: 1,
        netns: None,
        container_ids: vec![],
        cni: None,
    }
}

fn record(kind: RecordKind, uid: &str) -> Record {
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

fn set(survey: &mut Survey, source: &str, known: Known) {
    let found = survey
        .testimony
        .answers
        .iter_mut()
        .find(|answer| answer.source == source);
    found.unwrap().known = known;
}

fn set_runtime(survey: &mut Survey, source: &str, known: RuntimeKnown) {
    let found = survey
        .knowledge
        .answers
        .iter_mut()
        .find(|answer| answer.source.name() == source);
    found.unwrap().known = known;
}

/// A node on which nothing runs any more: no runtime, no shim, no bundle, no pod.
fn runtime_dead(survey: &mut Survey) {
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

fn kubelet_dead(survey: &mut Survey) {
    survey.testimony.kubelet = KubeletProcess::NotRunning;
    set(survey, KUBELET, Known::silent("no kubelet runs on this node"));
}

fn planned(first: &Survey, second: &Survey, policy: &Policy) -> Plan<Arc<PodDir>> {
    plan(&Ownerless::of(first, policy), second, policy)
}

/// The first directory, for changes.
fn change(survey: &mut Survey) -> &mut PodDir {
    Arc::make_mut(&mut survey.layout.pods[0])
}

/// The plan of two equal looks at one directory.
fn judged(survey: &Survey, policy: &Policy) -> Plan<Arc<PodDir>> {
    let plan = planned(survey, survey, policy);
    assert_eq!(
        plan.verdicts().len(),
        survey.layout.pods.len(),
        "each directory once"
    );
    plan
}

fn kind(survey: &Survey, policy: &Policy) -> (VerdictKind, String) {
    let plan = judged(survey, policy);
    let verdict = &plan.verdicts()[0];
    (verdict.kind(), verdict.reason().unwrap_or_default().to_owned())
}

#[track_caller]
fn expect(survey: &Survey, policy: &Policy, wanted: VerdictKind, reason: &str) {
    let (kind, said) = kind(survey, policy);
    assert_eq!(kind, wanted, "{said}");
    assert!(said.contains(reason), "{said}");
}

fn down() -> Policy {
    Policy {
        kubelet_down: true,
        ..Policy::default()
    }
}

use VerdictKind::{Live, Orphan, Undecided};

#[test]
fn a_directory_that_nobody_knows_is_an_orphan_and_everybody_was_asked() {
    let survey = node(&[DEAD]);
    expect(&survey, &Policy::default(), Orphan, "");
    let plan = judged(&survey, &Policy::default());
    let asked: Vec<_> = plan.verdicts()[0]
        .evidence()
        .iter()
        .map(|said| said.source.name())
        .collect();
    let wanted = [
        KUBELET,
        API_SERVER,
        MANIFESTS,
        CHECKPOINTS,
        CGROUPS,
        PROCESSES,
        BLOCKS,
        CRI,
        "shim processes",
        "shim bundles",
        "container ids in cgroups",
        "container runtimes",
        "pod directory",
        "mounts elsewhere",
        "age",
        "first look",
    ];
    assert_eq!(asked, wanted);
    assert!(silent(&survey, &Policy::default()).is_empty());
}

#[test]
fn whoever_knows_the_pod_keeps_it_even_if_nobody_else_does() {
    for source in [KUBELET, API_SERVER, MANIFESTS, CGROUPS, PROCESSES, BLOCKS] {
        let mut survey = node(&[DEAD]);
        set(&mut survey, source, pods(&[DEAD, LIVE]));
        for policy in [Policy::default(), down()] {
            expect(&survey, &policy, Live, &format!("{source}: said"));
        }
        let partly = Known::Partly {
            pods: vec![(uid(DEAD), "said".into())],
            reason: "cut".into(),
        };
        set(&mut survey, source, partly);
        expect(&survey, &Policy::default(), Live, &format!("{source}: said"));
    }
}

#[test]
fn t15_a_pod_that_waits_for_its_volumes_has_neither_sandbox_nor_process_and_lives() {
    // Only kubelet knows it. Old enough: WaitForAttachAndMount is repeated for as long as it takes.
    let mut survey = node(&[DEAD]);
    set(&mut survey, KUBELET, pods(&[LIVE, DEAD]));
    change(&mut survey).changed = NOW - 86_400;
    expect(&survey, &Policy::default(), Live, KUBELET);
    // And while kubelet is silent nobody knows it: then nothing may be said.
    set(&mut survey, KUBELET, Known::silent("timeout"));
    expect(&survey, &Policy::default(), Undecided, "kubelet /pods: timeout");
}

#[test]
fn t16_a_pod_that_ended_and_is_still_listed_lives() {
    for source in [KUBELET, API_SERVER] {
        let mut survey = node(&[DEAD]);
        set(&mut survey, source, pods(&[LIVE, DEAD]));
        expect(&survey, &Policy::default(), Live, source);
    }
    // So does one of which only the runtime has a sandbox that is not ready any more.
    let mut survey = node(&[DEAD]);
    let records = vec![
        record(RecordKind::Sandbox, LIVE),
        record(RecordKind::Sandbox, DEAD),
    ];
    set_runtime(&mut survey, CRI, RuntimeKnown::Records(records));
    expect(
        &survey,
        &Policy::default(),
        Live,
        "(default/web-1), SANDBOX_NOTREADY",
    );
}

#[test]
fn t13_the_directory_of_a_static_pod_goes_only_by_kubelets_own_word() {
    let mut survey = node(&[STATIC]);
    expect(&survey, &Policy::default(), Orphan, "");
    // The API server knows a static pod by its mirror alone: its silence on the hash says nothing.
    set(&mut survey, KUBELET, Known::silent("401"));
    set(&mut survey, API_SERVER, pods(&[LIVE]));
    expect(
        &survey,
        &Policy::default(),
        Undecided,
        "it may be of one of asked",
    );
    set(&mut survey, MANIFESTS, Known::silent("/etc/k.yaml: cut"));
    expect(&survey, &Policy::default(), Undecided, "/etc/k.yaml: cut");
    set(&mut survey, MANIFESTS, Known::not_here("no manifests there"));
    expect(&survey, &Policy::default(), Orphan, "");
    // The other directories do not depend on it.
    let mut other = node(&[DEAD]);
    set(&mut other, KUBELET, Known::silent("401"));
    set(&mut other, API_SERVER, pods(&[LIVE]));
    set(&mut other, MANIFESTS, Known::silent("/etc/k.yaml: cut"));
    expect(&other, &Policy::default(), Orphan, "");
}

#[test]
fn t13_with_kubelet_down_static_pods_stay_whatever_the_manifests_say() {
    let mut survey = node(&[STATIC]);
    kubelet_dead(&mut survey);
    set(&mut survey, MANIFESTS, Known::not_here("no manifests there"));
    expect(&survey, &down(), Undecided, "with --kubelet-down these stay");
}

#[test]
fn t14_a_static_uid_that_lives_again_at_the_second_look_is_kept() {
    let first = node(&[STATIC]);
    let mut second = node(&[STATIC]);
    set(&mut second, KUBELET, pods(&[LIVE, STATIC]));
    assert_eq!(planned(&first, &second, &Policy::default()).summary().live, 1);
    // And one that only the first look knew is not dead for long enough.
    let back = planned(&second, &first, &Policy::default());
    assert_eq!(back.summary().undecided, 1);
    assert!(back.verdicts()[0].reason().unwrap().starts_with("first look:"));
}

#[test]
fn another_directory_of_the_same_name_was_not_seen_before() {
    let first = node(&[DEAD]);
    let mut second = node(&[DEAD]);
    change(&mut second).identity.dir.ino = 9;
    assert_eq!(
        planned(&first, &second, &Policy::default()).summary().undecided,
        1
    );
}

#[test]
fn t17_a_runtime_that_does_not_answer_is_no_runtime_that_knows_nothing() {
    let mut survey = node(&[DEAD]);
    set_runtime(
        &mut survey,
        CRI,
        RuntimeKnown::Unknown("nobody listens on the socket".into()),
    );
    for policy in [Policy::default(), down()] {
        expect(&survey, &policy, Undecided, "nobody listens on the socket");
    }
    assert_eq!(
        silent(&survey, &Policy::default()),
        [format!("{CRI}: nobody listens on the socket")]
    );
    // Without anything left of it there is nobody who could use the directory.
    runtime_dead(&mut survey);
    expect(&survey, &Policy::default(), Orphan, "");
    assert!(silent(&survey, &Policy::default()).is_empty());
}

#[test]
fn t17_a_runtime_is_dead_only_if_nothing_at_all_is_left_of_it() {
    let alive: [fn(&mut Survey); 6] = [
        |survey| survey.census.processes.push(process(9, "containerd")),
        |survey| {
            set_runtime(
                survey,
                "shim processes",
                RuntimeKnown::Records(vec![record(RecordKind::Shim, LIVE)]),
            )
        },
        |survey| {
            set_runtime(
                survey,
                "shim bundles",
                RuntimeKnown::Records(vec![record(RecordKind::Bundle, LIVE)]),
            )
        },
        |survey| set_runtime(survey, "shim bundles", RuntimeKnown::Unknown("hangs".into())),
        |survey| set(survey, CGROUPS, pods(&[LIVE])),
        |survey| survey.census.unread.push("process 9: EACCES".into()),
    ];
    for revive in alive {
        let mut survey = node(&[DEAD]);
        runtime_dead(&mut survey);
        revive(&mut survey);
        expect(&survey, &Policy::default(), Undecided, "");
    }
}

#[test]
fn t17_an_empty_list_while_pods_run_is_no_list() {
    for listed in [&[][..], &[STATIC]] {
        let mut survey = node(&[DEAD]);
        set(&mut survey, KUBELET, pods(listed));
        expect(
            &survey,
            &Policy::default(),
            Undecided,
            "none of the 1 that run here",
        );
        // The API server's is no better.
        set(&mut survey, API_SERVER, pods(listed));
        expect(
            &survey,
            &Policy::default(),
            Undecided,
            "none of the 1 that run here",
        );
    }
    // Where nothing runs an empty list is one.
    let mut survey = node(&[DEAD]);
    set(&mut survey, KUBELET, pods(&[]));
    set(&mut survey, CGROUPS, pods(&[]));
    expect(&survey, &Policy::default(), Orphan, "");
}

#[test]
fn t25_a_kubelet_that_has_just_come_up_knows_nothing_yet() {
    let mut survey = node(&[DEAD]);
    survey.testimony.kubelet = KubeletProcess::Running {
        pid: 812,
        comm: "kubelet".into(),
        since: 299,
    };
    expect(&survey, &Policy::default(), Undecided, "came up 4 min 59 s ago");
    // What it does know counts.
    set(&mut survey, KUBELET, pods(&[DEAD, LIVE]));
    expect(&survey, &Policy::default(), Live, KUBELET);
    // The API server does not replace it: the directories are still being made.
    set(&mut survey, KUBELET, Known::silent("401"));
    set(&mut survey, API_SERVER, pods(&[LIVE]));
    expect(&survey, &Policy::default(), Undecided, "age: kubelet came up");
    let settled = Policy {
        settled: Duration::from_secs(200),
        ..Policy::default()
    };
    expect(&survey, &settled, Orphan, "");
}

#[test]
fn without_kubelet_the_api_server_will_do_but_not_against_what_kubelet_wrote_down() {
    let mut survey = node(&[DEAD]);
    kubelet_dead(&mut survey);
    expect(&survey, &Policy::default(), Undecided, "no kubelet runs");
    let told = silent(&survey, &Policy::default());
    assert_eq!(
        told,
        [
            "kubelet /pods: no kubelet runs on this node",
            "API server: nobody listens"
        ]
    );
    set(&mut survey, API_SERVER, pods(&[LIVE]));
    expect(&survey, &Policy::default(), Orphan, "");
    set(&mut survey, CHECKPOINTS, pods(&[DEAD]));
    expect(&survey, &Policy::default(), Undecided, "which may be old");
    // Where kubelet answers, its word is newer than what it wrote.
    let mut survey = node(&[DEAD]);
    set(&mut survey, CHECKPOINTS, pods(&[DEAD]));
    expect(&survey, &Policy::default(), Orphan, "");
}

#[test]
fn what_kubelet_wrote_down_does_not_stand_against_what_it_says_now() {
    let mut survey = node(&[DEAD]);
    let named = Known::Pods {
        pods: vec![(uid(DEAD), "named in allocated_pods_state".to_owned())],
        asked: "asked".into(),
    };
    set(&mut survey, CHECKPOINTS, named);
    expect(&survey, &Policy::default(), VerdictKind::Orphan, "");
    let plan = judged(&survey, &Policy::default());
    let said = format!("{:?}", plan.orphans().collect::<Vec<_>>());
    assert!(said.contains("allocated_pods_state, which may be old"), "{said}");
    // And not while kubelet's own list may not be whole.
    for silence in [Known::silent("healthz: not ok"), pods(&[])] {
        set(&mut survey, KUBELET, silence);
        assert_ne!(kind(&survey, &Policy::default()).0, VerdictKind::Orphan);
    }
}

#[test]
fn kubelet_down_is_a_claim_that_is_checked() {
    let mut survey = node(&[DEAD]);
    set(&mut survey, KUBELET, Known::silent("timeout"));
    expect(
        &survey,
        &down(),
        Undecided,
        "--kubelet-down is refused: it runs (pid 812, kubelet)",
    );
    assert_eq!(silent(&survey, &down()).len(), 1);
    kubelet_dead(&mut survey);
    expect(&survey, &down(), Orphan, "");
    for source in [CGROUPS, PROCESSES, BLOCKS, CHECKPOINTS] {
        let mut survey = survey.clone();
        set(&mut survey, source, Known::silent("hangs"));
        expect(&survey, &down(), Undecided, &format!("{source}: hangs"));
    }
    set(&mut survey, CHECKPOINTS, pods(&[DEAD]));
    expect(&survey, &down(), Undecided, "which may be old");
}

#[test]
fn a_kernel_source_that_did_not_answer_decides_nothing() {
    for source in [CGROUPS, PROCESSES, BLOCKS] {
        let mut survey = node(&[DEAD]);
        set(&mut survey, source, Known::silent("hangs"));
        expect(
            &survey,
            &Policy::default(),
            Undecided,
            &format!("{source}: hangs"),
        );
        survey.testimony.answers.retain(|answer| answer.source != source);
        expect(
            &survey,
            &Policy::default(),
            Undecided,
            &format!("{source}: was not asked"),
        );
    }
}

#[test]
fn t09_what_could_not_be_read_is_not_empty() {
    let mut survey = node(&[DEAD]);
    change(&mut survey)
        .unread
        .push("volumes/kubernetes.io~nfs/data: no answer within 5 s".into());
    expect(&survey, &Policy::default(), Undecided, "no answer within 5 s");
    let mut survey = node(&[DEAD]);
    survey.layout.unread.push("/proc/9/mountinfo: EACCES".into());
    expect(&survey, &Policy::default(), Undecided, "/proc/9/mountinfo");
    assert_eq!(silent(&survey, &Policy::default()), ["/proc/9/mountinfo: EACCES"]);
}

fn mount(at: &str, root: &str, tie: Tie, seen_by: Option<u64>) -> PodMount {
    PodMount {
        mount: Mount {
            id: 581,
            parent: 26,
            dev: (8, 16),
            root: Path::new(root).into(),
            mountpoint: PathBuf::from(at),
            fstype: "ext4".into(),
            source: OsStr::new("/dev/sdb").into(),
            options: OsStr::new("rw").into(),
        },
        tie,
        seen_by: seen_by.map(|namespace| {
            Arc::new(Seer {
                pid: 99,
                comm: "node-driver".into(),
                namespace,
            })
        }),
    }
}

#[test]
fn t05_a_mount_that_only_another_namespace_has_is_somebodys() {
    let at = format!("/var/lib/kubelet/pods/{DEAD}/volumes/kubernetes.io~csi/pvc-1/mount");
    let mut survey = node(&[DEAD]);
    change(&mut survey).mounts = vec![mount(&at, "/", Tie::In, Some(7))];
    expect(
        &survey,
        &Policy::default(),
        Live,
        "process 99 (node-driver) has a mount in it",
    );
}

#[test]
fn t28_an_orphan_with_its_own_mounts_is_one_and_so_with_copies_of_them() {
    // The silent class: kubelet says nothing of it, because something is still mounted.
    let at = format!("/var/lib/kubelet/pods/{DEAD}/volumes/kubernetes.io~csi/pvc-1/mount");
    let mut survey = node(&[DEAD]);
    change(&mut survey).mounts = vec![
        mount(&at, "/", Tie::In, None),
        mount(&at, "/", Tie::In, Some(7)),
        mount(&format!("/host{at}"), "/", Tie::In, Some(8)),
    ];
    expect(&survey, &Policy::default(), Orphan, "");
    // Of another device it is no copy.
    change(&mut survey).mounts[1].mount.dev = (8, 32);
    expect(&survey, &Policy::default(), Live, "mounts elsewhere");
}

#[test]
fn t03_a_container_that_has_a_file_of_the_directory_mounted_keeps_it() {
    let source = format!("/var/lib/kubelet/pods/{DEAD}/etc-hosts");
    let mut survey = node(&[DEAD]);
    change(&mut survey).mounts = vec![mount("/etc/hosts", &source, Tie::From, Some(7))];
    expect(
        &survey,
        &Policy::default(),
        Live,
        "something of it mounted at /etc/hosts",
    );
    change(&mut survey).mounts[0].seen_by = None;
    change(&mut survey).mounts[0].mount.mountpoint = "/srv/data".into();
    expect(
        &survey,
        &Policy::default(),
        Live,
        "something of it is mounted at /srv/data",
    );
}

#[test]
fn t18_a_mount_seen_by_the_roots_other_path_is_its_own() {
    let source = format!("/var/lib/kubelet/pods/{DEAD}/volumes/kubernetes.io~empty-dir/a");
    let at = format!("/data/kubelet/pods/{DEAD}/volume-subpaths/a/c/0");
    let mut survey = node(&[DEAD]);
    survey.layout.also_at = vec!["/data/kubelet".into()];
    change(&mut survey).mounts = vec![mount(&at, &source, Tie::From, None)];
    expect(&survey, &Policy::default(), Orphan, "");
}

#[test]
fn a_directory_goes_only_once_it_is_old_by_a_clock_that_can_be_believed() {
    for (changed, kind, reason) in [
        (NOW - 900, Orphan, ""),
        (NOW - 899, Undecided, "within the grace of 15 min"),
        (NOW + 1, Undecided, "in the future"),
        (0, Undecided, "before the clock was set"),
    ] {
        let mut survey = node(&[DEAD]);
        change(&mut survey).changed = changed;
        expect(&survey, &Policy::default(), kind, reason);
    }
    let mut survey = node(&[DEAD]);
    change(&mut survey).changed = NOW;
    let any = Policy {
        grace: Duration::ZERO,
        ..Policy::default()
    };
    expect(&survey, &any, Orphan, "");
}

#[test]
fn t19_a_log_narrows_a_plan_and_never_widens_it() {
    let survey = node(&[DEAD, LIVE, STATIC]);
    let only = Policy {
        only: Some(BTreeSet::from([uid(STATIC), uid(LIVE)])),
        ..Policy::default()
    };
    let plan = planned(&survey, &survey, &only);
    let told: Vec<_> = plan
        .verdicts()
        .iter()
        .map(|v| (v.subject().uid.to_string(), v.kind()))
        .collect();
    assert_eq!(
        told,
        [
            (DEAD.to_owned(), Undecided),
            (LIVE.to_owned(), Live),
            (STATIC.to_owned(), Orphan)
        ]
    );
}

#[test]
fn a_third_look_asks_the_same_sources() {
    let survey = node(&[DEAD]);
    let again = looks_again(&survey, &Policy::default());
    let orphan = planned(&survey, &survey, &Policy::default())
        .into_orphans()
        .remove(0);
    let look = again.pods.into_iter().next().unwrap();
    struct Guard;
    impl nodemend_evidence::Lock for Guard {}
    assert!(orphan.confirm(&Guard, &again.required, look).is_ok());
}
