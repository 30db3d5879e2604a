//! Who can hold a reservation.

use std::time::Duration;

use nodemend_evidence::VerdictKind;
use nodemend_ipam::{Policy, live_sandboxes, plan};
use nodemend_runtime::{Known, Record, RecordKind};
use serde_json::json;

use crate::node::{Node, age, at_work, expect, id, know, knowledge, modern, of, record, sandbox};
use crate::node::{POD, quiet};

#[test]
fn a_sandbox_in_any_state_holds_all_its_addresses() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    node.reserve("fd00::9", modern(9));
    node.reserve("10.88.0.10", id(9));
    node.reserve("10.88.0.11", modern(11));
    // Its pause process is dead, and it reports no address.
    let dead = Record {
        state: Some("SANDBOX_NOTREADY".to_owned()),
        ..record(RecordKind::Sandbox, 9)
    };
    let plan = node.plan_with(&Policy::default(), |survey| know(survey, dead.clone()));
    for file in ["10.88.0.9", "fd00::9", "10.88.0.10"] {
        expect(&plan, file, VerdictKind::Live, "SANDBOX_NOTREADY");
    }
    assert_eq!(of(&plan, "10.88.0.11").kind(), VerdictKind::Orphan);
}

#[test]
fn what_still_runs_without_a_record_holds_its_addresses() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    for kind in [
        RecordKind::Task,
        RecordKind::Shim,
        RecordKind::Bundle,
        RecordKind::Container,
    ] {
        let plan = node.plan_with(&Policy::default(), |survey| know(survey, record(kind, 9)));
        assert_eq!(of(&plan, "10.88.0.9").kind(), VerdictKind::Live);
    }
}

#[test]
fn the_container_of_a_pod_tells_of_its_sandbox() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let container = Record {
        sandbox_id: Some(id(9)),
        ..record(RecordKind::Container, 200)
    };
    let plan = node.plan_with(&Policy::default(), |survey| know(survey, container.clone()));
    assert_eq!(of(&plan, "10.88.0.9").kind(), VerdictKind::Live);
}

#[test]
fn a_container_of_nerdctl_is_known_with_and_without_its_namespace() {
    let node = Node::new();
    node.reserve("10.88.0.9", format!("default-{}\r\neth0", id(9)));
    let container = Record {
        namespace: Some("default".to_owned()),
        ..record(RecordKind::Container, 9)
    };
    let plan = node.plan_with(&Policy::default(), |survey| know(survey, container.clone()));
    assert_eq!(of(&plan, "10.88.0.9").kind(), VerdictKind::Live);
}

#[test]
fn an_add_in_flight_holds_its_addresses() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let plan = node.plan_with(&Policy::default(), |survey| at_work(survey, 9, "ADD"));
    expect(
        &plan,
        "10.88.0.9",
        VerdictKind::Live,
        "process 4711 (bridge) is at CNI ADD for this id",
    );
}

#[test]
fn a_runtime_that_did_not_answer_never_said_no() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let silent = node.plan_with(&Policy::default(), |survey| {
        survey.knowledge = knowledge(Known::Unknown("connection refused".to_owned()));
    });
    expect(&silent, "10.88.0.9", VerdictKind::Undecided, "connection refused");
    let nobody = node.plan_with(&Policy::default(), |survey| survey.knowledge.answers.clear());
    expect(
        &nobody,
        "10.88.0.9",
        VerdictKind::Undecided,
        "no runtime was found",
    );
}

#[test]
fn processes_that_could_not_be_read_may_hold_anything() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let plan = node.plan_with(&Policy::default(), |survey| {
        survey.census.unread.push("pid 7: denied".to_owned())
    });
    expect(&plan, "10.88.0.9", VerdictKind::Undecided, "pid 7: denied");
}

#[test]
fn the_network_of_another_tool_is_foreign() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    node.reserve_in("podman", "10.88.0.10", modern(9));
    let (mut first, mut second) = (node.look(), node.look());
    // As the usual places are looked through, so is this one.
    for survey in [&mut first, &mut second] {
        let mut other = survey.reservations[0].clone();
        (other.network, other.file) = ("podman".into(), "10.88.0.10".into());
        other.dir = node.path("networks/podman").display().to_string().into();
        survey.reservations.push(other);
    }
    let plan = plan(&first, &second, &Policy::default());
    assert_eq!(of(&plan, "10.88.0.9").kind(), VerdictKind::Orphan);
    expect(
        &plan,
        "10.88.0.10",
        VerdictKind::Foreign,
        "no CNI configuration of this node",
    );
}

#[test]
fn a_network_that_other_runtimes_share_is_left_alone() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let mut conf = node.conf();
    conf["disableGC"] = json!(true);
    node.configure(&conf);
    expect(&node.plan(), "10.88.0.9", VerdictKind::Undecided, "disableGC");
}

#[test]
fn a_configuration_that_cannot_be_read_leaves_all_undecided() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    std::fs::write(node.path("net.d/20-more.conflist"), "{").unwrap();
    expect(
        &node.plan(),
        "10.88.0.9",
        VerdictKind::Undecided,
        "20-more.conflist",
    );
}

#[test]
fn a_network_name_never_leads_out_of_the_data_directory() {
    let node = Node::new();
    let mut conf = node.conf();
    for name in ["../elsewhere", "..", "a/b"] {
        conf["name"] = json!(name);
        node.configure(&conf);
        node.reserve_in("../elsewhere", "10.88.0.9", modern(9));
        assert!(node.look().networks.is_empty(), "{name}");
    }
}

#[test]
fn what_the_first_look_did_not_see_the_same_is_not_removed() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let mut first = node.look();
    know(&mut first, sandbox(9, POD));
    assert_eq!(live_sandboxes(&first), 1);
    let second = node.look();
    let why = "in the first look it was not there";
    expect(
        &plan(&first, &second, &Policy::default()),
        "10.88.0.9",
        VerdictKind::Undecided,
        why,
    );

    // Freed and given out again between the looks.
    quiet(&mut first);
    node.reserve("10.88.0.9", modern(10));
    expect(
        &plan(&first, &node.look(), &Policy::default()),
        "10.88.0.9",
        VerdictKind::Undecided,
        why,
    );
}

#[test]
fn the_grace_is_the_operators() {
    let node = Node::new();
    age(&node.reserve("10.88.0.9", modern(9)), Duration::from_secs(60));
    let policy = Policy {
        grace: Duration::from_secs(30),
        ..Policy::default()
    };
    assert_eq!(
        of(&node.plan_with(&policy, |_| {}), "10.88.0.9").kind(),
        VerdictKind::Orphan
    );
}
