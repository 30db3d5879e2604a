//! Which namespace belongs to which sandbox.

use nodemend_procns::{Holder, Netns};

use super::*;
use crate::bundles::UNREADABLE;

/// What else is known, which processes run, which ties there are; whether namespace 7 is its own.
type Case = (
    &'static str,
    Vec<Answer>,
    Vec<Process>,
    Vec<(String, NetnsId)>,
    bool,
);

#[test]
fn a_sandbox_that_nothing_ties_to_a_netns_may_own_any() {
    let pod = Some(Pod {
        uid: "u".into(),
        namespace: "default".into(),
        name: "web-1".into(),
    });
    let loose = Record { pod, ..sandbox(ID) };
    let other = "bb".repeat(32);
    let tied = at("/run/netns/cni-1", Some(netns(7)), sandbox(&other));
    let index = index(
        vec![cri(vec![sandbox(&other), loose]), native(vec![tied])],
        vec![],
    );
    assert_eq!(of_netns(&index, 7), "UU");
    let said = index.of_netns(netns(8), &[]);
    assert_eq!(letters(&said), "?A");
    let wanted = format!(
        "sandbox {ID} (default/web-1) is tied to no network namespace by any source; it may own this one"
    );
    assert_eq!(said[0].claim.detail(), wanted);
    assert_eq!(index.live_sandboxes(), 2);
}

#[test]
fn whatever_ties_a_sandbox_will_do() {
    let gone = "/run/netns/cni-1";
    let task = || running(99, record(RecordKind::Task, ID));
    let cases: Vec<Case> = vec![
        (
            "its path",
            vec![bundles(vec![at(
                gone,
                Some(netns(7)),
                record(RecordKind::Bundle, ID),
            )])],
            vec![],
            vec![],
            true,
        ),
        (
            "its path is gone",
            vec![native(vec![at(gone, None, sandbox(ID))])],
            vec![],
            vec![],
            false,
        ),
        (
            "its task",
            vec![tasks(vec![task()])],
            vec![process(99, netns(7), &[])],
            vec![],
            true,
        ),
        (
            "its cgroup",
            vec![],
            vec![process(99, netns(7), &[ID])],
            vec![],
            true,
        ),
        ("its cache", vec![], vec![], vec![(ID.to_owned(), netns(7))], true),
        (
            "its container",
            vec![cri(vec![container(APP, ID)])],
            vec![process(99, netns(7), &[APP])],
            vec![],
            true,
        ),
    ];
    for (name, more, processes, ties, owns) in cases {
        let answers = std::iter::once(cri(vec![sandbox(ID)])).chain(more).collect();
        let index = Index::new(&Knowledge { answers }, &census(processes), &ties);
        let letter = |ino| of_netns(&index, ino).chars().next().unwrap();
        assert_eq!(letter(7), if owns { 'U' } else { 'A' }, "{name}");
        assert_eq!(letter(8), 'A', "{name}");
        assert_eq!(index.live_sandboxes(), usize::from(owns), "{name}");
    }
}

#[test]
fn what_may_be_another_s_by_now_protects_and_proves_nothing() {
    let bundle = || record(RecordKind::Bundle, ID);
    let cases = [
        ("a pid in a bundle", running(99, bundle())),
        (
            "a path below /proc",
            at("/proc/99/ns/net", Some(netns(7)), bundle()),
        ),
    ];
    for (name, weak) in cases {
        let index = index(
            vec![cri(vec![sandbox(ID)]), bundles(vec![weak])],
            vec![process(99, netns(7), &[])],
        );
        assert_eq!(of_netns(&index, 7), "UU", "{name}");
        assert_eq!(of_netns(&index, 8), "?A", "{name}");
    }
}

#[test]
fn the_host_s_own_netns_ties_nothing() {
    let task = running(99, record(RecordKind::Task, ID));
    let knowledge = Knowledge {
        answers: vec![cri(vec![sandbox(ID)]), tasks(vec![task])],
    };
    let index = Index::new(
        &knowledge,
        &census(vec![process(99, HOST, &[ID])]),
        &[(ID.to_owned(), HOST)],
    );
    assert_eq!(of_netns(&index, 7), "?A");
    assert_eq!(index.owner_of(HOST), None);
}

