//! A sandbox is told apart from a forgotten one by one fact at a time.

mod others;
mod sources;
mod traces;

use nodemend_evidence::{Claim, Verdict, VerdictKind};
use nodemend_runtime::{Known, Record, RecordKind};

use super::node::{Node, OLD, POD, RUN, id, pod, record};
use super::{Plan, Policy, Sandbox, looks_again, plan};
use crate::details::Details;

pub(super) fn reaping() -> Policy {
    Policy {
        reap: true,
        ..Policy::default()
    }
}

pub(super) fn planned(node: &Node, policy: &Policy) -> Plan<Sandbox> {
    plan(&node.0, &node.0, policy)
}

/// The verdict on the only sandbox, and why.
pub(super) fn judged(node: &Node, policy: &Policy) -> (VerdictKind, String) {
    let plan = planned(node, policy);
    assert_eq!(plan.verdicts().len(), 1, "{:#?}", plan.verdicts());
    of(&plan.verdicts()[0])
}

pub(super) fn of(verdict: &Verdict<Sandbox>) -> (VerdictKind, String) {
    (verdict.kind(), verdict.reason().unwrap_or_default().to_owned())
}

fn said<'a>(verdict: &'a Verdict<Sandbox>, source: &str) -> &'a Claim {
    let found = verdict.evidence().iter().find(|one| one.source.name() == source);
    &found
        .unwrap_or_else(|| panic!("{source} said nothing: {:#?}", verdict.evidence()))
        .claim
}

fn forgotten() -> Node {
    let mut node = Node::new();
    node.forgotten(&id('a'), &id('b'));
    node
}

fn dead() -> Node {
    let mut node = Node::new();
    node.dead(&id('a'), &id('b'));
    node
}

fn doubted() -> Known {
    Known::Doubted("it lists nothing, but 1 shim runs: its records may have been lost".into())
}

#[test]
fn what_still_runs_is_alive_until_the_operator_says_otherwise() {
    let node = forgotten();
    let (kind, why) = judged(&node, &Policy::default());
    assert_eq!(kind, VerdictKind::Live);
    assert!(
        why.starts_with("processes: 2 processes (2 MiB) and 1 shim: 72 `/nginx` 1 MiB"),
        "{why}"
    );
    assert!(why.contains("--reap"), "{why}");
    let details = Details::of(&planned(&node, &Policy::default()));
    assert_eq!(details.forgotten.len(), 1);
    assert_eq!(details.forgotten[0].doubts, Vec::<String>::new());
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
    assert!(Details::of(&planned(&node, &reaping())).forgotten.is_empty());
}

#[test]
fn pause_alone_still_runs() {
    let mut node = forgotten();
    node.ended(72..=72);
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Live);
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
}

#[test]
fn what_has_no_process_left_may_go_without_more() {
    assert_eq!(judged(&dead(), &Policy::default()).0, VerdictKind::Orphan);
}

#[test]
fn a_twin_is_told_and_keeps_nothing() {
    let mut node = forgotten();
    let twin = Record {
        pod: Some(pod()),
        ..record(RecordKind::Sandbox, &id('d'))
    };
    node.asked(RUN, Known::Records(vec![twin])).tasks(&[&id('a')]);
    let plan = planned(&node, &reaping());
    let [Verdict::Orphan(orphan)] = plan.verdicts() else {
        panic!("{:#?}", plan.verdicts())
    };
    let twin = orphan.subject().twin.clone().unwrap();
    assert!(
        twin.contains(&id('d')) && twin.contains("SANDBOX_READY"),
        "{twin}"
    );
    assert!(
        said(&plan.verdicts()[0], "the same pod")
            .detail()
            .starts_with("runs again: sandbox d")
    );
}

#[test]
fn within_the_grace_nothing_goes() {
    let node = dead();
    for (grace, kind) in [(OLD, VerdictKind::Orphan), (OLD + 1, VerdictKind::Undecided)] {
        let policy = Policy {
            grace: std::time::Duration::from_secs(grace),
            ..Policy::default()
        };
        assert_eq!(judged(&node, &policy).0, kind);
    }
    // A container that was started a moment ago counts; a child of an old one does not.
    let mut node = forgotten();
    node.process(73, "worker", POD, &[&id('b')], 1);
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
    node.process(74, "new", POD, &[&id('c')], 1);
    node.detail(74).parent = 70;
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
}

#[test]
fn both_looks_must_see_the_same_sandbox() {
    let first = forgotten();
    let mut second = forgotten();
    second.shim(76, &id('a'), "k8s.io", RUN);
    let plan = plan(&first.0, &second.0, &reaping());
    let (kind, why) = of(&plan.verdicts()[0]);
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.starts_with("first look"), "{why}");
    // An application's processes come and go, and are no part of what makes it this sandbox.
    let mut second = forgotten();
    second.process(77, "worker", POD, &[&id('b')], 0);
    let plan = super::plan(&first.0, &second.0, &reaping());
    assert_eq!(plan.verdicts()[0].kind(), VerdictKind::Orphan);
}

#[test]
fn the_third_look_is_confirmed_by_the_plan() {
    let node = forgotten();
    let looks = looks_again(&node.0, &reaping());
    assert_eq!((looks.ours.len(), looks.foreign.len()), (1, 0));
    let names: Vec<_> = looks.required.iter().map(|source| source.name()).collect();
    assert!(names.contains(&"first look") && names.contains(&"processes"));
    assert!(
        !names
            .iter()
            .any(|name| name.contains("tasks") || name.contains("sandboxes")),
        "{names:?}"
    );
}
