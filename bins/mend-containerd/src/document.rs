//! The report, as `--output json` prints it. Within v1 fields are only added.

use nodemend_containerd::{Look, Needed, Next, PodChoice, Refusal, Removal, Run, RunPlan, Status, Step};
use nodemend_evidence::API_VERSION;
use schemars::JsonSchema;
use serde::Serialize;

/// The report of a run, of its plan, or of its status.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdReport {
    /// `nodemend/v1`.
    pub api_version: String,
    /// `ContainerdReport`.
    pub kind: String,
    /// True if nothing was to be changed.
    pub dry_run: bool,
    /// True if anything was changed.
    pub changed: bool,
    /// How many steps are in each state.
    pub summary: Summary,
    /// Whether there is anything to mend. None where nobody looked: in a status, a resumed run, a roll-back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<Needed>,
    /// What becomes of running pods, if that is decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodChoice>,
    /// The steps, in order.
    pub items: Vec<StepItem>,
    /// Why nothing may be done.
    pub refusals: Vec<Refusal>,
    /// What was seen before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<Box<Look>>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Box<Run>>,
    /// How far the removal of the old root is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
    /// What `--resume` would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<Next>,
    /// What `--roll-back` would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roll_back: Option<Next>,
    /// What became of the root and the services, if they were brought back to what they were.
    pub back: Vec<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The signal that ended the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
}

/// How many steps are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Would be done.
    pub planned: usize,
    /// Done.
    pub done: usize,
    /// Begun, and not ended.
    pub failed: usize,
    /// Not begun.
    pub not_tried: usize,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepItem {
    /// Its number, from 1.
    pub number: usize,
    /// Which.
    pub step: Step,
    /// What becomes of it.
    pub state: State,
    /// What it would do, or did.
    pub what: Vec<String>,
    /// Seconds that it would take, at least and at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<(u64, u64)>,
    /// Seconds that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It would be done.
    Planned,
    /// It is done.
    Done,
    /// It was begun, and not ended.
    Failed,
    /// It was not begun.
    NotTried,
}

impl ContainerdReport {
    fn new(dry_run: bool, items: Vec<StepItem>) -> Self {
        let count = |state| items.iter().filter(|item| item.state == state).count();
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "ContainerdReport".to_owned(),
            dry_run,
            changed: false,
            summary: Summary {
                planned: count(State::Planned),
                done: count(State::Done),
                failed: count(State::Failed),
                not_tried: count(State::NotTried),
            },
            needed: None,
            pods: None,
            items,
            refusals: Vec::new(),
            look: None,
            run: None,
            removal: None,
            resume: None,
            roll_back: None,
            back: Vec::new(),
            error: None,
            signal: None,
        }
    }

    /// Of a plan.
    pub(crate) fn of_plan(dry_run: bool, look: Look, plan: RunPlan) -> Self {
        let state = match dry_run {
            true => State::Planned,
            false => State::NotTried,
        };
        let items = plan.steps.into_iter().map(|step| StepItem {
            number: step.number,
            step: step.step,
            state,
            what: step.what,
            expected_seconds: step.seconds,
            seconds: None,
        });
        Self {
            needed: Some(plan.needed),
            pods: plan.pods,
            refusals: plan.refusals,
            look: Some(Box::new(look)),
            ..Self::new(dry_run, items.collect())
        }
    }

    /// Of a run, with what can be done about it.
    pub(crate) fn of_status(dry_run: bool, status: Status) -> Self {
        let items = Step::ALL.map(|step| item(&status.run, step)).to_vec();
        Self {
            pods: Some(status.run.pods),
            removal: Some(status.removal),
            resume: Some(status.resume),
            roll_back: Some(status.roll_back),
            run: Some(Box::new(status.run)),
            ..Self::new(dry_run, items)
        }
    }

    /// Of a run whose file could not be written.
    pub(crate) fn of_run(run: Run) -> Self {
        let items = Step::ALL.map(|step| item(&run, step)).to_vec();
        Self {
            pods: Some(run.pods),
            run: Some(Box::new(run)),
            ..Self::new(false, items)
        }
    }

    /// Where there was no run.
    pub(crate) fn empty(dry_run: bool) -> Self {
        Self::new(dry_run, Vec::new())
    }
}

fn item(run: &Run, step: Step) -> StepItem {
    let record = run.steps.iter().find(|record| record.step == step);
    let state = match record {
        None => State::NotTried,
        Some(record) if record.done.is_none() => State::Failed,
        Some(_) => State::Done,
    };
    let took = record.and_then(|record| record.done.as_ref()?.since(&record.begun));
    StepItem {
        number: step.number(),
        step,
        state,
        what: record.map(|record| record.said.clone()).unwrap_or_default(),
        expected_seconds: None,
        seconds: took.map(|took| took.as_secs()),
    }
}