#[test]
fn a_netns_is_known_by_its_path_too() {
    let recorded = at("/var/run/netns/cni-1", None, sandbox(ID));
    let index = index(vec![cri(vec![sandbox(ID)]), native(vec![recorded])], vec![]);
    let said = |path: &str| letters(&index.of_netns(netns(7), &[Path::new("/x"), Path::new(path)]));
    assert_eq!(said("/run/netns/cni-1"), "UU");
    assert_eq!(said("/var/run/netns/cni-1"), "UU");
    assert_eq!(said("/run/netns/cni-10"), "AA");
}

#[test]
fn the_owner_is_a_pod_if_one_is_known() {
    let pod = Some(Pod {
        uid: "u".into(),
        namespace: "default".into(),
        name: "web-1".into(),
    });
    let recorded = at("/run/netns/cni-1", Some(netns(7)), Record { pod, ..sandbox(ID) });
    let processes = vec![process(98, netns(7), &[APP]), process(99, netns(8), &[APP])];
    let index = index(vec![native(vec![recorded])], processes);
    assert_eq!(index.owner_of(netns(7)).as_deref(), Some("default/web-1"));
    assert_eq!(index.owner_of(netns(8)).as_deref(), Some(APP));
    assert_eq!(index.owner_of(netns(9)), None);
}

#[test]
fn a_pod_counts_once_however_many_sources_know_it() {
    let of_cri = |record| Record {
        namespace: Some("k8s.io".into()),
        ..record
    };
    let answers = vec![
        cri(vec![sandbox(ID), container(APP, ID)]),
        native(vec![at("/run/netns/cni-1", Some(netns(7)), sandbox(ID))]),
        tasks(vec![
            of_cri(running(98, record(RecordKind::Task, ID))),
            of_cri(running(99, record(RecordKind::Task, APP))),
        ]),
    ];
    let processes = || vec![process(98, netns(7), &[ID]), process(99, netns(7), &[APP])];
    assert_eq!(index(answers, processes()).live_sandboxes(), 1);
    // With every record lost, the two tasks of one pod are told to be one by their namespace.
    let lost = vec![tasks(vec![
        of_cri(running(98, record(RecordKind::Task, ID))),
        of_cri(running(99, record(RecordKind::Task, APP))),
    ])];
    assert_eq!(index(lost, processes()).live_sandboxes(), 1);
}

#[test]
fn a_bundle_that_cannot_be_read_may_own_any_netns_until_something_ties_it() {
    let bundle = || in_state(UNREADABLE, record(RecordKind::Bundle, ID));
    let loose = index(vec![native(vec![]), bundles(vec![bundle()])], vec![]);
    assert_eq!(letters(&loose.of_id(ID)), "AU");
    assert_eq!(of_netns(&loose, 7), "A?");
    let runs = index(
        vec![native(vec![]), bundles(vec![bundle()])],
        vec![process(99, netns(7), &[ID])],
    );
    assert_eq!(of_netns(&runs, 7), "AU");
    assert_eq!(of_netns(&runs, 8), "AA");
    let told = record(RecordKind::Bundle, ID);
    let without_path = index(vec![native(vec![]), bundles(vec![told])], vec![]);
    assert_eq!(of_netns(&without_path, 7), "AA");
}

#[test]
fn a_netns_that_only_the_runtime_sees_mounted_is_the_sandbox_s() {
    // The runtime has a mount namespace of its own, and the sandbox has no process any more.
    let recorded = at("/var/run/netns/cni-1", None, sandbox(ID));
    let knowledge = Knowledge {
        answers: vec![cri(vec![sandbox(ID)]), native(vec![recorded])],
    };
    let mounted = |path: &str, ino| Netns {
        id: netns(ino),
        holders: vec![Holder::ForeignMount {
            pid: 9,
            path: path.into(),
        }],
    };
    let census = Census {
        namespaces: vec![mounted("/run/netns/cni-1", 7), mounted("/run/netns/cni-2", 8)],
        ..census(vec![])
    };
    let index = Index::new(&knowledge, &census, &[]);
    assert_eq!(of_netns(&index, 7), "UU");
    assert_eq!(of_netns(&index, 8), "AA");
    assert_eq!(index.live_sandboxes(), 1);
}
