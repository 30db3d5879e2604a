//! The report: one document, the same for people and for programs.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim::Evidence;
use crate::plan::{Plan, Summary};
use crate::verdict::{Subject, VerdictKind};

/// The version of every report. Within v1 fields are only added.
pub const API_VERSION: &str = "nodemend/v1";

/// What became of an object of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", content = "detail", rename_all = "camelCase")]
pub enum Outcome {
    /// Mended, and verified; the detail says how.
    Mended(String),
    /// It went by itself before it was touched.
    AlreadyGone,
    /// The second look said no; nothing was done to it.
    Refused(String),
    /// The attempt failed; the detail says at what, and what state it is in.
    Failed(String),
    /// The run ended (a signal, or an earlier failure) before its turn.
    NotTried,
}

/// One object of the survey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item<T> {
    /// One line that names it.
    pub title: String,
    /// The verdict.
    pub verdict: VerdictKind,
    /// Why it is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What is known of the object itself.
    pub subject: T,
    /// Who was asked, and what they said.
    pub evidence: Arc<[Evidence]>,
    /// What a repair does to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<String>,
    /// What was done to it, if anything was tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<Outcome>,
}

/// A whole report. Holds every object of the survey exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report<T> {
    /// [`API_VERSION`].
    pub api_version: String,
    /// What it reports on: `VethReport`, `IpamReport`.
    pub kind: String,
    /// True if nothing was to be changed: the plan.
    pub dry_run: bool,
    /// True if anything on the node was changed.
    pub changed: bool,
    /// The counts of the verdicts, as judged before anything was done.
    pub summary: Summary,
    /// Why nothing, or not everything, was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// Every object.
    pub items: Vec<Item<T>>,
}

impl<T: Subject + Clone> Report<T> {
    /// The report on a plan that was not carried out.
    pub fn of_plan(kind: &str, plan: &Plan<T>) -> Self {
        let items = plan
            .verdicts()
            .iter()
            .map(|verdict| Item {
                title: verdict.subject().title(),
                verdict: verdict.kind(),
                reason: verdict.reason().map(str::to_owned),
                subject: verdict.subject().clone(),
                evidence: Arc::clone(verdict.said()),
                action: (verdict.kind() == VerdictKind::Orphan).then(|| verdict.subject().action()),
                outcome: None,
            })
            .collect();
        Self {
            api_version: API_VERSION.to_owned(),
            kind: kind.to_owned(),
            dry_run: true,
            changed: false,
            summary: plan.summary(),
            refused: None,
            items,
        }
    }

    /// Enters what was done. Outcomes are matched to items by identity; an item without one stays as it is.
    pub fn with_outcomes(mut self, outcomes: Vec<(T::Identity, Outcome)>) -> Self {
        let mut outcomes: std::collections::HashMap<_, _> = outcomes.into_iter().collect();
        self.dry_run = false;
        for item in self
            .items
            .iter_mut()
            .filter(|item| item.verdict == VerdictKind::Orphan)
        {
            item.outcome = outcomes.remove(&item.subject.identity());
        }
        self.changed = self
            .items
            .iter()
            .any(|item| matches!(item.outcome, Some(Outcome::Mended(_))));
        self
    }
}
