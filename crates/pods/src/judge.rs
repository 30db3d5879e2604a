//! From surveys to a plan. Pure: it reads no file and no clock.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use nodemend_evidence::{Claim, Evidence, Look, Plan, Source, Subject, judge};

use crate::pod::{PodDir, PodIdentity};
use crate::scene::{SETTLED, Scene};
use crate::survey::Survey;
use crate::uid::Uid;

/// What the operator decided.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The least age of an orphan: the time since the newest change of the directory and its first two levels.
    pub grace: Duration,
    /// How long kubelet must have run before its list counts. Before its sources are ready the list is a part of it only.
    pub settled: Duration,
    /// The operator says that kubelet is down (`--kubelet-down`): its list is not needed then. Static pods stay.
    pub kubelet_down: bool,
    /// Only these may go (`--from-log`). Never widens a plan.
    pub only: Option<BTreeSet<Uid>>,
}

impl Default for Policy {
    /// Fifteen minutes, and five for kubelet; kubelet must answer, or the API server.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(900),
            settled: SETTLED,
            kubelet_down: false,
            only: None,
        }
    }
}

/// Every pod directory of one survey, with what is said of it.
#[derive(Debug)]
pub(crate) struct Looks {
    /// The sources that must all have answered.
    pub(crate) required: Vec<Source>,
    /// The directories.
    pub(crate) pods: Vec<Look<Arc<PodDir>>>,
}

/// What had no known owner in the first look: all of it that a plan needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownerless(HashSet<PodIdentity>);

impl Ownerless {
    /// Of the first look.
    pub fn of(first: &Survey, policy: &Policy) -> Self {
        let scene = Scene::of(first, policy);
        let no_owner = |pod: &&Arc<PodDir>| {
            let said = scene.evidence(pod);
            !said.iter().any(|said| matches!(said.claim, Claim::InUse(_)))
        };
        let pods = first.layout.pods.iter().filter(no_owner);
        Self(pods.map(Subject::identity).collect())
    }
}

/// Judges every pod directory of the second look, with the first look as one of the sources.
///
/// Both looks must be of the same node; the second is later. A directory is an orphan only if kubelet, or the API server
/// in its place, answered and does not know the pod; no runtime has a record of it, or every runtime is provably dead; no
/// process belongs to it or works in it; nobody else has something of it mounted; no device stands on it; it is older
/// than the grace; and the first look saw the same directory as ownerless.
pub fn plan(first: &Ownerless, second: &Survey, policy: &Policy) -> Plan<Arc<PodDir>> {
    let source = first_look();
    let seen = Claim::absent("nobody owned it in the first look either");
    let unseen =
        Claim::unknown("in the first look it was not there, or somebody could have owned it; run again");
    let scene = Scene::of(second, policy);
    let mut required = scene.required();
    required.push(source.clone());
    let verdicts = scene.looks().map(|mut look| {
        let claim = if first.0.contains(&look.subject.identity) {
            &seen
        } else {
            &unseen
        };
        look.evidence.push(Evidence::new(&source, claim.clone()));
        judge(look.subject, &required, look.evidence)
    });
    verdicts.collect()
}

fn first_look() -> Source {
    Source::new("first look")
}

/// The looks of a third survey, taken under the lock, for [`nodemend_evidence::Orphan::confirm`]. The plan that is being
/// carried out is the earlier look.
pub(crate) fn looks_again(survey: &Survey, policy: &Policy) -> Looks {
    let scene = Scene::of(survey, policy);
    let mut looks = Looks {
        required: scene.required(),
        pods: scene.looks().collect(),
    };
    let source = first_look();
    let planned = Claim::absent("it was planned as an orphan");
    looks.required.push(source.clone());
    for look in &mut looks.pods {
        look.evidence.push(Evidence::new(&source, planned.clone()));
    }
    looks
}

#[cfg(test)]
mod tests;
