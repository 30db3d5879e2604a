//! The main incident, from the full range to the next pod that starts, while the pods that live are watched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::time::Duration;

use nodemend_lab::tool::Scene;

#[test]
fn leftover_pairs_go_while_live_pods_do_not_miss_a_ping() {
    let Scene { node, live, dead } = Scene::new(3, 3).unwrap();
    let watches: Vec<_> = (0..3)
        .map(|n| node.watch(&live[n], live[(n + 1) % 3].ips[0]).unwrap())
        .collect();
    let before = node.fingerprint().unwrap();

    let planned = node.mend("mend-veth").unwrap().ended(0).unwrap();
    assert!(planned.dry_run && !planned.changed);
    assert_eq!((planned.count("live"), planned.count("orphan")), (3, 3));
    node.unchanged(&before).unwrap();

    let done = node.mend("mend-veth --apply --yes").unwrap().ended(0).unwrap();
    assert!(done.changed && !done.dry_run);
    assert!(
        done.items
            .iter()
            .all(|item| (item.verdict == "orphan") == (item.outcome() == "mended"))
    );
    let expected = dead.iter().fold(before, |node, pod| node.unplugged(pod));
    node.unchanged(&expected).unwrap();

    let again = node.mend("mend-veth --apply --yes").unwrap().ended(0).unwrap();
    assert!(!again.changed, "a second run has nothing to do");
    assert_eq!((again.count("live"), again.items.len()), (3, 3));
    node.unchanged(&expected).unwrap();
    for watch in watches {
        let seen = watch.finish().unwrap();
        assert!(seen.nothing_lost(), "{seen:?}");
    }
}

#[test]
fn a_full_range_is_freed_and_the_next_pod_starts() {
    let Scene { node, live, dead } = Scene::new(3, 3).unwrap();
    let watches: Vec<_> = (0..3)
        .map(|n| node.watch(&live[n], live[(n + 1) % 3].ips[0]).unwrap())
        .collect();
    let filled = node.fill_range().unwrap();
    node.age_everything(Duration::from_secs(7200)).unwrap();
    let refused = node.run_sandbox("late").unwrap_err().to_string();
    assert!(refused.contains("no IP addresses available"), "{refused}");
    let before = node.fingerprint().unwrap();

    // An address whose namespace is still there waits for mend-veth.
    let early = node.mend("mend-ipam --grace 10m").unwrap().ended(0).unwrap();
    for pod in &dead {
        let kept = early.item(pod.ips[0]).unwrap();
        assert_eq!(kept.verdict, "undecided");
        assert!(kept.because().contains("run mend-veth first"), "{kept:?}");
    }
    assert_eq!(early.count("orphan"), filled.len());
    node.unchanged(&before).unwrap();

    node.mend("mend-veth --apply --yes").unwrap().ended(0).unwrap();
    let done = node.mend("mend-ipam --grace 10m --apply --yes").unwrap();
    let done = done.ended(0).unwrap();
    assert!(done.changed);
    assert_eq!(
        (done.count("orphan"), done.count("live")),
        (filled.len() + dead.len(), 3)
    );
    let mut reserved = node.reserved("cbr0");
    reserved.sort();
    let mut held: Vec<_> = live.iter().map(|pod| pod.ips[0]).collect();
    held.sort();
    assert_eq!(reserved, held, "the living keep theirs, and nobody else does");

    let late = node.run_sandbox("late").unwrap();
    assert!(node.pings_from(&late, live[0].ips[0]));
    for tool in ["mend-veth", "mend-ipam"] {
        let again = node.mend(&format!("{tool} --apply --yes")).unwrap();
        let again = again.ended(0).unwrap();
        assert!(!again.changed, "{tool} has nothing to do");
        assert_eq!((again.count("live"), again.items.len()), (4, 4));
    }
    for watch in watches {
        let seen = watch.finish().unwrap();
        assert!(seen.nothing_lost(), "{seen:?}");
    }
}

#[test]
fn within_the_grace_nothing_is_decided() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    let report = node.mend("mend-veth --grace 10m").unwrap().ended(0).unwrap();
    assert_eq!(report.with("undecided"), scene.dead_veths());
    assert_eq!(report.with("live"), scene.live_veths());
    for name in scene.dead_veths() {
        let item = report.item(name).unwrap();
        assert!(item.because().starts_with("age: "), "{}", item.because());
    }
    let detailed = node.mend("mend-veth --grace 10m --detailed-exitcode").unwrap();
    detailed.ended(5).unwrap();
    let applied = node.mend("mend-veth --grace 10m --apply --yes").unwrap();
    assert!(!applied.ended(0).unwrap().changed);
    node.unchanged(&before).unwrap();

    // Grown old enough for a shorter grace, they may go.
    node.age_everything(Duration::from_secs(7200)).unwrap();
    let waited = node.mend("mend-veth --detailed-exitcode").unwrap();
    assert_eq!(waited.ended(3).unwrap().with("orphan"), scene.dead_veths());
}
