//! kubelet's own word, and what counts without it.

use super::*;
use crate::testimony::KubeletProcess;

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
