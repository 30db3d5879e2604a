//! The one rule, whatever the mix of claims: what somebody uses, or what a required source did not answer for, is
//! never planned; what was surveyed is reported once.

use nodemend_evidence::{
    Claim, Evidence, Lock, Look, Outcome, Plan, Report, Source, Subject, Verdict, VerdictKind, judge,
};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Thing {
    name: usize,
    inode: u64,
}

impl Subject for Thing {
    type Identity = (usize, u64);
    fn identity(&self) -> Self::Identity {
        (self.name, self.inode)
    }
    fn title(&self) -> String {
        format!("thing {}", self.name)
    }
    fn action(&self) -> String {
        "remove it".into()
    }
}

struct Guard;
impl Lock for Guard {}

fn source(n: u8) -> Source {
    Source::new(format!("source {n}"))
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        1 => Just(Claim::in_use("mine")),
        3 => Just(Claim::absent("never heard of it")),
        1 => Just(Claim::unknown("timed out")),
    ]
}

fn evidence() -> impl Strategy<Value = Vec<Evidence>> {
    prop::collection::vec((0u8..5, claim()), 0..8).prop_map(|said| {
        said.into_iter()
            .map(|(n, claim)| Evidence::new(&source(n), claim))
            .collect()
    })
}

fn required() -> impl Strategy<Value = Vec<Source>> {
    prop::collection::vec(0u8..5, 0..4).prop_map(|ns| ns.into_iter().map(source).collect())
}

/// The rule in its own words, written apart from the code that implements it.
fn may_go(required: &[Source], said: &[Evidence]) -> bool {
    let absent = |source: &Source| {
        let mut of = said
            .iter()
            .filter(|evidence| evidence.source == *source)
            .peekable();
        of.peek().is_some() && of.all(|evidence| matches!(evidence.claim, Claim::Absent(_)))
    };
    !required.is_empty()
        && required.iter().all(absent)
        && !said
            .iter()
            .any(|evidence| matches!(evidence.claim, Claim::InUse(_)))
}

proptest! {
    #[test]
    fn only_what_every_required_source_denies_is_planned(required in required(), said in evidence()) {
        let verdict = judge(Thing { name: 0, inode: 1 }, &required, said.clone());
        prop_assert_eq!(verdict.kind() == VerdictKind::Orphan, may_go(&required, &said));
        prop_assert_eq!(verdict.evidence(), &said[..], "no claim is lost on the way to the report");
    }

    #[test]
    fn a_second_look_can_only_take_back(
        required in required(), first in evidence(), second in evidence(), inode in 1u64..3,
    ) {
        if let Verdict::Orphan(orphan) = judge(Thing { name: 0, inode: 1 }, &required, first) {
            let again = Look { subject: Thing { name: 0, inode }, evidence: second.clone() };
            let confirmed = orphan.confirm(&Guard, &[], again).is_ok();
            prop_assert_eq!(confirmed, inode == 1 && may_go(&required, &second));
        }
    }

    #[test]
    fn every_object_is_reported_exactly_once(
        required in required(), all in prop::collection::vec(evidence(), 0..20),
    ) {
        let verdicts = all.iter().enumerate().map(|(name, said)| judge(Thing { name, inode: 1 }, &required, said.clone()));
        let plan = Plan::new(verdicts.collect());
        let report = Report::of_plan("ThingReport", &plan);
        let names: Vec<usize> = report.items.iter().map(|item| item.subject.name).collect();
        prop_assert_eq!(names, (0..all.len()).collect::<Vec<_>>());
        let summary = report.summary;
        prop_assert_eq!(summary.live + summary.foreign + summary.undecided + summary.orphans, all.len());
    }
}

#[test]
fn a_source_that_answers_in_one_look_only_confirms_nothing() {
    let asked = [source(1), source(2)];
    let both: Vec<_> = asked
        .iter()
        .map(|s| Evidence::new(s, Claim::absent("no")))
        .collect();
    let Verdict::Orphan(orphan) = judge(Thing { name: 0, inode: 1 }, &asked, both.clone()) else {
        panic!("an orphan")
    };
    let again = Look {
        subject: Thing { name: 0, inode: 1 },
        evidence: both[..1].to_vec(),
    };
    // The second look does not even require source 2 any more: its socket may be gone. The first look did.
    let kept = orphan.confirm(&Guard, &asked[..1], again).unwrap_err();
    assert_eq!(&*kept.reason, "source 2: was not asked");
}

#[test]
fn outcomes_are_entered_by_identity_and_decide_what_changed() {
    let orphan = |inode| {
        let said = vec![Evidence::new(&source(1), Claim::absent("no"))];
        judge(Thing { name: 0, inode }, &[source(1)], said)
    };
    let plan = Plan::new(vec![orphan(1), orphan(2)]);
    let report = Report::of_plan("ThingReport", &plan);
    assert!(report.dry_run && !report.changed);
    let report = report.with_outcomes(vec![
        ((0, 2), Outcome::Mended("gone".into())),
        ((0, 1), Outcome::AlreadyGone),
    ]);
    assert_eq!(report.items[0].outcome, Some(Outcome::AlreadyGone));
    assert!(report.changed && !report.dry_run);
}

#[test]
fn a_plan_is_refused_whole_never_cut() {
    let orphan = |name| {
        judge(
            Thing { name, inode: 1 },
            &[source(1)],
            vec![Evidence::new(&source(1), Claim::absent("no"))],
        )
    };
    let plan = Plan::new(vec![orphan(0), orphan(1)]);
    assert!(plan.check(Some(2), 5).is_ok());
    assert!(plan.check(Some(1), 0).is_err());
    assert!(
        plan.check(None, 0).is_ok(),
        "a node without a living sandbox may be cleared"
    );
    let refusal = plan.check(None, 3).unwrap_err().to_string();
    assert!(refusal.contains("--limit 2"), "{refusal}");
}
