//! From a survey to a plan. Pure: it reads no file and no clock.

use std::collections::HashSet;
use std::time::Duration;

use nodemend_evidence::{Claim, Evidence, Look, Plan, Source, Subject, Verdict, judge};

use crate::pair::{VethIdentity, VethPair};
use crate::scene::Scene;
use crate::survey::Survey;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The least age of an orphan.
    pub grace: Duration,
    /// Cut pairs from processes that no runtime answers for, by removing their links (`--cut-running`).
    pub cut_running: bool,
}

impl Default for Policy {
    /// Ten minutes; nothing is cut.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(600),
            cut_running: false,
        }
    }
}

/// Every veth of one survey, with what is said of it.
#[derive(Debug)]
pub(crate) struct Looks {
    /// The sources that must all have answered.
    pub(crate) required: Vec<Source>,
    /// The veths that this node's CNI configuration may have made.
    pub(crate) ours: Vec<Look<VethPair>>,
    /// All others, with the reason why they are not ours.
    pub(crate) foreign: Vec<(VethPair, &'static str)>,
}

/// The source that stands for the earlier look.
fn first_look() -> Source {
    Source::new("first look")
}

/// Judges every veth of the second look, with the first look as one of the sources.
///
/// Both surveys must be of the same node; the second is later. A pair is an orphan only if both proofs of where
/// it leads agree, no runtime and no process answers for that namespace, it is older than the grace, and the
/// first look saw the same pair as ownerless.
pub fn plan(first: &Survey, second: &Survey, policy: &Policy) -> Plan<VethPair> {
    let earlier: HashSet<VethIdentity> = Scene::of(first, policy)
        .looks()
        .ours
        .into_iter()
        .filter(|look| {
            !look
                .evidence
                .iter()
                .any(|evidence| matches!(evidence.claim, Claim::InUse(_)))
        })
        .map(|look| look.subject.identity())
        .collect();
    let mut looks = Scene::of(second, policy).looks();
    looks.required.push(first_look());
    let foreign = looks
        .foreign
        .into_iter()
        .map(|(pair, reason)| Verdict::foreign(pair, reason));
    let ours = looks.ours.into_iter().map(|mut look| {
        let seen = earlier.contains(&look.subject.identity());
        look.evidence
            .push(Evidence::new(&first_look(), first_claim(seen)));
        judge(look.subject, &looks.required, look.evidence)
    });
    let mut verdicts: Vec<_> = ours.chain(foreign).collect();
    verdicts.sort_by_key(|verdict| verdict.subject().ifindex);
    Plan::new(verdicts)
}

fn first_claim(seen: bool) -> Claim {
    if seen {
        Claim::absent("nobody owned it in the first look either")
    } else {
        Claim::unknown("in the first look it was not there, or somebody could have owned it; run again")
    }
}

/// The looks of a third survey, taken under the lock, for [`nodemend_evidence::Orphan::confirm`]. The plan that is
/// being carried out is the earlier look.
pub(crate) fn looks_again(survey: &Survey, policy: &Policy) -> Looks {
    let mut looks = Scene::of(survey, policy).looks();
    looks.required.push(first_look());
    for look in &mut looks.ours {
        look.evidence.push(Evidence::new(
            &first_look(),
            Claim::absent("it was planned as an orphan"),
        ));
    }
    looks
}

/// The keys of all pairs that carry no time of their own.
pub(crate) fn ageless(survey: &Survey) -> Vec<String> {
    Scene::of(survey, &Policy::default())
        .ageless()
        .map(|pair| sighting_key(&pair))
        .collect()
}

/// The name under which a pair's first sighting is kept.
pub(crate) fn sighting_key(pair: &VethPair) -> String {
    let netns = pair.netns.map(|netns| netns.to_string());
    format!(
        "veth {} {} {} {}",
        pair.ifindex,
        pair.name,
        pair.mac,
        netns.unwrap_or_default()
    )
}
