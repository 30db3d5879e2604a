//! What a repair must not take from other containers.

use nodemend_evidence::VerdictKind;
use nodemend_ipam::{Policy, Repair, Survey, findings};
use nodemend_procns::Holder;

use crate::node::{Node, POD, age, at_work, configure, expect, id, know, modern, of, sandbox};
use crate::repair::{Bench, mended};

const PATH: &str = "/run/netns/web";

fn mount() -> Holder {
    Holder::Mount { path: PATH.into() }
}

fn process() -> Holder {
    Holder::Process {
        pid: 77,
        comm: "web".to_owned(),
    }
}

/// One dead attachment whose cached namespace is at `path`, and a plugin that says that it was called.
fn repaired(path: &str, third: impl Fn(&mut Survey)) -> (bool, String) {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.node.cache(9, "eth0");
    bench.plugin("bridge", "touch $PODS/../called");
    let done = bench.run(
        |_| {},
        |again| {
            again.cache[0].netns = path.into();
            third(again);
        },
    );
    mended(&done, "10.88.0.9", "moved");
    let called = bench.node.path("networks/called").exists();
    assert_eq!(bench.node.cached(), usize::from(!called));
    (called, format!("{:?}", done["10.88.0.9"]))
}

#[test]
fn a_del_never_enters_a_namespace_that_somebody_uses() {
    let held =
        |holders: Vec<Holder>| move |again: &mut Survey| configure(again, POD, "10.88.0.77", holders.clone());
    let fd = Holder::Fd {
        pid: 8,
        fd: 3,
        comm: "agent".to_owned(),
    };
    let known = |again: &mut Survey| {
        know(again, sandbox(77, POD));
        configure(again, POD, "10.88.0.77", vec![mount()]);
    };
    for (what, (called, how), why) in [
        (
            "process",
            repaired(PATH, held(vec![mount(), process()])),
            "process 77 (web)",
        ),
        (
            "other name",
            repaired("/var/run/netns/web", held(vec![mount(), process()])),
            "process 77 (web)",
        ),
        (
            "open file",
            repaired(PATH, held(vec![mount(), fd])),
            "something that holds it open",
        ),
        ("sandbox", repaired(PATH, known), &*id(77)),
        (
            "plugin",
            repaired("/run/netns/cni-1", |again| at_work(again, 77, "ADD")),
            "is at CNI ADD",
        ),
    ] {
        assert!(
            !called && how.contains("it was not run") && how.contains(why),
            "{what}: {how}"
        );
    }
    let (called, how) = repaired(PATH, held(vec![mount()]));
    assert!(called, "{how}");
}

#[test]
fn a_del_never_takes_the_rules_of_an_address_that_was_given_away() {
    let other = "10.88.0.10".parse().unwrap();
    let configured = repaired("", |again| {
        again.cache[0].ips.push(other);
        configure(again, POD, "10.88.0.10", vec![process()]);
    });
    assert!(
        !configured.0 && configured.1.contains("10.88.0.10 is configured on eth0"),
        "{}",
        configured.1
    );
    let reserved = repaired("", |again| {
        again.cache[0].ips.push(other);
        let mut theirs = again.reservations[0].clone();
        (theirs.file, theirs.ip, theirs.id) = ("10.88.0.10".into(), Some(other), Some(id(77).into()));
        again.reservations.push(theirs);
    });
    assert!(
        !reserved.0 && reserved.1.contains(&format!("reserved for {}", id(77))),
        "{}",
        reserved.1
    );
}

#[test]
fn the_plan_does_not_promise_a_del_that_will_not_run() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    node.cache(9, "eth0");
    let plan = node.plan_with(&Policy::default(), |survey| {
        survey.cache[0].netns = PATH.into();
        configure(survey, POD, "10.88.0.77", vec![mount(), process()]);
    });
    assert_eq!(of(&plan, "10.88.0.9").subject().repair, Repair::Move);
}

/// A container that no runtime knows lives on in its namespace: all its addresses are its own, also one that it does
/// not have configured just now.
#[test]
fn an_address_holds_the_other_addresses_of_its_container() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    node.reserve("fd00::9", modern(9));
    node.reserve("fd00::10", modern(10));
    let with = |holder: Holder| {
        node.plan_with(&Policy::default(), move |survey| {
            configure(survey, POD, "10.88.0.9", vec![holder.clone()]);
        })
    };
    let lives = with(process());
    expect(
        &lives,
        "fd00::9",
        VerdictKind::Live,
        "10.88.0.9 of the same container is configured on eth0",
    );
    expect(
        &with(mount()),
        "fd00::9",
        VerdictKind::Undecided,
        "run mend-veth first",
    );
    assert_eq!(of(&lives, "fd00::10").kind(), VerdictKind::Orphan);
    // Known to be another container's, it says nothing of this one.
    let given_away = node.plan_with(&Policy::default(), |survey| {
        know(survey, sandbox(77, POD));
        configure(survey, POD, "10.88.0.9", vec![]);
    });
    expect(&given_away, "10.88.0.9", VerdictKind::Live, "configured on");
    assert_eq!(of(&given_away, "fd00::9").kind(), VerdictKind::Orphan);
}

#[test]
fn a_cache_file_that_cannot_be_used_is_a_finding() {
    let node = Node::new();
    age(
        &node.reserve("10.88.0.9", modern(9)),
        std::time::Duration::from_secs(7200),
    );
    std::fs::write(node.path("results/pods-x-eth0"), r#"{"kind":"cniCacheV1","#).unwrap();
    let mut survey = node.look();
    let results = node.path("results");
    survey.cache_problems = nodemend_cni::cache_in(&nodemend_hostfs::Host::local(), [&*results]).problems;
    let found = findings(&survey);
    assert!(
        found
            .iter()
            .any(|finding| finding.detail.contains("pods-x-eth0: it is cut off")),
        "{found:?}"
    );
}
