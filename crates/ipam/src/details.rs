//! What a report on reservations says beyond each of them.

use nodemend_evidence::Plan;
use schemars::JsonSchema;
use serde::Serialize;

use crate::findings::{Finding, findings};
use crate::reservation::Reservation;
use crate::survey::Survey;
use crate::usage::{NetworkUsage, usage};

/// What a report on reservations says beyond each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// How full each network is.
    pub networks: Vec<NetworkUsage>,
    /// What a person should look at, and no removal mends.
    pub findings: Vec<Finding>,
    /// The name of this run, for `undo`.
    pub run: String,
}

impl Details {
    /// The details of a plan, for a run of this name.
    pub fn of(survey: &Survey, plan: &Plan<Reservation>, run: &str) -> Self {
        Self {
            networks: usage(survey, plan),
            findings: findings(survey),
            run: run.to_owned(),
        }
    }
}
