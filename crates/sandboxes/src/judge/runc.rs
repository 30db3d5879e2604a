//! What runc keeps is a trace like any other, and the last one where containerd removed the bundles.

use nodemend_evidence::{Verdict, VerdictKind};
use nodemend_runtime::{Known, RecordKind};

use super::Policy;
use super::node::{HOST, MOUNTED, NOW, Node, OLD, POD, RUN, UP, id, pod, record};
use super::tests::{judged, planned, reaping};

/// Nothing runs, and containerd removed the bundles.
fn left() -> Node {
    let mut node = Node::new();
    node.runc_state("/run/containerd", &id('a'), &id('a'));
    node.runc_state("/run/containerd", &id('b'), &id('a'));
    node.mounted(POD, MOUNTED);
    node
}

#[test]
fn what_runc_keeps_ties_a_container_to_its_sandbox() {
    let plan = planned(&left(), &Policy::default());
    let [Verdict::Orphan(orphan)] = plan.verdicts() else {
        panic!("{:#?}", plan.verdicts())
    };
    let sandbox = orphan.subject();
    assert_eq!((&*sandbox.id, sandbox.runc_states.len()), (&*id('a'), 2));
    assert_eq!(sandbox.pod, Some(pod()));
    assert_eq!(sandbox.network.as_ref().unwrap().netns, POD);
    assert_eq!(sandbox.age, Some(OLD));
    let containers: Vec<_> = sandbox
        .containers
        .iter()
        .map(|one| (one.pause, one.name.as_deref()))
        .collect();
    assert_eq!(containers, [(true, None), (false, Some("app"))]);
    assert!(
        plan.verdicts()[0].subject().runc_states[0]
            .path
            .ends_with(id('a'))
    );
}

#[test]
fn processes_without_a_shim_and_a_bundle_are_tied_by_what_runc_keeps() {
    let mut node = left();
    node.process(72, "nginx", POD, &[&id('b')], OLD);
    node.0.leftovers.runc_states[1].init = Some((72, (UP - OLD) * 100));
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Live);
    let plan = planned(&node, &reaping());
    let [Verdict::Orphan(orphan)] = plan.verdicts() else {
        panic!("{:#?}", plan.verdicts())
    };
    assert_eq!(orphan.subject().processes[0].container, id('b'));
}

#[test]
fn a_record_or_a_shim_keeps_it() {
    for (kind, of) in [(RecordKind::Sandbox, 'a'), (RecordKind::Container, 'b')] {
        let mut node = left();
        let known = Known::Records(vec![record(kind, &id(of))]);
        node.says(&format!("containerd {RUN} containers"), known);
        assert_eq!(judged(&node, &reaping()).0, VerdictKind::Live, "{kind:?}");
    }
    let mut node = left();
    node.shim(70, &id('a'), "k8s.io", RUN);
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Live);
}

#[test]
fn a_first_process_that_is_in_no_cgroup_of_it_leaves_it_open() {
    let start = (UP - OLD) * 100;
    for (init, wanted) in [
        ((72, start), VerdictKind::Undecided),
        // The pid is another's by now.
        ((72, start - 1), VerdictKind::Orphan),
        ((73, start), VerdictKind::Orphan),
    ] {
        let mut node = left();
        node.process(72, "nginx", HOST, &[], OLD);
        node.0.leftovers.runc_states[0].init = Some(init);
        assert_eq!(judged(&node, &reaping()).0, wanted, "{init:?}");
    }
}

#[test]
fn a_state_of_a_containerd_that_was_not_asked_is_not_judged() {
    let mut node = Node::new();
    node.runc_state("/run/k3s/containerd", &id('a'), &id('a'));
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("/run/k3s/containerd"), "{why}");
}

#[test]
fn a_state_that_cannot_be_read_or_is_young_leaves_its_own_sandbox_open() {
    let mut node = left();
    node.0.leftovers.runc_states[1].unreadable = Some("its state.json cannot be read: EOF".into());
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains(&id('b')) && why.contains("EOF"), "{why}");
    let mut node = left();
    node.0.leftovers.runc_states[1].modified = NOW - 5;
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
}

#[test]
fn a_state_that_tells_nothing_is_an_object_of_its_own() {
    let mut node = left();
    let state = node.runc_state("/run/containerd", &id('c'), &id('a'));
    (state.sandbox_id, state.bundle, state.pod) = (None, None, None);
    let plan = planned(&node, &Policy::default());
    let found: Vec<_> = plan
        .verdicts()
        .iter()
        .map(|verdict| (verdict.subject().id.clone(), verdict.subject().runc_states.len()))
        .collect();
    assert_eq!(found, [(id('a'), 2), (id('c'), 1)]);
}

#[test]
fn docker_s_state_is_docker_s() {
    let mut node = Node::new();
    node.runc_state("/run/containerd", &id('a'), &id('a')).namespace = "moby".into();
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Foreign);
}

#[test]
fn another_directory_under_the_same_name_is_another_sandbox() {
    let (first, mut second) = (left(), left());
    second.0.leftovers.runc_states[0].dir.ino += 50;
    let plan = super::plan(&first.0, &second.0, &reaping());
    assert_eq!(plan.verdicts()[0].kind(), VerdictKind::Undecided);
}
