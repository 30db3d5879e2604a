//! Which files are reservations of this node, and which are somebody else's.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::Duration;

use nodemend_evidence::{Subject, VerdictKind};
use nodemend_ipam::{Form, Policy, Survey, plan};

use crate::node::{Node, age, at_work, expect, id, modern, of};

#[test]
fn files_of_every_known_form_that_nobody_holds_are_orphans() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    node.reserve("fd00::9", modern(9));
    node.reserve("10.88.0.10", id(10));
    node.reserve("10.88.0.11", format!("default-{}\r\nnet1", id(11)));
    let plan = node.plan();
    assert_eq!(plan.summary().orphans, 4);
    let subject = of(&plan, "10.88.0.9").subject();
    assert_eq!(subject.title(), format!("10.88.0.9 (pods)  {} eth0", id(9)));
    assert_eq!((&subject.form, subject.mode), (&Form::Modern, 0o600));
    assert_eq!(
        subject.action(),
        "move the file out of the way, so that the address is free"
    );
    assert_eq!(of(&plan, "10.88.0.10").subject().form, Form::Legacy);
}

#[test]
fn the_lock_and_the_round_robin_are_no_objects() {
    let node = Node::new();
    for name in [
        "lock",
        "last_reserved_ip",
        "last_reserved_ip.0",
        "last_reserved_ip.1",
    ] {
        node.reserve(name, "10.88.0.9");
    }
    assert!(node.plan().verdicts().is_empty());
}

#[test]
fn what_host_local_did_not_write_is_foreign() {
    let node = Node::new();
    node.reserve("10.88.0.2", "reserved for the printer");
    node.reserve("10.88.0.3", &id(3)[..12]);
    node.reserve("10.88.0.4", format!("{}\neth0", id(4)));
    node.reserve("10.88.0.5", vec![b'a'; 5000]);
    node.reserve("fd00:0::9", modern(5));
    node.reserve("FD00::A", modern(5));
    node.reserve("10.88.0.9.bak", modern(5));
    fs::create_dir(node.pods().join("10.88.0.6")).unwrap();
    fs::create_dir(node.pods().join("leaked")).unwrap();
    let plan = node.plan();
    assert_eq!((plan.verdicts().len(), plan.summary().foreign), (9, 9));
    expect(
        &plan,
        "10.88.0.2",
        VerdictKind::Foreign,
        "no container id of a known form",
    );
    expect(
        &plan,
        "10.88.0.3",
        VerdictKind::Foreign,
        "no container id of a known form",
    );
    expect(
        &plan,
        "10.88.0.5",
        VerdictKind::Foreign,
        "larger than any file of host-local",
    );
    expect(
        &plan,
        "fd00:0::9",
        VerdictKind::Foreign,
        "a spelling that host-local does not use",
    );
    expect(&plan, "10.88.0.6", VerdictKind::Foreign, "a directory");
    expect(&plan, "leaked", VerdictKind::Foreign, "no IP address");
}

#[test]
fn links_and_pipes_are_foreign_and_nobody_waits_for_them() {
    let node = Node::new();
    let elsewhere = node.path("elsewhere");
    fs::write(&elsewhere, modern(1)).unwrap();
    age(&elsewhere, Duration::from_secs(7200));
    symlink(&elsewhere, node.pods().join("10.88.0.2")).unwrap();
    fs::hard_link(&elsewhere, node.pods().join("10.88.0.3")).unwrap();
    symlink("/nowhere", node.pods().join("10.88.0.4")).unwrap();
    let fifo = node.pods().join("10.88.0.5");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let plan = node.plan();
    expect(&plan, "10.88.0.2", VerdictKind::Foreign, "symbolic link");
    expect(&plan, "10.88.0.3", VerdictKind::Foreign, "hard links");
    expect(&plan, "10.88.0.4", VerdictKind::Foreign, "symbolic link");
    expect(&plan, "10.88.0.5", VerdictKind::Foreign, "no regular file");
}

#[test]
fn hostile_names_survive_and_can_be_recorded() {
    let node = Node::new();
    let hostile: [&[u8]; 3] = [b"10.88.0.9\n10.88.0.10", b"\xff\xfe", b"\x1b[2J"];
    for name in hostile {
        fs::write(node.pods().join(OsStr::from_bytes(name)), modern(1)).unwrap();
    }
    let survey = node.look();
    assert_eq!(plan(&survey, &survey, &Policy::default()).summary().foreign, 3);
    let recorded = serde_json::to_string(&survey).unwrap();
    assert_eq!(serde_json::from_str::<Survey>(&recorded).unwrap(), survey);
}

#[test]
fn an_empty_file_stays_unless_it_is_asked_for_and_nobody_adds() {
    let node = Node::new();
    node.reserve("10.88.0.9", "");
    let asked = Policy {
        include_empty: true,
        ..Policy::default()
    };
    expect(
        &node.plan(),
        "10.88.0.9",
        VerdictKind::Undecided,
        "--include-empty",
    );

    let orphan = node.plan_with(&asked, |_| {});
    assert_eq!(of(&orphan, "10.88.0.9").kind(), VerdictKind::Orphan);
    assert_eq!(
        of(&orphan, "10.88.0.9").subject().title(),
        "10.88.0.9 (pods)  empty file"
    );
    assert!(
        of(&orphan, "10.88.0.9")
            .evidence()
            .iter()
            .any(|said| said.claim.detail().starts_with("the file has no id"))
    );

    let adding = node.plan_with(&asked, |survey| at_work(survey, 77, "ADD"));
    expect(&adding, "10.88.0.9", VerdictKind::Undecided, "may be its own");
    let removing = node.plan_with(&asked, |survey| at_work(survey, 77, "DEL"));
    assert_eq!(of(&removing, "10.88.0.9").kind(), VerdictKind::Orphan);
}

#[test]
fn an_empty_file_that_was_just_made_stays() {
    let node = Node::new();
    age(&node.reserve("10.88.0.9", ""), Duration::ZERO);
    let asked = Policy {
        include_empty: true,
        ..Policy::default()
    };
    expect(
        &node.plan_with(&asked, |_| {}),
        "10.88.0.9",
        VerdictKind::Undecided,
        "within the grace",
    );
}

#[test]
fn a_young_file_and_one_whose_time_cannot_be_believed_stay() {
    let node = Node::new();
    age(&node.reserve("10.88.0.2", modern(2)), Duration::from_secs(60));
    let future = node.reserve("10.88.0.3", modern(3));
    let file = fs::File::open(&future).unwrap();
    let tomorrow = std::time::SystemTime::now() + Duration::from_secs(86400);
    file.set_times(fs::FileTimes::new().set_modified(tomorrow))
        .unwrap();
    let unset = node.reserve("10.88.0.4", modern(4));
    let file = fs::File::open(&unset).unwrap();
    let epoch = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    file.set_times(fs::FileTimes::new().set_modified(epoch)).unwrap();
    let plan = node.plan();
    expect(
        &plan,
        "10.88.0.2",
        VerdictKind::Undecided,
        "within the grace of 10 min; see --grace",
    );
    expect(&plan, "10.88.0.3", VerdictKind::Undecided, "lies in the future");
    expect(
        &plan,
        "10.88.0.4",
        VerdictKind::Undecided,
        "before the clock was set",
    );
}
