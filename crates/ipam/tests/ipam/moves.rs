//! Freeing file by file.

use std::fs;
use std::sync::atomic::Ordering;

use nodemend_evidence::{Outcome, VerdictKind};
use nodemend_ipam::{Error, Policy, runs};

use crate::node::{POD, configure, expect, know, modern, sandbox};
use crate::repair::{Bench, failed, mended};

#[test]
fn orphans_go_and_everything_else_stays() {
    let bench = Bench::new();
    let node = &bench.node;
    for n in 9..=11 {
        node.reserve(&format!("10.88.0.{n}"), modern(n));
    }
    for (name, content) in [
        ("10.88.0.12", "a note"),
        ("last_reserved_ip.0", "10.88.0.11"),
        ("10.88.0.13", ""),
    ] {
        node.reserve(name, content);
    }
    let plan = node.plan_with(&Policy::default(), |survey| know(survey, sandbox(9, POD)));
    let done = bench.carry_out(plan, "run-1", |_| {}).unwrap();
    assert_eq!(done.len(), 2);
    mended(&done, "10.88.0.10", "undo/run-1");
    mended(&done, "10.88.0.11", "the file was moved to");
    for (name, there) in [
        ("10.88.0.9", true),
        ("10.88.0.10", false),
        ("10.88.0.11", false),
        ("10.88.0.12", true),
        ("10.88.0.13", true),
        ("last_reserved_ip.0", true),
    ] {
        assert_eq!(node.is_reserved(name), there, "{name}");
    }
    assert_eq!(
        fs::read_to_string(node.pods().join("last_reserved_ip.0")).unwrap(),
        "10.88.0.11"
    );
    assert_eq!(bench.journal().lines().count(), 2);
    assert_eq!(runs(&bench.state).unwrap(), ["run-1"]);
}

#[test]
fn an_empty_file_goes_if_it_is_asked_for() {
    let mut bench = Bench::new();
    bench.policy.include_empty = true;
    bench.node.reserve("10.88.0.9", "");
    mended(&bench.repair(), "10.88.0.9", "moved");
    assert!(!bench.node.is_reserved("10.88.0.9"));
}

#[test]
fn what_came_to_life_before_the_third_look_stays() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.node.reserve("10.88.0.10", modern(10));
    let done = bench.run(
        |_| {},
        |again| {
            know(again, sandbox(9, POD));
            configure(again, POD, "10.88.0.10", vec![]);
        },
    );
    assert!(matches!(&done["10.88.0.9"], Outcome::Refused(_)));
    assert!(matches!(&done["10.88.0.10"], Outcome::Refused(_)));
    assert!(bench.node.is_reserved("10.88.0.9") && bench.node.is_reserved("10.88.0.10"));
    assert!(
        runs(&bench.state).unwrap().is_empty(),
        "nothing was to be undone, so nothing was kept"
    );
}

#[test]
fn an_address_that_was_given_out_again_stays() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.node.reserve("10.88.0.10", modern(10));
    let done = bench.run(
        |node| {
            node.reserve("10.88.0.9", modern(99));
            fs::remove_file(node.pods().join("10.88.0.10")).unwrap();
        },
        |_| {},
    );
    assert!(matches!(&done["10.88.0.9"], Outcome::Refused(why) if why.contains("not the same object")));
    assert_eq!(done["10.88.0.10"], Outcome::AlreadyGone);
    assert_eq!(
        fs::read_to_string(bench.node.pods().join("10.88.0.9")).unwrap(),
        modern(99)
    );
}

#[test]
fn a_file_that_changes_after_the_third_look_stays() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.node.reserve("10.88.0.10", modern(10));
    bench.node.reserve("10.88.0.11", modern(11));
    let done = bench.run(
        |_| {},
        |_| {
            // Same inode and other content; same content and other inode; another name.
            bench.node.reserve("10.88.0.9", modern(99));
            fs::remove_file(bench.node.pods().join("10.88.0.10")).unwrap();
            fs::write(bench.node.path("keeps-the-inode"), "").unwrap();
            bench.node.reserve("10.88.0.10", modern(10));
            fs::hard_link(
                bench.node.pods().join("10.88.0.11"),
                bench.node.path("other-name"),
            )
            .unwrap();
        },
    );
    for file in ["10.88.0.9", "10.88.0.10", "10.88.0.11"] {
        failed(&done, file, "it was left alone");
        assert!(bench.node.is_reserved(file));
    }
}

#[test]
fn without_a_copy_nothing_is_removed() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    fs::create_dir_all(bench.state.path()).unwrap();
    fs::write(
        bench.state.path().join("undo"),
        "a file where the directory should be",
    )
    .unwrap();
    failed(
        &bench.repair(),
        "10.88.0.9",
        "no copy could be made for an undo, so nothing was removed",
    );
    assert!(bench.node.is_reserved("10.88.0.9"));
}

#[test]
fn a_second_run_of_the_same_name_never_overwrites_the_copies() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    mended(&bench.repair(), "10.88.0.9", "moved");
    bench.node.reserve("10.88.0.9", modern(10));
    failed(&bench.repair(), "10.88.0.9", "nothing was removed");
    assert!(bench.node.is_reserved("10.88.0.9"));
}

#[test]
fn a_run_name_that_leads_elsewhere_is_refused() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    for run in ["", "..", "../x", "/etc", "a/b", ".hidden", "a\nb"] {
        let refused = bench.carry_out(bench.node.plan(), run, |_| {});
        assert!(matches!(refused, Err(Error::RunName { .. })), "{run}");
    }
    assert!(bench.node.is_reserved("10.88.0.9"));
}

#[test]
fn a_plugin_at_the_lock_is_waited_for_but_not_for_ever() {
    let bench = Bench::new();
    for n in 9..=18 {
        bench.node.reserve(&format!("10.88.0.{n}"), modern(n));
    }
    let lock = fs::File::create(bench.node.pods().join("lock")).unwrap();
    lock.lock().unwrap();
    let start = std::time::Instant::now();
    let done = bench.repair();
    failed(&done, "10.88.0.9", "a CNI plugin held this lock for 5 s");
    failed(&done, "10.88.0.10", "held this lock");
    assert!(
        start.elapsed().as_secs() < 45,
        "ten files are not waited for one by one, which takes 50 s"
    );
    assert!(bench.node.is_reserved("10.88.0.9"));
    lock.unlock().unwrap();
    let done = bench.carry_out(bench.node.plan(), "run-2", |_| {}).unwrap();
    mended(&done, "10.88.0.9", "moved");
}

#[test]
fn a_signal_leaves_the_rest_untried() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.stop.store(true, Ordering::Relaxed);
    assert_eq!(bench.repair()["10.88.0.9"], Outcome::NotTried);
    assert!(bench.node.is_reserved("10.88.0.9"));
}

#[test]
fn a_directory_that_is_not_listed_any_more_is_not_taken_for_empty() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    let done = bench.run(
        |_| {},
        |again| {
            again.reservations.clear();
            again.networks[0].problem = Some("input/output error".to_owned());
        },
    );
    assert_eq!(
        done["10.88.0.9"],
        Outcome::Refused("input/output error".to_owned())
    );
    expect(
        &bench
            .node
            .plan_with(&bench.policy, |survey| know(survey, sandbox(9, POD))),
        "10.88.0.9",
        VerdictKind::Live,
        "",
    );
}
