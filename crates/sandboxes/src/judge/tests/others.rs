//! What belongs to somebody else is never touched.

use nodemend_evidence::VerdictKind;
use nodemend_procns::{CniCall, Holder, NetnsId};
use nodemend_runtime::{Keeper, Known, Record, RecordKind};

use super::super::Policy;
use super::super::node::{HOST, K3S, MOUNTED, Node, OLD, POD, RUN, another, id, record};
use super::{dead, doubted, forgotten, judged, of, planned, reaping};

#[test]
fn a_second_containerd_speaks_for_its_own() {
    // It was not asked.
    let mut node = Node::new();
    node.shim(70, &id('a'), "k8s.io", K3S)
        .process(71, "pause", POD, &[&id('a')], OLD);
    node.mounted(POD, MOUNTED);
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains(K3S) && why.contains("--runtime-endpoint"), "{why}");
    // It was, and knows it.
    node.asked(K3S, Known::Records(vec![record(RecordKind::Sandbox, &id('a'))]));
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Live);
    // It was, and does not answer.
    node.asked(K3S, Known::Unknown("nobody listens on the socket".into()));
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
    // It was, and has other sandboxes.
    node.asked(K3S, Known::Records(another()));
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
    // It lists nothing: the database of the first containerd proves nothing of it.
    node.asked(K3S, doubted()).made(RUN, 60);
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
    node.made(K3S, 60);
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
}

#[test]
fn docker_s_containers_are_docker_s() {
    let mut node = Node::new();
    node.shim(70, &id('a'), "moby", RUN)
        .process(71, "nginx", POD, &[&id('a')], OLD);
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Foreign);
    assert!(why.contains("Docker"), "{why}");
    // By the cgroup alone, when its shim is dead.
    let mut node = Node::new();
    node.process(71, "nginx", POD, &[&id('a')], OLD);
    node.detail(71).cgroups[0].path = format!("/docker/{}", id('a')).into();
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Foreign);
    // A record of containerd's is a better reason.
    let mut node = Node::new();
    node.shim(70, &id('a'), "moby", RUN)
        .process(71, "nginx", POD, &[&id('a')], OLD);
    node.says(
        "containerd",
        Known::Records(vec![record(RecordKind::Container, &id('a'))]),
    );
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Live);
}

#[test]
fn what_conmon_watches_over_is_podman_s_or_cri_o_s() {
    for (keeper, name) in [(Keeper::Other, "podman"), (Keeper::Crio, "CRI-O")] {
        let mut node = Node::new();
        node.watcher(70, &id('a'), keeper, "conmon");
        node.process(71, "nginx", POD, &[&id('a')], OLD)
            .mounted(POD, MOUNTED);
        let (kind, why) = judged(&node, &reaping());
        assert_eq!(kind, VerdictKind::Foreign);
        assert!(why.contains("conmon") && why.contains(name), "{why}");
    }
    // Its conmon is dead: only the cgroup says it.
    let mut node = Node::new();
    node.process(71, "nginx", POD, &[&id('a')], OLD)
        .mounted(POD, MOUNTED);
    node.detail(71).cgroups[0].path = format!("/machine.slice/libpod-{}.scope", id('a')).into();
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Foreign);
    // Nothing says anything.
    node.detail(71).cgroups[0].path = format!("/my/{}", id('a')).into();
    node.0
        .census
        .namespaces
        .iter_mut()
        .for_each(|netns| netns.holders.clear());
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Foreign);
}

#[test]
fn a_pod_without_a_shim_may_be_docker_s_where_docker_runs() {
    let mut node = Node::new();
    node.process(71, "pause", POD, &[&id('a')], OLD)
        .mounted(POD, MOUNTED);
    assert_eq!(
        judged(&node, &reaping()).0,
        VerdictKind::Orphan,
        "pause whose shim died"
    );
    node.process(60, "dockerd", HOST, &[], OLD);
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("dockerd (pid 60) runs here"), "{why}");
}

#[test]
fn two_shims_with_one_id_are_one_sandbox_unless_they_are_of_two_containerds() {
    let mut node = forgotten();
    node.shim(75, &id('a'), "k8s.io", RUN);
    let plan = planned(&node, &reaping());
    assert_eq!(
        (plan.verdicts().len(), plan.verdicts()[0].kind()),
        (1, VerdictKind::Orphan)
    );
    assert_eq!(plan.verdicts()[0].subject().shims.len(), 2);

    let mut node = forgotten();
    node.asked(K3S, Known::Records(another()));
    node.shim(75, &id('a'), "k8s.io", K3S);
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("parts of two containerds"), "{why}");
}

