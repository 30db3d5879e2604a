//! A sandbox is told apart from a forgotten one by one fact at a time.

use nodemend_evidence::{Claim, Verdict, VerdictKind};
use nodemend_procns::{CniCall, Holder, NetnsId};
use nodemend_runtime::{Keeper, Known, Made, MetadataFile, NetnsRef, Record, RecordKind};

use super::node::{HOST, K3S, MOUNTED, NOW, Node, OLD, POD, RUN, UID, another, id, pod, record};
use super::{Plan, Policy, Sandbox, looks_again, plan, silent};
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
fn a_record_of_anything_of_it_keeps_it() {
    let (sandbox, application) = (id('a'), id('b'));
    let in_sandbox = Record {
        sandbox_id: Some(sandbox.clone()),
        ..record(RecordKind::Container, &id('c'))
    };
    let on_its_network = Record {
        netns: Some(NetnsRef {
            path: MOUNTED.into(),
            id: Some(POD),
        }),
        ..record(RecordKind::Sandbox, &id('c'))
    };
    for known in [
        record(RecordKind::Sandbox, &sandbox),
        // Not ready is on record, too.
        Record {
            state: Some("SANDBOX_NOTREADY".into()),
            ..record(RecordKind::Sandbox, &sandbox)
        },
        // Known as a container only, or by one of its containers.
        record(RecordKind::Container, &sandbox),
        record(RecordKind::Container, &application),
        in_sandbox,
        on_its_network,
    ] {
        for mut node in [forgotten(), dead()] {
            let mut records = another();
            records.push(known.clone());
            node.says(&format!("containerd {RUN} containers"), Known::Records(records));
            let policy = Policy {
                records_lost: true,
                ..reaping()
            };
            let (kind, why) = judged(&node, &policy);
            assert_eq!(kind, VerdictKind::Live, "{known}: {why}");
            assert!(
                why.starts_with("containerd /run/containerd/containerd.sock containers"),
                "{why}"
            );
        }
    }
}

#[test]
fn a_source_that_is_silent_leaves_everything_open() {
    for source in ["cri ", "containerd /run/containerd/containerd.sock containers"] {
        let mut node = forgotten();
        node.says(source, Known::Unknown("did not answer within 5 s".into()));
        let policy = Policy {
            records_lost: true,
            ..reaping()
        };
        let (kind, why) = judged(&node, &policy);
        assert_eq!(kind, VerdictKind::Undecided, "{why}");
        assert!(why.contains("did not answer within 5 s"), "{why}");
        assert_eq!(silent(&node.0).len(), 1);
    }
    // Tasks are no record: nobody waits for them.
    let mut node = forgotten();
    node.says(&format!("containerd {RUN} tasks"), Known::Unknown("hangs".into()));
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
}

#[test]
fn an_empty_answer_is_believed_only_for_what_is_older_than_the_database() {
    let empty = |ago: Option<u64>| {
        let mut node = forgotten();
        node.asked(RUN, doubted()).tasks(&[&id('a'), &id('b')]);
        if let Some(ago) = ago {
            node.made(RUN, ago);
        }
        node
    };
    let lost = Policy {
        records_lost: true,
        ..reaping()
    };
    // Seconds since the database was made, and the verdict without and with --records-lost. The sandbox is two hours old.
    for (ago, alone, told) in [
        (Some(60), VerdictKind::Orphan, VerdictKind::Orphan),
        (Some(OLD - 11), VerdictKind::Orphan, VerdictKind::Orphan),
        // Within the margin of the clocks.
        (Some(OLD - 10), VerdictKind::Undecided, VerdictKind::Orphan),
        (Some(OLD + 10), VerdictKind::Undecided, VerdictKind::Orphan),
        // The root was not wiped since, whatever the operator says.
        (Some(OLD + 11), VerdictKind::Undecided, VerdictKind::Undecided),
        (Some(10 * OLD), VerdictKind::Undecided, VerdictKind::Undecided),
        (None, VerdictKind::Undecided, VerdictKind::Orphan),
    ] {
        let node = empty(ago);
        assert_eq!(judged(&node, &reaping()).0, alone, "{ago:?}");
        assert_eq!(judged(&node, &lost).0, told, "{ago:?}");
        assert!(silent(&node.0).is_empty(), "an answer is no silence");
    }
    let plan = planned(&empty(Some(60)), &reaping());
    let words = said(
        &plan.verdicts()[0],
        "containerd /run/containerd/containerd.sock metadata",
    );
    assert_eq!(
        words.detail(),
        "made 1 min ago, 1 h 59 min after this sandbox began: no record of it can be in it"
    );
    // Nothing of it runs, but the report must say that it is not known either.
    let plan = planned(&empty(Some(10 * OLD)), &Policy::default());
    let forgotten = Details::of(&plan).forgotten;
    assert!(
        forgotten[0]
            .doubts
            .iter()
            .any(|doubt| doubt.contains("before this sandbox began")),
        "{forgotten:?}"
    );
}

