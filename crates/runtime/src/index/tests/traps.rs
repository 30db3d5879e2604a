//! What a naive tool deletes although it is in use.

use super::*;

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
