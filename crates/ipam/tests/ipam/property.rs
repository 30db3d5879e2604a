//! Whatever the mix of answers: what the plan removes is exactly what nobody can hold, and every file is in it once.

use std::collections::HashSet;

use nodemend_cni::{Configurations, Network, Problem};
use nodemend_evidence::{Claim, Subject, VerdictKind};
use nodemend_hostfs::{FileId, Moment};
use nodemend_ipam::{Form, NetworkDir, Policy, Repair, Reservation, SURVEY_VERSION, Survey, plan};
use nodemend_procns::{Census, Holder};
use nodemend_rtnl::{Seen, View};
use nodemend_runtime::{Knowledge, Known, RecordKind};
use proptest::prelude::*;

use crate::node::{HOST, address, at_work, configure, id, inside, knowledge, link, quiet, record, sandbox};

const NOW: u64 = 1_800_000_000;

/// One file of a made-up network.
#[derive(Clone, Debug)]
struct Made {
    form: u8,
    id: u8,
    young: bool,
    configured: bool,
    /// Its inode was another one in the first look.
    replaced: bool,
    /// Where its address is configured.
    spot: u8,
}

/// One made-up node.
#[derive(Clone, Debug)]
struct World {
    files: Vec<Made>,
    answer: u8,
    known: Vec<u8>,
    calls: Vec<(u8, bool)>,
    unread: bool,
    closed: bool,
    shared: bool,
    broken: bool,
    include_empty: bool,
}

fn made() -> impl Strategy<Value = Made> {
    let flags = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
    );
    (0..5u8, 0..6u8, flags, 0..10u8).prop_map(|(form, id, (young, configured, replaced), spot)| Made {
        form,
        id,
        young,
        configured,
        replaced,
        spot,
    })
}

fn world() -> impl Strategy<Value = World> {
    let rare = || prop::bool::weighted(0.06);
    let calls = prop::collection::vec((0..6u8, any::<bool>()), 0..2);
    let asked = (
        prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2)],
        prop::collection::vec(0..6u8, 0..3),
    );
    let faults = (rare(), rare(), rare(), rare());
    (
        prop::collection::vec(made(), 0..12),
        asked,
        calls,
        faults,
        any::<bool>(),
    )
        .prop_map(
            |(files, (answer, known), calls, (unread, closed, shared, broken), include_empty)| World {
                files,
                answer,
                known,
                calls,
                unread,
                closed,
                shared,
                broken,
                include_empty,
            },
        )
}

impl World {
    fn survey(&self, first: bool) -> Survey {
        let mut survey = self.files_only(first);
        quiet(&mut survey);
        survey.knowledge = match self.answer {
            0 => knowledge(Known::Records(
                self.known
                    .iter()
                    .map(|n| record(RecordKind::Sandbox, *n))
                    .collect(),
            )),
            1 => knowledge(Known::Unknown("no answer".to_owned())),
            _ => Knowledge::default(),
        };
        for (n, add) in &self.calls {
            at_work(&mut survey, *n, if *add { "ADD" } else { "DEL" });
        }
        for (at, made) in self.files.iter().enumerate() {
            spot(&mut survey, at, made.spot);
        }
        if self.unread {
            survey.census.unread.push("pid 7 could not be read".to_owned());
        }
        if self.closed {
            let seen = Seen::Unknown {
                reason: "denied".to_owned(),
            };
            survey.views.push(View {
                netns: FileId { dev: 4, ino: 99 },
                seen,
            });
        }
        survey
    }

    fn files_only(&self, first: bool) -> Survey {
        let dir = |network: &str, configured| NetworkDir {
            network: network.into(),
            dir: format!("/networks/{network}").into(),
            configured,
            problem: None,
        };
        let problem = Problem {
            path: "/etc/cni/net.d/20.conf".into(),
            reason: "cut off".to_owned(),
        };
        Survey {
            version: SURVEY_VERSION,
            moment: Moment {
                boot_id: "boot".to_owned(),
                since_boot: 100_000,
                unix: NOW,
            },
            configurations: Configurations {
                networks: vec![network(self.shared)],
                problems: self.broken.then_some(problem).into_iter().collect(),
            },
            cache: vec![],
            cache_problems: vec![],
            networks: vec![dir("pods", true), dir("other", false)],
            reservations: self
                .files
                .iter()
                .enumerate()
                .map(|(at, made)| reservation(at, made, first))
                .collect(),
            census: Census::default(),
            views: vec![],
            knowledge: Knowledge::default(),
        }
    }

