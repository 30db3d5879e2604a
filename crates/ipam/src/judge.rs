//! From surveys to a plan. Pure: it reads no file and no clock.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use nodemend_evidence::{Claim, Evidence, Look, Plan, Source, Subject, Verdict, judge};

use crate::reservation::{Reservation, ReservationIdentity};
use crate::scene::Scene;
use crate::survey::Survey;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The least age of an orphan.
    pub grace: Duration,
    /// Judge empty files too, by all sources but those that need an id (`--include-empty`).
    pub include_empty: bool,
}

impl Default for Policy {
    /// Ten minutes; empty files stay.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(600),
            include_empty: false,
        }
    }
}

/// Every reservation of one survey, with what is said of it.
#[derive(Debug)]
pub(crate) struct Looks {
    /// The sources that must all have answered.
    pub(crate) required: Vec<Source>,
    /// The files that this node's host-local may have made.
    pub(crate) ours: Vec<Look<Reservation>>,
    /// All others, with the reason why they are not ours.
    pub(crate) foreign: Vec<(Reservation, Arc<str>)>,
}

/// Judges every reservation of the second look, with the first look as one of the sources.
///
/// Both surveys must be of the same node; the second is later. A reservation is an orphan only if its file is of
/// host-local's own form and in a directory that this node's configuration names; no runtime knows its id; no
/// plugin works for it; its address is configured nowhere; it is older than the grace; and the first look saw the
/// same file as ownerless.
pub fn plan(first: &Survey, second: &Survey, policy: &Policy) -> Plan<Reservation> {
    let earlier = ownerless(first, policy);
    let source = first_look();
    let seen = Claim::absent("nobody owned it in the first look either");
    let unseen =
        Claim::unknown("in the first look it was not there, or somebody could have owned it; run again");
    let Looks {
        mut required,
        ours,
        foreign,
    } = Scene::of(second, policy).looks();
    required.push(source.clone());
    let mut verdicts: Vec<_> = ours
        .into_iter()
        .map(|mut look| {
            let claim = if earlier.contains(&look.subject.identity()) {
                &seen
            } else {
                &unseen
            };
            look.evidence.push(Evidence::new(&source, claim.clone()));
            judge(look.subject, &required, look.evidence)
        })
        .collect();
    verdicts.extend(
        foreign
            .into_iter()
            .map(|(reservation, reason)| Verdict::foreign(reservation, reason)),
    );
    verdicts.sort_by(|a, b| order(a.subject()).cmp(&order(b.subject())));
    Plan::new(verdicts)
}

fn first_look() -> Source {
    Source::new("first look")
}

/// What had no known owner in a look.
fn ownerless(survey: &Survey, policy: &Policy) -> HashSet<ReservationIdentity> {
    let looks = Scene::of(survey, policy).looks().ours.into_iter();
    let no_owner = |look: &Look<Reservation>| {
        !look
            .evidence
            .iter()
            .any(|said| matches!(said.claim, Claim::InUse(_)))
    };
    looks
        .filter(no_owner)
        .map(|look| look.subject.identity())
        .collect()
}

/// By directory and address; what is no address comes last.
fn order(reservation: &Reservation) -> impl Ord + '_ {
    (
        &reservation.dir,
        reservation.ip.is_none(),
        reservation.ip,
        &reservation.file,
    )
}

/// The looks of a third survey, taken under the lock, for [`nodemend_evidence::Orphan::confirm`]. The plan that is
/// being carried out is the earlier look.
pub(crate) fn looks_again(survey: &Survey, policy: &Policy) -> Looks {
    let mut looks = Scene::of(survey, policy).looks();
    let source = first_look();
    let planned = Claim::absent("it was planned as an orphan");
    looks.required.push(source.clone());
    for look in &mut looks.ours {
        look.evidence.push(Evidence::new(&source, planned.clone()));
    }
    looks
}
