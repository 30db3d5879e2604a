//! What the sources say, and do not say.

use nodemend_evidence::VerdictKind;
use nodemend_procns::NetnsId;
use nodemend_runtime::{Known, Made, MetadataFile, NetnsRef, Record, RecordKind};

use super::super::node::{K3S, MOUNTED, NOW, Node, OLD, POD, RUN, another, id, record};
use super::super::{Policy, silent};
use super::{dead, doubted, forgotten, judged, planned, reaping, said};
use crate::details::Details;

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