#[test]
fn names_that_people_chose_are_told_apart_by_their_namespace() {
    let mut node = Node::new();
    node.shim(70, "web", "default", RUN).shim(80, "web", "tests", RUN);
    let plan = planned(&node, &reaping());
    let found: Vec<_> = plan
        .verdicts()
        .iter()
        .map(|verdict| verdict.subject().namespace.as_deref())
        .collect();
    assert_eq!(found, [Some("default"), Some("tests")]);
}

#[test]
fn nerdctl_s_record_of_a_network_is_found_under_its_long_name() {
    let mut node = Node::new();
    let long = format!("default-{}", id('a'));
    node.mounted(POD, MOUNTED).cached(&long, MOUNTED);
    let container = Record {
        namespace: Some("default".into()),
        ..record(RecordKind::Container, &id('a'))
    };
    node.says(
        &format!("containerd {RUN} containers"),
        Known::Records(vec![container]),
    );
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Live);
}

#[test]
fn a_container_in_a_container_is_the_outer_one_s() {
    // Docker in a pod: its shims look like those of this host, down to the address.
    let outer = id('a');
    let mut node = forgotten();
    node.says(
        "containerd",
        Known::Records(vec![record(RecordKind::Sandbox, &outer)]),
    );
    node.shim(90, &id('f'), "moby", RUN);
    node.0
        .census
        .processes
        .iter_mut()
        .find(|process| process.pid == 90)
        .unwrap()
        .container_ids = vec![id('b')];
    node.process(
        91,
        "redis",
        NetnsId { dev: 4, ino: 8 },
        &[&id('b'), &id('f')],
        OLD,
    );
    let plan = planned(&node, &reaping());
    assert_eq!(plan.verdicts().len(), 1);
    assert_eq!(plan.verdicts()[0].kind(), VerdictKind::Live);
    // The same without a cgroup of its own: its pids are not the host's.
    let mut node = Node::new();
    node.shim(90, &id('f'), "k8s.io", RUN);
    node.detail(90).own_pids = true;
    assert!(planned(&node, &reaping()).verdicts().is_empty());
}

#[test]
fn whoever_else_uses_its_network_keeps_it() {
    let process = Holder::Process {
        pid: 99,
        comm: "tcpdump".into(),
    };
    let thread = Holder::Thread {
        pid: 99,
        tid: 100,
        comm: "ebpf".into(),
    };
    let file = Holder::Fd {
        pid: 99,
        fd: 5,
        comm: "agent".into(),
    };
    let elsewhere = Holder::ForeignMount {
        pid: 99,
        path: "/run/netns/x".into(),
    };
    for holder in [process, thread, file, elsewhere] {
        for mut node in [forgotten(), dead()] {
            node.held(POD, holder.clone());
            assert_eq!(judged(&node, &reaping()).0, VerdictKind::Live, "{holder:?}");
        }
    }
}

#[test]
fn a_plugin_at_work_keeps_it() {
    let mut node = dead();
    node.process(99, "bridge", HOST, &[], 1);
    let call = CniCall {
        command: "ADD".into(),
        container_id: id('a'),
        netns: "/var/run/netns/x".into(),
        ifname: "eth0".into(),
    };
    node.0.census.processes.last_mut().unwrap().cni = Some(call);
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Live);
}

#[test]
fn a_container_of_a_node_in_a_container_is_that_node_s() {
    let mut node = Node::new();
    node.process(71, "pause", POD, &[&id('a')], OLD)
        .mounted(POD, MOUNTED);
    node.process(70, "shim-or-init", HOST, &[], OLD);
    node.detail(71).parent = 70;
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
    node.detail(70).own_pids = true;
    let (kind, why) = judged(&node, &reaping());
    assert_eq!(kind, VerdictKind::Foreign);
    assert!(why.starts_with("process 70"), "{why}");
}

#[test]
fn who_shares_a_network_and_not_the_pod_is_another_s() {
    let mut node = forgotten();
    node.process(99, "debug", POD, &[&id('c')], OLD);
    node.detail(99).cgroups[0].path = format!("/elsewhere/{}", id('c')).into();
    let plan = planned(&node, &reaping());
    let of = |id: &str| {
        let found = plan.verdicts().iter().find(|verdict| verdict.subject().id == id);
        of(found.unwrap())
    };
    assert_eq!(of(&id('c')).0, VerdictKind::Live);
    let (kind, why) = of(&id('a'));
    assert_eq!(kind, VerdictKind::Live);
    assert!(why.contains("process 99 (debug) lives there"), "{why}");
}
