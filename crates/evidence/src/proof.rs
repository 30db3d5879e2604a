//! The two proofs: of a judgement, and of a second look under a lock.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::claim::{Evidence, Source};
use crate::verdict::{Kept, Subject, Verdict, judge};

/// A guard that keeps every other run away from the objects for as long as it lives: the host lock, or the
/// lock file that the owner of the objects uses itself. Implemented by guards only, never by the thing locked.
pub trait Lock {}

/// An object that nobody owns, with the proof. Made by [`judge`] alone; neither `Clone` nor `Deserialize`.
#[derive(Debug, PartialEq, Eq)]
pub struct Orphan<T> {
    subject: T,
    pub(crate) required: Arc<[Source]>,
    pub(crate) evidence: Arc<[Evidence]>,
}

/// What a later look at the same object gave.
#[derive(Clone, Debug)]
pub struct Look<T> {
    /// The object as it is now.
    pub subject: T,
    /// What is said of it now.
    pub evidence: Vec<Evidence>,
}

impl<T> Orphan<T> {
    pub(crate) fn proven(subject: T, required: Arc<[Source]>, evidence: Arc<[Evidence]>) -> Self {
        Self {
            subject,
            required,
            evidence,
        }
    }

    /// The object.
    pub fn subject(&self) -> &T {
        &self.subject
    }

    /// Who said what.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Gives the proof up and keeps the object.
    pub fn release(self, reason: impl Into<Arc<str>>) -> Kept<T> {
        Kept {
            subject: self.subject,
            reason: reason.into(),
            evidence: self.evidence,
        }
    }
}

impl<T: Subject> Orphan<T> {
    /// Turns the proof into what removal functions accept, by a second look under a lock.
    ///
    /// The object must have the same identity as when it was judged, and every source that was required then,
    /// and every one in `required` now, must have answered again, none of them knowing it.
    ///
    /// # Errors
    /// Gives the object back, with the reason, if it changed or is an orphan no longer.
    pub fn confirm<'l>(
        self,
        _lock: &'l impl Lock,
        required: &[Source],
        again: Look<T>,
    ) -> Result<Confirmed<'l, T>, Kept<T>> {
        let orphan = judged_again(&self.subject, &self.required, required, again)?;
        Ok(Confirmed {
            subject: orphan.subject,
            required: orphan.required,
            evidence: orphan.evidence,
            lock: PhantomData,
        })
    }
}

/// A later look at the same object must have found an orphan, by what was required before and what is required now.
fn judged_again<T: Subject>(
    before: &T,
    required_before: &[Source],
    required: &[Source],
    again: Look<T>,
) -> Result<Orphan<T>, Kept<T>> {
    if again.subject.identity() != before.identity() {
        return Err(Kept {
            subject: again.subject,
            reason: "it is not the same object any more: it was replaced since the first look".into(),
            evidence: again.evidence.into(),
        });
    }
    let mut sources = required_before.to_vec();
    sources.extend(required.iter().filter(|s| !required_before.contains(s)).cloned());
    match judge(again.subject, &sources, again.evidence) {
        Verdict::Orphan(orphan) => Ok(orphan),
        Verdict::Live(kept) | Verdict::Undecided(kept) | Verdict::Foreign(kept) => Err(kept),
    }
}

/// Proof that an object was an orphan twice, the second time under a lock that is still held.
///
/// Removal functions take it by value, so one proof is good for one removal, and it cannot outlive its lock:
///
/// ```compile_fail
/// use nodemend_evidence::Confirmed;
/// fn remove(_: Confirmed<'_, String>) {}
/// // A name is not a proof.
/// remove("veth7817d4e7".to_string());
/// ```
///
/// ```compile_fail
/// use nodemend_evidence::Confirmed;
/// fn remove(_: Confirmed<'_, String>) {}
/// fn twice(proof: Confirmed<'_, String>) {
///     remove(proof);
///     remove(proof); // one proof, one removal
/// }
/// ```
///
/// ```compile_fail
/// use nodemend_evidence::{Confirmed, Lock, Look, Orphan, Subject};
/// struct Guard;
/// impl Lock for Guard {}
/// fn outlives<T: Subject>(orphan: Orphan<T>, look: Look<T>) -> Confirmed<'static, T> {
///     let guard = Guard;
///     orphan.confirm(&guard, &[], look).ok().unwrap() // the guard is gone when this returns
/// }
/// ```
#[derive(Debug)]
pub struct Confirmed<'l, T> {
    subject: T,
    required: Arc<[Source]>,
    evidence: Arc<[Evidence]>,
    lock: PhantomData<&'l ()>,
}

impl<T> Confirmed<'_, T> {
    /// The object to remove.
    pub fn subject(&self) -> &T {
        &self.subject
    }

    /// Makes sure that a proof still holds that had to wait, by another look under the same lock.
    ///
    /// # Errors
    /// As [`Orphan::confirm`].
    pub fn still(&self, required: &[Source], again: Look<T>) -> Result<(), Kept<T>>
    where
        T: Subject,
    {
        judged_again(&self.subject, &self.required, required, again).map(drop)
    }

    /// What the second look said, for the journal.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }
}
