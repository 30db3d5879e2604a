//! What a report on sandboxes says beyond each of them.

use nodemend_evidence::{Claim, Plan, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claims::Sources;
use crate::describe;
use crate::sandbox::Sandbox;

/// What a report on sandboxes says beyond each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The sandboxes that no runtime has on record and that still run something.
    pub forgotten: Vec<Forgotten>,
}

/// A sandbox that no runtime has on record and that still runs something. Its verdict is `live`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// The line that names it.
    pub title: String,
    /// What runs in it: command lines, memory, where it listens.
    pub running: String,
    /// Whether its pod runs again.
    pub pod: String,
    /// Why `--reap` would not end it, each source in its words. Empty if it would.
    pub doubts: Vec<String>,
}

impl Details {
    /// Of a plan.
    pub fn of(plan: &Plan<Sandbox>) -> Self {
        let processes = Sources::new();
        let forgotten = plan.verdicts().iter().filter_map(|verdict| {
            let in_use = |claim: &Claim| matches!(claim, Claim::InUse(_));
            let mut keep = verdict
                .evidence()
                .iter()
                .filter(|one| in_use(&one.claim))
                .peekable();
            keep.peek()?;
            let alone = keep.all(|one| one.source == *processes.processes());
            alone.then(|| Forgotten::of(verdict))
        });
        Self {
            forgotten: forgotten.collect(),
        }
    }

    /// The first lines of a report for people.
    pub fn lines(&self) -> Vec<String> {
        let (ready, doubtful): (Vec<_>, Vec<_>) =
            self.forgotten.iter().partition(|one| one.doubts.is_empty());
        let mut lines = Vec::new();
        for (these, what) in [
            (ready, "on record; --reap ends what runs:"),
            (
                doubtful,
                "on record, as far as can be known; not even --reap would end what runs:",
            ),
        ] {
            match these.len() {
                0 => continue,
                1 => lines.push(format!("1 sandbox runs that no runtime has {what}")),
                many => lines.push(format!("{many} sandboxes run that no runtime has {what}")),
            }
            lines.extend(these.into_iter().flat_map(Forgotten::lines));
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines
    }
}

impl Forgotten {
    fn of(verdict: &Verdict<Sandbox>) -> Self {
        let sandbox = verdict.subject();
        let unknown = verdict
            .evidence()
            .iter()
            .filter(|one| matches!(one.claim, Claim::Unknown(_)));
        // What it said in the first look is for the plan to compare: there it was in use, too.
        let unknown = unknown.filter(|one| !crate::judge::is_first_look(&one.source));
        Self {
            title: describe::title(sandbox),
            running: describe::processes(sandbox).unwrap_or_default(),
            pod: describe::twin(sandbox),
            doubts: unknown
                .map(|one| format!("{}: {}", one.source, one.claim.detail()))
                .collect(),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("FORGOTTEN  {}", self.title),
            format!("    runs      {}", self.running),
            format!("    the pod   {}", self.pod),
        ];
        lines.extend(self.doubts.iter().map(|doubt| format!("    UNKNOWN   {doubt}")));
        lines
    }
}
