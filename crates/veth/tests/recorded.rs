//! The judge on recorded nodes, and on what could have been otherwise on them.
//!
//! `veth-wiped`: four pods ran, containerd's metadata was wiped, two of the four were ended (their namespaces are kept
//! by mounts alone), two new pods were started.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::path::Path;
use std::time::Duration;

use nodemend_evidence::{Claim, Verdict, VerdictKind};
use nodemend_procns::Holder;
use nodemend_rtnl::{Link, Seen};
use nodemend_runtime::Known;
use nodemend_veth::{Policy, Survey, VethPair, plan};
use proptest::prelude::*;

#[derive(serde::Deserialize)]
struct Recording {
    first: Survey,
    second: Survey,
}

fn recorded(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn now() -> Policy {
    Policy {
        grace: Duration::ZERO,
        cut_running: false,
    }
}

fn kinds(first: &Survey, second: &Survey, policy: &Policy) -> Vec<VerdictKind> {
    plan(first, second, policy)
        .verdicts()
        .iter()
        .map(Verdict::kind)
        .collect()
}

/// The node with the same change in both looks.
fn changed(change: impl Fn(&mut Survey)) -> Recording {
    let mut node = recorded("veth-wiped.json");
    change(&mut node.first);
    change(&mut node.second);
    node
}

fn judged(node: &Recording) -> Vec<VerdictKind> {
    kinds(&node.first, &node.second, &now())
}

/// The first pair that the recorded node gives up.
fn orphan(survey: &Survey) -> VethPair {
    let plan = plan(survey, survey, &now());
    plan.orphans().next().unwrap().subject().clone()
}

fn host_links(survey: &mut Survey) -> &mut Vec<Link> {
    match &mut survey.views[0].seen {
        Seen::Inside { links, .. } => links,
        other => panic!("the host was read: {other:?}"),
    }
}

fn with_link(survey: &mut Survey, ifindex: u32, change: impl FnOnce(&mut Link)) {
    change(
        host_links(survey)
            .iter_mut()
            .find(|link| link.ifindex == ifindex)
            .unwrap(),
    );
}

const LIVE: VerdictKind = VerdictKind::Live;
const ORPHAN: VerdictKind = VerdictKind::Orphan;
const UNDECIDED: VerdictKind = VerdictKind::Undecided;
const FOREIGN: VerdictKind = VerdictKind::Foreign;

#[test]
fn the_ended_pods_pairs_go_and_the_running_ones_stay() {
    let node = recorded("veth-wiped.json");
    assert_eq!(judged(&node), [LIVE, LIVE, ORPHAN, ORPHAN, LIVE, LIVE]);
}

#[test]
fn within_the_grace_nothing_goes() {
    let node = recorded("veth-wiped.json");
    let policy = Policy::default();
    assert_eq!(
        kinds(&node.first, &node.second, &policy),
        [LIVE, LIVE, UNDECIDED, UNDECIDED, LIVE, LIVE]
    );
}

#[test]
fn what_the_first_look_did_not_see_ownerless_stays() {
    let node = recorded("veth-wiped.json");
    let pair = orphan(&node.second);
    let mut first = node.first.clone();
    host_links(&mut first).retain(|link| link.ifindex != pair.ifindex);
    assert_eq!(
        kinds(&first, &node.second, &now()),
        [LIVE, LIVE, UNDECIDED, ORPHAN, LIVE, LIVE]
    );
}

#[test]
fn t03_a_runtime_that_does_not_answer_leaves_everything_undecided() {
    for silent in 0..recorded("veth-wiped.json").second.knowledge.answers.len() {
        let node = changed(|survey| {
            survey.knowledge.answers[silent].known = Known::Unknown("no answer within 5 s".into())
        });
        let all = judged(&node);
        assert!(!all.contains(&ORPHAN), "source {silent}: {all:?}");
    }
}

#[test]
fn t07_with_the_metadata_wiped_running_pods_are_live_by_what_still_runs() {
    let node = changed(|survey| {
        for answer in &mut survey.knowledge.answers {
            if let Known::Records(records) = &mut answer.known {
                records.clear();
            }
        }
    });
    let plan = plan(&node.first, &node.second, &now());
    let running = &plan.verdicts()[0];
    assert_eq!(running.kind(), LIVE);
    assert!(
        running.reason().unwrap().contains("mend-sandboxes"),
        "{:?}",
        running.reason()
    );
}

#[test]
fn t21_every_pod_shows_the_same_peer_index_and_each_is_told_apart() {
    let mut node = recorded("veth-wiped.json");
    let peers: Vec<_> = host_links(&mut node.second)
        .iter()
        .filter(|l| l.kind.as_deref() == Some("veth"))
        .map(|l| l.peer)
        .collect();
    assert!(peers.windows(2).all(|pair| pair[0] == pair[1]), "{peers:?}");
    assert_eq!(judged(&node).iter().filter(|kind| **kind == ORPHAN).count(), 2);
}

#[test]
fn t22_a_namespace_id_that_means_another_namespace_now_is_caught_by_the_second_proof() {
    let node = recorded("veth-wiped.json");
    let pair = orphan(&node.second);
    // The kernel gave the id of the orphan's namespace to a new one, between the two lists that were read.
    let swapped = |survey: &mut Survey| {
        let id_of = |survey: &Survey| {
            survey.views.iter().find_map(|view| match &view.seen {
                Seen::Inside { nsid, .. } if Some(view.netns) == pair.netns => *nsid,
                _ => None,
            })
        };
        let orphans_id = id_of(survey).unwrap();
        for view in &mut survey.views {
            if let Seen::Inside { nsid, .. } = &mut view.seen {
                *nsid = match *nsid {
                    Some(id) if id == orphans_id => Some(999),
                    Some(0) => Some(orphans_id),
                    other => other,
                };
            }
        }
    };
    let node = changed(swapped);
    let plan = plan(&node.first, &node.second, &now());
    let verdict = plan
        .verdicts()
        .iter()
        .find(|verdict| verdict.subject().ifindex == pair.ifindex)
        .unwrap();
    assert_ne!(verdict.kind(), ORPHAN);
}

#[test]
fn t23_t24_the_same_name_or_index_on_another_link_is_another_pair() {
    let node = recorded("veth-wiped.json");
    let pair = orphan(&node.second);
    let mut first = node.first.clone();
    with_link(&mut first, pair.ifindex, |link| {
        link.mac = "02:00:00:00:00:01".into()
    });
    assert_eq!(kinds(&first, &node.second, &now())[2], UNDECIDED);
}

#[test]
fn t25_t26_t28_whoever_holds_the_namespace_keeps_the_pair() {
    let holders = [
        Holder::Thread {
            pid: 7,
            tid: 9,
            comm: "agent".into(),
        },
        Holder::Fd {
            pid: 7,
            fd: 3,
            comm: "agent".into(),
        },
        Holder::ForeignMount {
            pid: 7,
            path: "/host/run/netns/x".into(),
        },
    ];
    for holder in holders {
        let node = changed(|survey| {
            let pair = orphan(survey);
            let netns = survey
                .census
                .namespaces
                .iter_mut()
                .find(|netns| Some(netns.id) == pair.netns)
                .unwrap();
            netns.holders.push(holder.clone());
        });
        assert_eq!(
            judged(&node),
            [LIVE, LIVE, LIVE, ORPHAN, LIVE, LIVE],
            "{holder:?}"
        );
    }
}

#[test]
fn t27_a_namespace_that_nothing_visible_holds_is_undecided() {
    let node = changed(|survey| {
        let pair = orphan(survey);
        survey
            .census
            .namespaces
            .retain(|netns| Some(netns.id) != pair.netns);
        survey.views.retain(|view| Some(view.netns) != pair.netns);
    });
    let plan = plan(&node.first, &node.second, &now());
    assert_eq!(plan.verdicts()[2].kind(), UNDECIDED);
    let hidden = plan.verdicts()[2]
        .evidence()
        .iter()
        .find(|e| e.source.name() == "namespace id")
        .unwrap();
    assert!(
        hidden.claim.detail().contains("socket"),
        "{}",
        hidden.claim.detail()
    );
}

#[test]
fn t31_t32_what_lacks_a_mark_of_the_plugins_is_foreign() {
    type Mark = (&'static str, fn(&mut Link));
    let marks: [Mark; 5] = [
        ("docker's name", |link| link.name = "veth7eecd5a".into()),
        ("LXC's name", |link| link.name = "vethA1B2C3".into()),
        ("no bridge", |link| link.master = None),
        ("an operator's alias", |link| {
            link.alias = Some("do not touch".into())
        }),
        ("an operator's group", |link| link.group = 7),
    ];
    for (mark, change) in marks {
        let node = changed(|survey| {
            let pair = orphan(survey);
            with_link(survey, pair.ifindex, change);
        });
        assert_eq!(judged(&node)[2], FOREIGN, "{mark}");
    }
    let other_bridge = changed(|survey| {
        for link in host_links(survey).iter_mut().filter(|link| link.name == "cni0") {
            link.name = "docker0".into();
        }
    });
    assert!(judged(&other_bridge).iter().all(|kind| *kind == FOREIGN));
}

#[test]
fn t33_a_pair_with_both_ends_on_the_host_is_foreign() {
    let node = changed(|survey| {
        let pair = orphan(survey);
        let mut other = Link {
            ifindex: 99,
            name: "veth00000099".into(),
            kind: Some("veth".into()),
            ..Link::default()
        };
        other.peer = Some(pair.ifindex);
        with_link(survey, pair.ifindex, |link| {
            (link.peer, link.peer_nsid) = (Some(99), None)
        });
        host_links(survey).push(other);
    });
    assert_eq!(judged(&node), [LIVE, LIVE, FOREIGN, ORPHAN, LIVE, LIVE, FOREIGN]);
}

#[test]
fn before_linux_4_0_one_proof_is_not_enough() {
    let node = changed(|survey| {
        for view in &mut survey.views {
            if let Seen::Inside {
                nsid,
                host_nsid,
                links,
                ..
            } = &mut view.seen
            {
                (*nsid, *host_nsid) = (None, None);
                links.iter_mut().for_each(|link| link.peer_nsid = None);
            }
        }
    });
    let plan = plan(&node.first, &node.second, &now());
    assert_eq!(plan.orphans().count(), 0);
    let told = plan.verdicts()[2]
        .evidence()
        .iter()
        .find(|e| e.source.name() == "namespace id")
        .unwrap();
    assert!(told.claim.detail().contains("4.0"), "{}", told.claim.detail());
}

#[test]
fn a_process_that_could_not_be_read_may_hold_anything() {
    let node = changed(|survey| {
        survey
            .census
            .unread
            .push("process 7: /proc/7/ns/net cannot be read".into())
    });
    assert!(!judged(&node).contains(&ORPHAN));
}

#[test]
fn cut_running_takes_what_no_runtime_has_a_record_of_and_nothing_else() {
    let node = recorded("veth-wiped.json");
    let policy = Policy {
        cut_running: true,
        ..now()
    };
    assert_eq!(
        kinds(&node.first, &node.second, &policy),
        [ORPHAN, ORPHAN, ORPHAN, ORPHAN, LIVE, LIVE]
    );
    // Without the runtime's answer it takes nothing.
    let node = changed(|survey| survey.knowledge.answers[0].known = Known::Unknown("refused".into()));
    assert!(!kinds(&node.first, &node.second, &policy).contains(&ORPHAN));
}

proptest! {
    /// Whatever the sources answer: no pair with an owner, or with a silent source, is ever planned, and every veth
    /// of the host is in the plan once.
    #[test]
    fn whatever_is_answered_nothing_owned_is_planned(
        silent in prop::collection::vec(any::<bool>(), 8),
        dropped in prop::collection::vec(any::<bool>(), 8),
        unread in any::<bool>(),
        cut_running in any::<bool>(),
    ) {
        let node = changed(|survey| {
            for (at, answer) in survey.knowledge.answers.iter_mut().enumerate() {
                if silent[at % 8] {
                    answer.known = Known::Unknown("timed out".into());
                } else if dropped[at % 8] && let Known::Records(records) = &mut answer.known {
                    records.truncate(1);
                }
            }
            if unread {
                survey.census.unread.push("process 7 cannot be read".into());
            }
        });
        let plan = plan(&node.first, &node.second, &Policy { cut_running, ..now() });
        let mut listed: Vec<u32> = plan.verdicts().iter().map(|verdict| verdict.subject().ifindex).collect();
        listed.dedup();
        prop_assert_eq!(listed.len(), 6);
        for orphan in plan.orphans() {
            for evidence in orphan.evidence() {
                prop_assert!(!matches!(evidence.claim, Claim::InUse(_)));
            }
            prop_assert!(!unread);
            let live = !orphan.subject().held_by_mounts_only();
            prop_assert!(!live || cut_running, "a process lives in {}", orphan.subject().name);
        }
    }
}
