//! The judge on a recorded node: four pods ran, containerd's metadata was wiped, two of the four were ended, two new pods
//! were started, and every other address of the /25 was reserved for containers that never were.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::path::Path;
use std::time::Duration;

use nodemend_evidence::VerdictKind;
use nodemend_ipam::{Policy, Survey, plan, usage};
use nodemend_runtime::Known;

#[derive(serde::Deserialize)]
struct Recording {
    first: Survey,
    second: Survey,
}

fn recorded() -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ipam-wiped.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn now() -> Policy {
    Policy {
        grace: Duration::ZERO,
        include_empty: false,
    }
}

#[test]
fn the_line_of_the_network_tells_the_whole_story() {
    let node = recorded();
    let plan = plan(&node.first, &node.second, &now());
    let lines: Vec<String> = usage(&node.second, &plan)
        .iter()
        .map(ToString::to_string)
        .collect();
    // Two ended pods' addresses still are on their leftover namespaces: mend-veth comes first.
    assert_eq!(
        lines,
        ["cbr0 10.88.0.0/25: 125 addresses, 125 reserved, 4 live, 119 orphaned, 2 undecided"]
    );
    let undecided = plan
        .verdicts()
        .iter()
        .filter(|verdict| verdict.kind() == VerdictKind::Undecided);
    assert!(undecided.clone().count() == 2);
    for verdict in undecided {
        assert!(
            verdict.reason().unwrap().contains("run mend-veth first"),
            "{:?}",
            verdict.reason()
        );
    }
}

#[test]
fn t03_while_one_source_is_silent_nothing_is_freed() {
    for silent in 0..recorded().second.knowledge.answers.len() {
        let mut node = recorded();
        for survey in [&mut node.first, &mut node.second] {
            survey.knowledge.answers[silent].known = Known::Unknown("no answer within 5 s".into());
        }
        assert_eq!(
            plan(&node.first, &node.second, &now()).orphans().count(),
            0,
            "source {silent}"
        );
    }
}

#[test]
fn within_the_grace_nothing_is_freed() {
    let node = recorded();
    assert_eq!(
        plan(&node.first, &node.second, &Policy::default())
            .orphans()
            .count(),
        119,
        "fill-range ages its files"
    );
    let longer = Policy {
        grace: Duration::from_secs(30 * 86_400),
        ..now()
    };
    assert_eq!(plan(&node.first, &node.second, &longer).orphans().count(), 0);
}
