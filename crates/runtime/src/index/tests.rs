use nodemend_procns::Process;

use super::*;
use crate::knowledge::{NetnsRef, Pod};
use crate::sources::Asked;

const RUN: &str = "unix:///run/containerd/containerd.sock";
const K3S: &str = "unix:///run/k3s/containerd/containerd.sock";
const HOST: NetnsId = netns(1);
const ID: &str = "8f3a5c9e0b7d21468f3a5c9e0b7d21468f3a5c9e0b7d21468f3a5c9e0b7d2146";
const APP: &str = "aa11bb22cc33dd44aa11bb22cc33dd44aa11bb22cc33dd44aa11bb22cc33dd44";

const fn netns(ino: u64) -> NetnsId {
    NetnsId { dev: 4, ino }
}

fn record(kind: RecordKind, id: &str) -> Record {
    let sandbox_id = (kind == RecordKind::Sandbox).then(|| id.to_owned());
    Record {
        kind,
        id: id.to_owned(),
        sandbox_id,
        namespace: None,
        state: None,
        pid: None,
        netns: None,
        host_network: false,
        pod: None,
    }
}

fn sandbox(id: &str) -> Record {
    record(RecordKind::Sandbox, id)
}

fn container(id: &str, sandbox: &str) -> Record {
    Record {
        sandbox_id: Some(sandbox.to_owned()),
        ..record(RecordKind::Container, id)
    }
}

fn at(path: &str, id: Option<NetnsId>, record: Record) -> Record {
    Record {
        netns: Some(NetnsRef {
            path: path.into(),
            id,
        }),
        ..record
    }
}

fn host_network(record: Record) -> Record {
    Record {
        host_network: true,
        ..record
    }
}

fn running(pid: u32, record: Record) -> Record {
    Record {
        pid: Some(pid),
        ..record
    }
}

fn in_state(state: &str, record: Record) -> Record {
    Record {
        state: Some(state.to_owned()),
        ..record
    }
}

fn cri(records: Vec<Record>) -> Answer {
    Answer {
        source: sources::cri(RUN),
        known: Known::Records(records),
    }
}

fn native(records: Vec<Record>) -> Answer {
    Answer {
        source: sources::containerd(RUN, Asked::Containers),
        known: Known::Records(records),
    }
}

fn named(name: &str, records: Vec<Record>) -> Answer {
    Answer {
        source: Source::new(name),
        known: Known::Records(records),
    }
}

fn tasks(records: Vec<Record>) -> Answer {
    Answer {
        source: sources::containerd(RUN, Asked::Tasks),
        known: Known::Records(records),
    }
}

fn bundles(records: Vec<Record>) -> Answer {
    named(sources::SHIM_BUNDLES, records)
}

fn process(pid: u32, netns: NetnsId, ids: &[&str]) -> Process {
    let container_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    Process {
        pid,
        comm: "pause".into(),
        start_time: 1,
        netns: Some(netns),
        container_ids,
        cni: None,
    }
}

fn census(processes: Vec<Process>) -> Census {
    Census {
        host: HOST,
        processes,
        ..Census::default()
    }
}

fn index(answers: Vec<Answer>, processes: Vec<Process>) -> Index {
    Index::new(&Knowledge { answers }, &census(processes), &[])
}

/// One letter for each answer: U(sed), A(bsent), ?.
fn letters(said: &[Evidence]) -> String {
    let letter = |evidence: &Evidence| match evidence.claim {
        Claim::InUse(_) => 'U',
        Claim::Absent(_) => 'A',
        Claim::Unknown(_) => '?',
    };
    said.iter().map(letter).collect()
}

fn of_netns(index: &Index, ino: u64) -> String {
    letters(&index.of_netns(netns(ino), &[]))
}

#[test]
fn t03_a_source_that_did_not_answer_says_nothing_of_anything() {
    let silent = Answer {
        source: sources::cri(RUN),
        known: Known::Unknown("did not answer within 5 s".into()),
    };
    let index = index(vec![silent, native(vec![])], vec![]);
    assert_eq!(letters(&index.of_id(ID)), "?A");
    assert_eq!(of_netns(&index, 7), "?A");
    assert_eq!(index.silent(), [format!("cri {RUN}: did not answer within 5 s")]);
    assert_eq!(index.required().len(), 2);
}

