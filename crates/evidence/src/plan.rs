//! The plan: every object of a survey, judged.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proof::Orphan;
use crate::verdict::{Verdict, VerdictKind};

/// Every object of one survey, each exactly once, with its verdict. The orphans among them are what a repair
/// would remove.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan<T> {
    verdicts: Vec<Verdict<T>>,
}

/// How many objects got which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// In use.
    pub live: usize,
    /// Not ours.
    pub foreign: usize,
    /// Not proven either way.
    pub undecided: usize,
    /// Proven to belong to nobody.
    pub orphans: usize,
}

/// Why a plan must not be carried out, however well each of its parts is proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `--limit`: more than the caller is ready to remove. A plan is refused whole, never cut.
    #[error(
        "the plan removes {planned} objects, and the limit is {limit}: nothing was done. Read the plan, then raise --limit"
    )]
    OverLimit {
        /// How many the plan removes.
        planned: usize,
        /// How many were allowed.
        limit: usize,
    },
    /// Everything would go although something of the kind lives: a sign that the sources and the objects do
    /// not speak of the same node.
    #[error(
        "the plan removes all {planned} objects, yet {alive} live sandboxes should own some of them: nothing was done. If that is right, repeat with --limit {planned}"
    )]
    Everything {
        /// How many the plan removes.
        planned: usize,
        /// How many owners are alive.
        alive: usize,
    },
}

/// Keeps each list of evidence once as it comes: of ten thousand orphans most are told the same.
impl<T> FromIterator<Verdict<T>> for Plan<T> {
    fn from_iter<I: IntoIterator<Item = Verdict<T>>>(verdicts: I) -> Self {
        let (mut said, mut required) = (HashSet::new(), HashSet::new());
        let once = |mut verdict: Verdict<T>| {
            let (evidence, sources) = verdict.shared();
            share(&mut said, evidence);
            if let Some(sources) = sources {
                share(&mut required, sources);
            }
            verdict
        };
        Self {
            verdicts: verdicts.into_iter().map(once).collect(),
        }
    }
}

fn share<T: Eq + Hash>(known: &mut HashSet<Arc<[T]>>, list: &mut Arc<[T]>) {
    match known.get(list) {
        Some(same) => *list = Arc::clone(same),
        None => {
            known.insert(Arc::clone(list));
        }
    }
}

impl<T> Plan<T> {
    /// A plan of these verdicts.
    pub fn new(verdicts: Vec<Verdict<T>>) -> Self {
        verdicts.into_iter().collect()
    }

    /// Every verdict, in the order of the survey.
    pub fn verdicts(&self) -> &[Verdict<T>] {
        &self.verdicts
    }

    /// The objects that the plan removes.
    pub fn orphans(&self) -> impl Iterator<Item = &Orphan<T>> {
        self.verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Orphan(orphan) => Some(orphan),
            Verdict::Live(_) | Verdict::Undecided(_) | Verdict::Foreign(_) => None,
        })
    }

    /// The counts.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for verdict in &self.verdicts {
            *match verdict.kind() {
                VerdictKind::Live => &mut summary.live,
                VerdictKind::Foreign => &mut summary.foreign,
                VerdictKind::Undecided => &mut summary.undecided,
                VerdictKind::Orphan => &mut summary.orphans,
            } += 1;
        }
        summary
    }

    /// Checks the size of the plan. `alive` is the number of live owners (sandboxes with a network) on the node.
    ///
    /// # Errors
    /// [`Refusal::OverLimit`] if it removes more than `limit`; [`Refusal::Everything`] if no limit is given and
    /// nothing of the kind would be left while owners are alive.
    pub fn check(&self, limit: Option<usize>, alive: usize) -> Result<(), Refusal> {
        let summary = self.summary();
        let planned = summary.orphans;
        match limit {
            Some(limit) if planned > limit => Err(Refusal::OverLimit { planned, limit }),
            None if planned > 0 && alive > 0 && summary.live == 0 && summary.undecided == 0 => {
                Err(Refusal::Everything { planned, alive })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes out of the plan what goes.
    pub fn into_orphans(self) -> Vec<Orphan<T>> {
        self.verdicts
            .into_iter()
            .filter_map(|verdict| match verdict {
                Verdict::Orphan(orphan) => Some(orphan),
                Verdict::Live(_) | Verdict::Undecided(_) | Verdict::Foreign(_) => None,
            })
            .collect()
    }
}
