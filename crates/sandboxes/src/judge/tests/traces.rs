//! What of a sandbox is left: any one trace of it is enough to find it.

use nodemend_evidence::{Verdict, VerdictKind};
use nodemend_runtime::{Known, RecordKind};

use super::super::Policy;
use super::super::node::{HOST, MOUNTED, Node, OLD, POD, RUN, UID, id, pod, record};
use super::{forgotten, judged, planned, reaping, said};

#[test]
fn every_trace_of_a_sandbox_is_in_one_object() {
    let node = forgotten();
    let plan = planned(&node, &reaping());
    let [Verdict::Orphan(orphan)] = plan.verdicts() else {
        panic!("{:#?}", plan.verdicts())
    };
    let sandbox = orphan.subject();
    assert_eq!(
        (sandbox.id.as_str(), sandbox.namespace.as_deref()),
        (&*id('a'), Some("k8s.io"))
    );
    assert_eq!(sandbox.pod, Some(pod()));
    let containers: Vec<_> = sandbox
        .containers
        .iter()
        .map(|one| (one.pause, one.name.as_deref()))
        .collect();
    assert_eq!(containers, [(true, None), (false, Some("app"))]);
    let processes: Vec<_> = sandbox.processes.iter().map(|one| (one.pid, one.pause)).collect();
    assert_eq!(processes, [(71, true), (72, false)]);
    assert_eq!(
        sandbox.shims.iter().map(|shim| shim.pid).collect::<Vec<_>>(),
        [70]
    );
    assert_eq!(
        (sandbox.tasks.len(), sandbox.bundles.len(), sandbox.mounts.len()),
        (2, 2, 2)
    );
    assert_eq!((sandbox.cgroups.len(), sandbox.attachments.len()), (2, 1));
    let network = sandbox.network.as_ref().unwrap();
    assert_eq!(
        (network.netns, network.paths.as_slice()),
        (POD, &[MOUNTED.into()][..])
    );
    assert_eq!(sandbox.age, Some(OLD));
    assert!(sandbox.reap);
}

#[test]
fn a_network_alone_is_a_sandbox() {
    let mut node = Node::new();
    node.mounted(POD, MOUNTED).cached(&id('a'), MOUNTED);
    let plan = planned(&node, &Policy::default());
    let sandbox = plan.verdicts()[0].subject();
    assert_eq!(
        (plan.verdicts()[0].kind(), sandbox.id.as_str()),
        (VerdictKind::Orphan, &*id('a'))
    );
    assert_eq!((sandbox.attachments.len(), sandbox.containers.len()), (1, 0));
    // Tied by nothing, it has the name of its file, and no age.
    let mut node = Node::new();
    node.mounted(POD, MOUNTED);
    let (kind, why) = judged(&node, &Policy::default());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("first sighting"), "{why}");
    assert_eq!(
        planned(&node, &Policy::default()).verdicts()[0].subject().id,
        "cni-70988231-108f-dcda-bbdf-bc1ee609dc48"
    );
    // Only containerd's CRI names them so.
    let mut node = Node::new();
    node.mounted(POD, "/run/netns/probe");
    assert!(planned(&node, &Policy::default()).verdicts().is_empty());
}

#[test]
fn a_network_that_a_loose_record_may_own_is_left_open() {
    let mut node = Node::new();
    node.mounted(POD, MOUNTED).cached(&id('a'), MOUNTED);
    let loose = Known::Records(vec![record(RecordKind::Sandbox, &id('e'))]);
    node.asked(RUN, loose.clone());
    let (kind, why) = judged(&node, &Policy::default());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("may own this one"), "{why}");
    // But a process ties it to its sandbox.
    let mut node = forgotten();
    node.asked(RUN, loose);
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
}

#[test]
fn a_bundle_without_a_shim_and_a_task_without_a_container_are_sandboxes() {
    let mut node = Node::new();
    node.bundle("/run/containerd", "k8s.io", &id('a'), &id('a'));
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Orphan);
    node.0.leftovers.bundles[0].unreadable = Some("its config.json cannot be read".into());
    let (kind, why) = judged(&node, &Policy::default());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("config.json"), "{why}");

    let mut node = Node::new();
    node.tasks(&[&id('a')]);
    let policy = Policy {
        grace: std::time::Duration::ZERO,
        ..Policy::default()
    };
    assert_eq!(judged(&node, &policy).0, VerdictKind::Orphan);
    let plan = planned(&node, &policy);
    assert_eq!(plan.verdicts()[0].subject().tasks.len(), 1);
}

#[test]
fn an_overlay_alone_is_a_sandbox() {
    let mut node = Node::new();
    let rootfs = format!(
        "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/rootfs",
        id('a')
    );
    node.mount(&rootfs);
    node.0.places.mounts[0].lost_layer = Some("/var/lib/containerd.aside/1/fs".into());
    let plan = planned(
        &node,
        &Policy {
            grace: std::time::Duration::ZERO,
            ..Policy::default()
        },
    );
    assert_eq!(plan.verdicts()[0].kind(), VerdictKind::Orphan);
    let left = said(&plan.verdicts()[0], "what is left").detail();
    assert!(
        left.contains("1 overlay of a layer that is gone (/var/lib/containerd.aside/1/fs)"),
        "{left}"
    );
}

#[test]
fn a_pod_on_the_host_s_network_has_none_of_its_own() {
    let mut node = Node::new();
    node.shim(70, &id('a'), "k8s.io", RUN);
    node.process(71, "pause", HOST, &[&id('a')], OLD)
        .process(72, "kube-proxy", HOST, &[&id('b')], OLD);
    let bundle = node.bundle("/run/containerd", "k8s.io", &id('a'), &id('a'));
    (bundle.netns, bundle.host_network) = (None, true);
    let bundle = node.bundle("/run/containerd", "k8s.io", &id('b'), &id('a'));
    (bundle.netns, bundle.host_network) = (None, true);
    let plan = planned(&node, &reaping());
    let [Verdict::Orphan(orphan)] = plan.verdicts() else {
        panic!("{:#?}", plan.verdicts())
    };
    assert_eq!(orphan.subject().network, None);
    assert_eq!(orphan.subject().processes.len(), 2);
}

#[test]
fn a_pod_without_a_bundle_is_known_by_its_cgroup() {
    let mut node = Node::new();
    node.process(71, "pause", POD, &[&id('a')], OLD)
        .mounted(POD, MOUNTED);
    let plan = planned(&node, &reaping());
    assert_eq!(plan.verdicts()[0].subject().pod.as_ref().unwrap().uid, UID);
    // A container that only the network ties to it is part of it.
    node.process(72, "nginx", POD, &[&id('b')], OLD);
    node.shim(70, &id('a'), "k8s.io", RUN);
    let plan = planned(&node, &reaping());
    assert_eq!(plan.verdicts().len(), 1);
    assert_eq!(plan.verdicts()[0].subject().containers.len(), 2);
}