    /// What the plan may remove, said in the plainest way.
    fn is_free(&self, made: &Made) -> bool {
        let node_is_clear = self.answer == 0 && !self.unread && !self.closed && !self.shared && !self.broken;
        let named = matches!(made.form, 0 | 1);
        let nobody = if named {
            !self.known.contains(&made.id) && !self.calls.iter().any(|(n, _)| *n == made.id)
        } else {
            made.form == 2 && self.include_empty && !self.calls.iter().any(|(_, add)| *add)
        };
        let same = |other: &Made| named && matches!(other.form, 0 | 1) && other.id == made.id;
        let may_live = self
            .files
            .iter()
            .any(|other| same(other) && matches!(other.spot, 2 | 3));
        node_is_clear
            && nobody
            && !may_live
            && made.configured
            && !made.young
            && !made.replaced
            && made.spot > 3
    }
}

fn network(disable_gc: bool) -> Network {
    Network {
        name: "pods".to_owned(),
        file: "/etc/cni/net.d/10.conflist".into(),
        cni_version: "1.0.0".to_owned(),
        disable_gc,
        bridges: vec![],
        ptp: false,
        ipam: vec![],
        plugins: vec![],
    }
}

fn ip(at: usize) -> String {
    format!("10.88.0.{at}")
}

/// Configures an address: on the host, in a sandbox's namespace, with a process, in nobody's; or nowhere.
fn spot(survey: &mut Survey, at: usize, spot: u8) {
    let netns = FileId {
        dev: 4,
        ino: 100 + at as u64,
    };
    match spot {
        0 => survey.views.push(inside(
            HOST,
            None,
            vec![link(3, "cni0")],
            vec![address(&ip(at), 3)],
        )),
        1 => {
            configure(survey, netns, &ip(at), vec![]);
            if let Some(Known::Records(records)) = survey
                .knowledge
                .answers
                .first_mut()
                .map(|answer| &mut answer.known)
            {
                records.push(sandbox(250, netns));
            }
        }
        2 => configure(
            survey,
            netns,
            &ip(at),
            vec![Holder::Process {
                pid: 5,
                comm: "web".to_owned(),
            }],
        ),
        3 => configure(
            survey,
            netns,
            &ip(at),
            vec![Holder::Mount {
                path: "/run/netns/x".into(),
            }],
        ),
        _ => {}
    }
}

fn reservation(at: usize, made: &Made, first: bool) -> Reservation {
    let network = if made.configured { "pods" } else { "other" };
    let age = if made.young { 5 } else { 7200 };
    let named = matches!(made.form, 0 | 1);
    Reservation {
        network: network.into(),
        dir: format!("/networks/{network}").into(),
        file: ip(at).into(),
        ip: ip(at).parse().ok(),
        id: named.then(|| id(made.id).into()),
        ifname: (made.form == 0).then(|| "eth0".into()),
        form: match made.form {
            0 => Form::Modern,
            1 => Form::Legacy,
            2 => Form::Empty,
            3 => Form::Foreign("a note".into()),
            _ => Form::Unread("input/output error".into()),
        },
        identity: FileId {
            dev: 1,
            ino: at as u64 + if made.replaced && first { 1000 } else { 0 },
        },
        mtime: (NOW - age).try_into().unwrap(),
        mtime_nanos: 0,
        age: Some(age),
        size: 70,
        mode: 0o600,
        content: if named { id(made.id).into() } else { "".into() },
        repair: Repair::Move,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_nobody_can_hold_is_planned(world in world()) {
        let policy = Policy { include_empty: world.include_empty, ..Policy::default() };
        let plan = plan(&world.survey(true), &world.survey(false), &policy);
        let named: HashSet<_> = plan.verdicts().iter().map(|verdict| verdict.subject().identity()).collect();
        prop_assert_eq!(named.len(), world.files.len());
        prop_assert_eq!(plan.verdicts().len(), world.files.len());
        for orphan in plan.orphans() {
            prop_assert!(orphan.evidence().iter().all(|said| matches!(said.claim, Claim::Absent(_))));
        }
        for (at, made) in world.files.iter().enumerate() {
            let verdict = plan.verdicts().iter().find(|verdict| *verdict.subject().file == *ip(at)).unwrap();
            let orphan = verdict.kind() == VerdictKind::Orphan;
            prop_assert_eq!(orphan, world.is_free(made), "{}: {:?}", ip(at), verdict.reason());
        }
    }
}
