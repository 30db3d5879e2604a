//! What a tool must be able to do.

use std::sync::atomic::AtomicBool;

use nodemend_evidence::{Orphan, Outcome, Plan, Report, Subject};
use nodemend_hostfs::HostLock;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A tool that surveys, plans and repairs. [`crate::run`] does everything else.
pub trait Repair {
    /// What it judges.
    type Subject: Subject + Clone + Serialize;
    /// What it reads.
    type Survey: Serialize + DeserializeOwned;
    /// What a plan needs of the first look: the whole of it, or less where a look is large.
    type First;
    /// What its report says beyond the objects.
    type Details: Serialize;

    /// The name of the tool, and what its objects are called: `("mend-veth", "veth pairs")`.
    fn names(&self) -> (&'static str, &'static str);
    /// The kind of its report and, with `Recording` in place of `Report`, of its recordings.
    fn kind(&self) -> &'static str;
    /// Takes one look.
    ///
    /// # Errors
    /// If the look could not be taken at all.
    fn survey(&mut self) -> anyhow::Result<Self::Survey>;
    /// Keeps of the first look what a plan needs.
    fn first(&self, survey: Self::Survey) -> Self::First;
    /// Judges two looks.
    fn plan(&self, first: &Self::First, second: &Self::Survey) -> Plan<Self::Subject>;
    /// How many live owners the look knows, to tell a plan that would take everything.
    fn alive(&self, survey: &Self::Survey) -> usize;
    /// The sources that did not answer, each as a sentence.
    fn silent(&self, survey: &Self::Survey) -> Vec<String>;
    /// What the report says beyond the objects.
    fn details(&self, survey: &Self::Survey, plan: &Plan<Self::Subject>) -> Self::Details;
    /// The first lines of the text report.
    fn headlines(&self, _details: &Self::Details, _report: &Report<Self::Subject>) -> Vec<String> {
        Vec::new()
    }
    /// What the repair would do to an orphan of this look, as one sentence without a full stop.
    fn action(&self, _survey: &Self::Survey, subject: &Self::Subject) -> String {
        subject.action()
    }
    /// What needs a second yes, as a sentence.
    fn dangerous(&self) -> Option<&'static str> {
        None
    }
    /// Removes what is confirmed by another look under the lock.
    ///
    /// # Errors
    /// If nothing could be tried.
    fn apply(
        &mut self,
        orphans: Vec<Orphan<Self::Subject>>,
        lock: &HostLock,
        working: Working<'_>,
    ) -> anyhow::Result<Vec<(<Self::Subject as Subject>::Identity, Outcome)>>;
}

/// What a repair at work is told, and tells.
pub struct Working<'a> {
    /// Set when a signal asks it to end after the object in hand.
    pub stop: &'a AtomicBool,
    /// To be called with the number of objects done.
    pub progress: &'a mut (dyn FnMut(usize) + Send),
}

/// For a report that says nothing beyond its objects.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct NoDetails {}