#[test]
fn a_service_that_a_runtime_does_not_offer_is_not_required() {
    let known = Known::NotOffered("this runtime has no sandbox Store.List".into());
    let index = index(
        vec![
            Answer {
                source: sources::containerd(RUN, Asked::Sandboxes),
                known,
            },
            cri(vec![]),
        ],
        vec![],
    );
    assert_eq!(index.required(), [sources::cri(RUN)]);
    assert_eq!(letters(&index.of_id(ID)), "?A");
    assert_eq!(index.silent(), Vec::<String>::new());
}

#[test]
fn t04_t05_a_sandbox_that_is_not_ready_and_has_no_process_owns_its_netns() {
    let not_ready = in_state("SANDBOX_NOTREADY", sandbox(ID));
    let recorded = at("/var/run/netns/cni-1", Some(netns(7)), sandbox(ID));
    let dead = in_state("stopped", running(99, record(RecordKind::Task, ID)));
    // Its pid was given to a process in another namespace.
    let reused = process(99, netns(8), &[]);
    let index = index(
        vec![cri(vec![not_ready]), native(vec![recorded]), tasks(vec![dead])],
        vec![reused],
    );
    assert_eq!(letters(&index.of_id(ID)), "UUU");
    assert_eq!(of_netns(&index, 7), "UUU");
    assert_eq!(of_netns(&index, 8), "AAA");
    let said = index.of_netns(netns(7), &[]);
    assert_eq!(said[0].claim.detail(), format!("sandbox {ID}, SANDBOX_NOTREADY"));
}

#[test]
fn t06_a_sandbox_that_the_cri_could_not_load_is_known_to_containerd() {
    let recorded = at("/run/netns/cni-1", Some(netns(7)), sandbox(ID));
    let index = index(vec![cri(vec![]), native(vec![recorded])], vec![]);
    assert_eq!(letters(&index.of_id(ID)), "AU");
    assert_eq!(of_netns(&index, 7), "AU");
    let said = index.of_id(ID);
    assert_eq!(
        said[0].claim.detail(),
        "no sandbox or container has this id (0 asked)"
    );
}

#[test]
fn t07_what_runs_without_records_is_seen_in_tasks_shims_bundles_and_cgroups() {
    let answers = vec![
        cri(vec![]),
        native(vec![]),
        tasks(vec![running(99, record(RecordKind::Task, ID))]),
        named(
            sources::SHIM_PROCESSES,
            vec![running(98, record(RecordKind::Shim, ID))],
        ),
        bundles(vec![at(
            "/run/netns/cni-1",
            Some(netns(7)),
            record(RecordKind::Bundle, ID),
        )]),
        named(
            sources::CGROUP_IDS,
            vec![running(99, record(RecordKind::Task, ID))],
        ),
    ];
    let index = index(
        answers,
        vec![process(98, HOST, &[]), process(99, netns(7), &[ID])],
    );
    assert_eq!(letters(&index.of_id(ID)), "AAUUUU");
    assert_eq!(of_netns(&index, 7), "AAUUUU");
    assert_eq!(
        of_netns(&index, 1),
        "AAAAAA",
        "the shim lives on the host's network, which ties nothing"
    );
}

#[test]
fn t14_nerdctl_s_ids_carry_the_namespace_of_containerd() {
    let records = vec![Record {
        namespace: Some("default".into()),
        ..record(RecordKind::Container, ID)
    }];
    let long = format!("default-{ID}");
    let knowledge = Knowledge {
        answers: vec![native(records)],
    };
    let index = Index::new(&knowledge, &census(vec![]), &[(long.clone(), netns(7))]);
    assert_eq!(letters(&index.of_id(&long)), "U");
    assert_eq!(letters(&index.of_id(ID)), "U");
    assert_eq!(letters(&index.of_id(&format!("k8s.io-{ID}"))), "A");
    assert_eq!(
        of_netns(&index, 7),
        "U",
        "libcni's cache has it under the long name"
    );
}

