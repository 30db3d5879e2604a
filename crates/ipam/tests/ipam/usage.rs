//! The counts, and what no removal mends.

use nodemend_ipam::{Policy, findings, usage};
use nodemend_procns::Holder;
use serde_json::json;

use crate::node::{HOST, Node, POD, address, configure, inside, know, link, modern, sandbox};
use nodemend_hostfs::FileId;

const OTHER: FileId = FileId { dev: 4, ino: 3 };

#[test]
fn each_set_of_ranges_is_counted_for_itself() {
    let node = Node::new();
    for last in 2..=126 {
        node.reserve(
            &format!("10.88.0.{last}"),
            modern(if last < 14 { 1 } else { last }),
        );
    }
    node.reserve("fd00::9", "a note");
    node.reserve("10.99.0.1", "");
    let policy = Policy::default();
    let plan = node.plan_with(&policy, |survey| know(survey, sandbox(1, POD)));
    let lines: Vec<_> = usage(&node.look(), &plan)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lines,
        [
            "pods 10.88.0.0/25: 125 addresses, 125 reserved, 12 live, 113 orphaned",
            "pods fd00::/112: 65534 addresses, 1 reserved, 0 live, 0 orphaned, 1 foreign",
            "pods: 1 reserved, 0 live, 0 orphaned, 1 undecided",
        ]
    );
}

#[test]
fn a_part_of_a_network_is_named_by_its_ends() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["plugins"][0]["ipam"]["ranges"] =
        json!([[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.10", "rangeEnd": "10.88.0.19"}]]);
    node.configure(&conf);
    let lines = usage(&node.look(), &node.plan());
    assert_eq!(
        lines[0].to_string(),
        "pods 10.88.0.10-10.88.0.19: 10 addresses, 0 reserved, 0 live, 0 orphaned"
    );
}

#[test]
fn an_address_in_use_without_a_file_is_found() {
    let node = Node::new();
    node.reserve("10.88.0.10", modern(10));
    let mut survey = node.look();
    survey.views = vec![inside(
        HOST,
        None,
        vec![link(3, "cni0")],
        vec![address("10.88.0.1", 3)],
    )];
    configure(&mut survey, POD, "10.88.0.9", vec![]);
    know(&mut survey, sandbox(9, POD));
    let found = findings(&survey);
    assert_eq!(found.len(), 1, "the bridge's own address is none");
    assert_eq!(found[0].what, "address in use without a reservation");
    assert!(
        found[0]
            .detail
            .starts_with("10.88.0.9 is configured on eth0 in netns 2 of"),
        "{}",
        found[0].detail
    );

    node.reserve("10.88.0.9", modern(9));
    survey.reservations = node.look().reservations;
    assert!(findings(&survey).is_empty());
}

#[test]
fn an_address_that_was_given_out_twice_is_found() {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    let mut survey = node.look();
    configure(&mut survey, POD, "10.88.0.9", vec![]);
    configure(
        &mut survey,
        OTHER,
        "10.88.0.9",
        vec![Holder::Process {
            pid: 7,
            comm: "web".to_owned(),
        }],
    );
    configure(&mut survey, FileId { dev: 4, ino: 8 }, "127.0.0.1", vec![]);
    configure(&mut survey, FileId { dev: 4, ino: 9 }, "127.0.0.1", vec![]);
    let found = findings(&survey);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].what, "the same address twice");
    assert!(
        found[0].detail.contains("netns 2") && found[0].detail.contains("process 7 (web)"),
        "{}",
        found[0].detail
    );
}
