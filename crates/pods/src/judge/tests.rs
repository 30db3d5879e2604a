//! One fact at a time decides what becomes of a directory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is a failed test"
)]

mod kubelet;
mod mounts;
mod node;

use nodemend_evidence::VerdictKind;
use nodemend_runtime::{Known as RuntimeKnown, RecordKind};

use VerdictKind::{Live, Orphan, Undecided};

use super::*;
use crate::scene::silent;
use crate::testimony::{API_SERVER, BLOCKS, CGROUPS, CHECKPOINTS, KUBELET, Known, MANIFESTS, PROCESSES};

use node::*;

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