#[test]
fn t18_ids_are_compared_whole() {
    let index = index(vec![cri(vec![host_network(sandbox(ID))])], vec![]);
    for part in [
        &ID[..12],
        &ID[1..],
        &ID.to_uppercase(),
        &format!("{ID} "),
        &format!("{ID}0"),
    ] {
        assert_eq!(letters(&index.of_id(part)), "A", "{part}");
    }
    assert_eq!(letters(&index.of_id("")), "?", "no id is no question");
}

#[test]
fn t19_a_container_speaks_for_its_sandbox() {
    // The sandbox itself is in no list any more.
    let index = index(
        vec![cri(vec![container(APP, ID)])],
        vec![process(99, netns(7), &[APP])],
    );
    assert_eq!(letters(&index.of_id(APP)), "U");
    assert_eq!(letters(&index.of_id(ID)), "U");
    assert_eq!(of_netns(&index, 7), "U");
}

#[test]
fn t20_one_of_two_containerds_knowing_it_is_enough() {
    let other = Answer {
        source: sources::cri(K3S),
        known: Known::Records(vec![]),
    };
    let recorded = at("/run/netns/cni-1", Some(netns(7)), sandbox(ID));
    let index = index(
        vec![cri(vec![sandbox(ID)]), native(vec![recorded]), other],
        vec![],
    );
    assert_eq!(letters(&index.of_id(ID)), "UUA");
    assert_eq!(of_netns(&index, 7), "UUA");
}

#[test]
fn t35_the_netns_of_a_virtual_machine_is_live_without_any_process() {
    let recorded = at("/run/netns/cni-1", Some(netns(7)), sandbox(ID));
    let index = index(
        vec![cri(vec![sandbox(ID)]), native(vec![recorded]), tasks(vec![])],
        vec![],
    );
    assert_eq!(of_netns(&index, 7), "UUA");
    assert_eq!(index.live_sandboxes(), 1);
}

#[test]
fn t36_a_pod_on_the_host_s_network_owns_no_netns() {
    let answers = || vec![cri(vec![sandbox(ID)]), native(vec![host_network(sandbox(ID))])];
    let index = index(answers(), vec![process(99, HOST, &[ID])]);
    assert_eq!(letters(&index.of_id(ID)), "UU");
    assert_eq!(of_netns(&index, 7), "AA");
    assert_eq!(of_netns(&index, 1), "AA");
    assert_eq!(index.live_sandboxes(), 0);
    // The same as a path to the host's own namespace, which is what Docker writes down.
    let default = at("/run/docker/netns/default", Some(HOST), sandbox(ID));
    let index = self::index(vec![cri(vec![sandbox(ID)]), native(vec![default])], vec![]);
    assert_eq!(of_netns(&index, 7), "AA");
    assert_eq!(index.live_sandboxes(), 0);
}

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
    // What else is known, which processes run, which ties there are; whether namespace 7 is its own.
    let cases: Vec<(&str, Vec<Answer>, Vec<Process>, Vec<(String, NetnsId)>, bool)> = vec![
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
fn sixty_five_thousand_questions_share_their_answers() {
    let records: Vec<_> = (0..200)
        .map(|n| {
            at(
                &format!("/run/netns/cni-{n}"),
                Some(netns(1000 + n)),
                sandbox(&format!("{n:064x}")),
            )
        })
        .collect();
    let index = index(vec![cri(records.clone()), native(records)], vec![]);
    let details: Vec<_> = (0..65_534)
        .flat_map(|n| index.of_id(&format!("{:064x}", n + 1000)))
        .collect();
    assert!(
        details
            .iter()
            .all(|evidence| evidence.claim.detail() == "no sandbox or container has this id (200 asked)")
    );
    let text = |evidence: &Evidence| match &evidence.claim {
        Claim::Absent(text) | Claim::InUse(text) | Claim::Unknown(text) => Arc::clone(text),
    };
    assert!(Arc::ptr_eq(&text(&details[0]), &text(&details[2])));
}
