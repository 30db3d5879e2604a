//! An address that is configured anywhere is never freed.

use nodemend_evidence::VerdictKind;
use nodemend_ipam::Policy;
use nodemend_procns::Holder;
use nodemend_rtnl::{Link, Seen, View};

use crate::node::{HOST, Node, POD, address, configure, expect, inside, know, link, modern, of, sandbox};

fn node() -> Node {
    let node = Node::new();
    node.reserve("10.88.0.9", modern(9));
    node
}

fn mount() -> Holder {
    Holder::Mount {
        path: "/run/netns/cni-1".into(),
    }
}

#[test]
fn on_the_host() {
    let plan = node().plan_with(&Policy::default(), |survey| {
        survey.views = vec![inside(
            HOST,
            None,
            vec![link(3, "cni0")],
            vec![address("10.88.0.9", 3)],
        )];
    });
    expect(
        &plan,
        "10.88.0.9",
        VerdictKind::Live,
        "configured on cni0 of the host",
    );
}

#[test]
fn in_the_namespace_of_another_sandbox() {
    let plan = node().plan_with(&Policy::default(), |survey| {
        configure(survey, POD, "10.88.0.9", vec![mount()]);
        know(survey, sandbox(10, POD));
    });
    expect(&plan, "10.88.0.9", VerdictKind::Live, "eth0 in netns 2 of");
}

#[test]
fn where_a_process_lives() {
    let plan = node().plan_with(&Policy::default(), |survey| {
        let process = Holder::Process {
            pid: 4711,
            comm: "nginx".to_owned(),
        };
        configure(survey, POD, "10.88.0.9", vec![mount(), process]);
    });
    expect(
        &plan,
        "10.88.0.9",
        VerdictKind::Live,
        "where process 4711 (nginx) lives",
    );
}

#[test]
fn in_a_namespace_that_nobody_owns() {
    let plan = node().plan_with(&Policy::default(), |survey| {
        configure(survey, POD, "10.88.0.9", vec![mount()])
    });
    let why = "still configured on eth0 in netns 2, which no sandbox owns: run mend-veth first; freeing it now would give \
               the address out twice";
    expect(&plan, "10.88.0.9", VerdictKind::Undecided, why);
}

#[test]
fn perhaps_in_a_namespace_that_lets_nobody_in() {
    let plan = node().plan_with(&Policy::default(), |survey| {
        survey.views.push(View {
            netns: POD,
            seen: Seen::Unknown {
                reason: "permission denied".to_owned(),
            },
        });
    });
    expect(
        &plan,
        "10.88.0.9",
        VerdictKind::Undecided,
        "netns 2 could not be looked into: permission denied",
    );
}

#[test]
fn perhaps_in_a_namespace_that_only_a_veth_tells_of() {
    let veth = |peer_nsid| Link {
        kind: Some("veth".to_owned()),
        peer: Some(2),
        peer_nsid,
        ..link(5, "veth01234567")
    };
    for nsid in [Some(3), None] {
        let plan = node().plan_with(&Policy::default(), |survey| {
            survey.views = vec![inside(HOST, None, vec![veth(nsid)], vec![])];
        });
        expect(
            &plan,
            "10.88.0.9",
            VerdictKind::Undecided,
            "veth01234567 leads into a namespace",
        );
    }
}

#[test]
fn a_veth_whose_namespace_was_seen_hides_nothing() {
    let veth = |ifindex, name, peer, peer_nsid| Link {
        kind: Some("veth".to_owned()),
        peer: Some(peer),
        peer_nsid,
        ..link(ifindex, name)
    };
    for nsid in [Some(3), None] {
        let plan = node().plan_with(&Policy::default(), |survey| {
            let host = vec![
                veth(5, "veth01234567", 2, nsid),
                veth(6, "a", 7, None),
                veth(7, "b", 6, None),
            ];
            let inner = vec![veth(2, "eth0", 5, Some(0))];
            survey.views = vec![inside(HOST, None, host, vec![]), inside(POD, nsid, inner, vec![])];
        });
        assert_eq!(of(&plan, "10.88.0.9").kind(), VerdictKind::Orphan);
    }
}

#[test]
fn nobody_knows_if_the_hosts_own_addresses_were_not_read() {
    let plan = node().plan_with(&Policy::default(), |survey| survey.views.clear());
    expect(
        &plan,
        "10.88.0.9",
        VerdictKind::Undecided,
        "the host's own namespace was not read",
    );
}
