//! From a survey to a plan. Pure: it reads no file and no clock.

use std::collections::HashSet;
use std::time::Duration;

use nodemend_evidence::{Claim, Evidence, Look, Plan, Source, Subject, Verdict, judge};
use nodemend_runtime::Known;

use crate::join::records;
use crate::sandbox::{Sandbox, SandboxIdentity};
use crate::scene::Scene;
use crate::survey::Survey;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The least age of an orphan.
    pub grace: Duration,
    /// End what still runs in sandboxes that no runtime answers for (`--reap`).
    pub reap: bool,
    /// containerd's root was wiped, so its empty answer is the truth (`--records-lost`). This turns nothing but an empty
    /// answer of which nobody can tell whether its database is older than the sandbox: no error, no record, and no answer
    /// of a containerd whose database is provably older.
    pub records_lost: bool,
}

impl Default for Policy {
    /// Ten minutes; nothing is ended, and empty answers need a proof.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(600),
            reap: false,
            records_lost: false,
        }
    }
}

/// Every sandbox of one survey, with what is said of it.
#[derive(Debug)]
pub(crate) struct Looks {
    /// The sources that must all have answered.
    pub(crate) required: Vec<Source>,
    /// The sandboxes that a containerd made.
    pub(crate) ours: Vec<Look<Sandbox>>,
    /// All others, with the reason why they are not ours.
    pub(crate) foreign: Vec<(Sandbox, String)>,
}

/// The source that stands for the earlier look.
fn first_look() -> Source {
    Source::new("first look")
}

pub(crate) fn is_first_look(source: &Source) -> bool {
    *source == first_look()
}

/// Judges every sandbox of the second look, with the first look as one of the sources.
///
/// Both surveys must be of the same node; the second is later. A sandbox is an orphan only if every runtime was asked and
/// none has a record of any of its ids or of its network, if it is of a containerd that was asked, if nothing of it runs
/// or [`Policy::reap`] says to end it, if nobody else uses its network, if it is older than the grace, and if the first
/// look saw the same.
pub fn plan(first: &Survey, second: &Survey, policy: &Policy) -> Plan<Sandbox> {
    let in_use = |look: &Look<Sandbox>| {
        look.evidence
            .iter()
            .any(|one| matches!(one.claim, Claim::InUse(_)))
    };
    let earlier = Scene::of(first, policy).looks().ours.into_iter();
    let earlier: HashSet<SandboxIdentity> = earlier
        .filter(|look| !in_use(look))
        .map(|look| look.subject.identity())
        .collect();
    let mut looks = Scene::of(second, policy).looks();
    looks.required.push(first_look());
    let foreign = looks
        .foreign
        .into_iter()
        .map(|(sandbox, reason)| Verdict::foreign(sandbox, reason));
    let ours = looks.ours.into_iter().map(|mut look| {
        let seen = earlier.contains(&look.subject.identity());
        look.evidence
            .push(Evidence::new(&first_look(), first_claim(seen)));
        judge(look.subject, &looks.required, look.evidence)
    });
    let mut verdicts: Vec<_> = ours.chain(foreign).collect();
    verdicts.sort_by(|a, b| a.subject().id.cmp(&b.subject().id));
    Plan::new(verdicts)
}

fn first_claim(seen: bool) -> Claim {
    if seen {
        Claim::absent("nobody answered for it in the first look either")
    } else {
        Claim::unknown(
            "in the first look it was not there, or not the same, or somebody could have answered for it; run again",
        )
    }
}

/// The looks of a third survey, taken under the lock, for [`nodemend_evidence::Orphan::confirm`]. The plan that is being
/// carried out is the earlier look.
pub(crate) fn looks_again(survey: &Survey, policy: &Policy) -> Looks {
    let mut looks = Scene::of(survey, policy).looks();
    looks.required.push(first_look());
    for look in &mut looks.ours {
        let planned = Claim::absent("it was planned as an orphan");
        look.evidence.push(Evidence::new(&first_look(), planned));
    }
    looks
}

/// The keys of all sandboxes that carry no time of their own.
pub(crate) fn ageless(survey: &Survey) -> Vec<String> {
    let policy = Policy::default();
    let scene = Scene::of(survey, &policy);
    let ageless = scene.subjects().filter(|subject| subject.sandbox.age.is_none());
    ageless.map(|subject| sighting_key(&subject.sandbox)).collect()
}

/// The name under which a sandbox's first sighting is kept.
pub(crate) fn sighting_key(sandbox: &Sandbox) -> String {
    let netns = sandbox.network.as_ref().map(|network| network.netns.to_string());
    format!("sandbox {} {}", sandbox.id, netns.unwrap_or_default())
}

/// How many sandboxes the runtimes have on record as ready.
pub fn live_sandboxes(survey: &Survey) -> usize {
    let ready = records(survey).filter(|record| record.state.as_deref() == Some("SANDBOX_READY"));
    ready
        .map(|record| record.id.as_str())
        .collect::<HashSet<_>>()
        .len()
}

/// The sources that did not answer, each as a sentence: while there is one, nothing is an orphan. An empty answer that is
/// not believed is none of them: what it is worth differs from one sandbox to the next.
pub fn silent(survey: &Survey) -> Vec<String> {
    let policy = Policy::default();
    let scene = Scene::of(survey, &policy);
    let answers = survey
        .knowledge
        .answers
        .iter()
        .filter(|answer| scene.index.is_record(&answer.source));
    let silent = answers.filter_map(|answer| match &answer.known {
        Known::Unknown(reason) => Some(format!("{}: {reason}", answer.source)),
        Known::Records(_) | Known::Doubted(_) | Known::NotOffered(_) => None,
    });
    let unread = survey.census.unread.iter().take(1).cloned();
    silent
        .chain(unread)
        .chain(survey.leftovers.unread.iter().cloned())
        .collect()
}

#[cfg(test)]
mod node;
#[cfg(test)]
mod runc;
#[cfg(test)]
mod tests;