#[test]
fn a_database_from_the_future_proves_nothing() {
    let mut node = forgotten();
    node.asked(RUN, doubted());
    node.0.metadata.push(MetadataFile {
        socket: RUN.into(),
        made: Made::At {
            path: "/var/lib/containerd/meta.db".into(),
            unix: NOW + 3600,
        },
    });
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
}

#[test]
fn records_lost_is_of_containerd_and_not_of_another_runtime() {
    let mut node = forgotten();
    let crio = "/run/crio/crio.sock";
    node.asked(crio, doubted());
    for what in ["containers", "tasks"] {
        node.says(
            &format!("containerd {crio} {what}"),
            Known::NotOffered("no such service".into()),
        );
    }
    let policy = Policy {
        records_lost: true,
        ..reaping()
    };
    let (kind, why) = judged(&node, &policy);
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.starts_with("cri /run/crio/crio.sock"), "{why}");
}

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
fn an_empty_answer_of_another_containerd_is_no_doubt() {
    let mut node = forgotten();
    node.asked(K3S, doubted());
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Orphan);
    // Its silence is one, and so are parts that name either.
    node.asked(K3S, Known::Unknown("it hangs".into()));
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
    node.asked(K3S, doubted())
        .bundle("/run/k3s/containerd", "k8s.io", &id('b'), &id('a'));
    assert_eq!(judged(&node, &reaping()).0, VerdictKind::Undecided);
    // Nothing says whose it is.
    let mut node = Node::new();
    node.asked(K3S, doubted()).mounted(POD, MOUNTED);
    assert_eq!(judged(&node, &Policy::default()).0, VerdictKind::Undecided);
}

#[test]
fn files_of_a_containerd_that_was_not_asked_are_not_judged() {
    let mut node = Node::new();
    node.bundle("/run/k3s/containerd", "k8s.io", &id('a'), &id('a'));
    let (kind, why) = judged(&node, &Policy::default());
    assert_eq!(kind, VerdictKind::Undecided);
    assert!(why.contains("/run/k3s/containerd"), "{why}");
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
fn what_could_not_be_read_leaves_everything_open() {
    type Break = fn(&mut Node);
    let breaks: [(Break, &str); 4] = [
        (
            |node| node.0.census.unread.push("process 9: EACCES".into()),
            "process 9",
        ),
        (
            |node| node.0.details.unread.push("process 8: EIO".into()),
            "process 8",
        ),
        (
            |node| node.0.leftovers.unread.push("shim bundles: hangs".into()),
            "shim bundles: hangs",
        ),
        (
            |node| node.0.places.unread.push("/sys/fs/cgroup: EIO".into()),
            "/sys/fs/cgroup: EIO",
        ),
    ];
    for (damage, words) in breaks {
        let mut node = forgotten();
        damage(&mut node);
        let (kind, why) = judged(&node, &reaping());
        assert_eq!(kind, VerdictKind::Undecided, "{words}");
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn a_bundle_that_names_another_network_than_its_processes_is_not_understood() {
    let mut node = forgotten();
    let other = "/run/netns/cni-00000000-108f-dcda-bbdf-bc1ee609dc48";
    node.mounted(NetnsId { dev: 4, ino: 8 }, other);
    node.0.leftovers.bundles[0].netns = Some(other.into());
    let plan = planned(&node, &reaping());
    let verdict = plan
        .verdicts()
        .iter()
        .find(|verdict| verdict.subject().id == id('a'))
        .unwrap();
    assert_eq!(verdict.kind(), VerdictKind::Undecided);
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
