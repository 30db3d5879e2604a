//! From claims to a verdict.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim::{Claim, Evidence, Source};
use crate::proof::Orphan;

/// A thing that can be judged.
pub trait Subject {
    /// What makes it this thing and no other, beyond its name: a veth's ifindex, address and namespaces; a
    /// file's inode and content. Compared again before anything is removed.
    type Identity: Clone + Eq + Hash + fmt::Debug;

    /// Its identity, as seen in this look.
    fn identity(&self) -> Self::Identity;

    /// One line that names it to a reader. May hold bytes from hostile places: whoever prints it escapes it.
    fn title(&self) -> String;

    /// What a repair would do to it, as one sentence without a full stop.
    fn action(&self) -> String;
}

/// What is large is kept once, for the look, the plan and the report.
impl<T: Subject> Subject for Arc<T> {
    type Identity = T::Identity;

    fn identity(&self) -> T::Identity {
        (**self).identity()
    }

    fn title(&self) -> String {
        (**self).title()
    }

    fn action(&self) -> String {
        (**self).action()
    }
}

/// The four verdicts, without what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VerdictKind {
    /// In use: at least one source knows it.
    Live,
    /// Not ours to judge: its form says that something else made it.
    Foreign,
    /// No source knows it, but not every required source answered.
    Undecided,
    /// Every required source answered, and none knows it.
    Orphan,
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "LIVE",
            Self::Foreign => "FOREIGN",
            Self::Undecided => "UNDECIDED",
            Self::Orphan => "ORPHAN",
        })
    }
}

/// An object that stays, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// The object.
    pub subject: T,
    /// Why it stays, in one sentence.
    pub reason: Arc<str>,
    /// Who said what.
    pub evidence: Arc<[Evidence]>,
}

/// What follows from the claims.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// At least one source knows it.
    Live(Kept<T>),
    /// A required source did not answer.
    Undecided(Kept<T>),
    /// Something else made it.
    Foreign(Kept<T>),
    /// Nobody owns it, and everybody was asked.
    Orphan(Orphan<T>),
}

impl<T> Verdict<T> {
    /// The verdict on an object whose form says that it is not ours: no source needs to be asked.
    pub fn foreign(subject: T, reason: impl Into<Arc<str>>) -> Self {
        Self::Foreign(Kept {
            subject,
            reason: reason.into(),
            evidence: Arc::default(),
        })
    }

    /// Which of the four it is.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Live(_) => VerdictKind::Live,
            Self::Undecided(_) => VerdictKind::Undecided,
            Self::Foreign(_) => VerdictKind::Foreign,
            Self::Orphan(_) => VerdictKind::Orphan,
        }
    }

    /// The object that was judged.
    pub fn subject(&self) -> &T {
        match self {
            Self::Live(kept) | Self::Undecided(kept) | Self::Foreign(kept) => &kept.subject,
            Self::Orphan(orphan) => orphan.subject(),
        }
    }

    /// Who said what.
    pub fn evidence(&self) -> &[Evidence] {
        self.said()
    }

    pub(crate) fn said(&self) -> &Arc<[Evidence]> {
        match self {
            Self::Live(kept) | Self::Undecided(kept) | Self::Foreign(kept) => &kept.evidence,
            Self::Orphan(orphan) => &orphan.evidence,
        }
    }

    /// The lists that other verdicts may have too.
    pub(crate) fn shared(&mut self) -> (&mut Arc<[Evidence]>, Option<&mut Arc<[Source]>>) {
        match self {
            Self::Live(kept) | Self::Undecided(kept) | Self::Foreign(kept) => (&mut kept.evidence, None),
            Self::Orphan(orphan) => (&mut orphan.evidence, Some(&mut orphan.required)),
        }
    }

    /// Why it is kept; nothing for an orphan.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Live(kept) | Self::Undecided(kept) | Self::Foreign(kept) => Some(&kept.reason),
            Self::Orphan(_) => None,
        }
    }
}

/// Judges an object by what was said of it.
///
/// - any `InUse`, from a required source or not: [`Verdict::Live`];
/// - `required` is empty, or one of them said `Unknown`, or said nothing: [`Verdict::Undecided`];
/// - otherwise [`Verdict::Orphan`]. `Unknown` from a source that is not required is shown, and decides nothing.
///
/// ```compile_fail
/// // There is no other way to an orphan than a judgement.
/// let orphan = nodemend_evidence::Orphan { subject: "veth0", required: vec![], evidence: vec![] };
/// ```
pub fn judge<T>(subject: T, required: &[Source], grounds: Vec<Evidence>) -> Verdict<T> {
    if let Some(known) = grounds.iter().find(|e| matches!(e.claim, Claim::InUse(_))) {
        let reason = sentence(known);
        return Verdict::Live(Kept {
            subject,
            reason,
            evidence: grounds.into(),
        });
    }
    if let Some(reason) = doubt(required, &grounds) {
        return Verdict::Undecided(Kept {
            subject,
            reason,
            evidence: grounds.into(),
        });
    }
    Verdict::Orphan(Orphan::proven(subject, required.into(), grounds.into()))
}

/// Why the claims are not enough, if they are not.
fn doubt(required: &[Source], grounds: &[Evidence]) -> Option<Arc<str>> {
    if required.is_empty() {
        return Some("no source of truth was required, so nothing is proven".into());
    }
    for source in required {
        let mut said = grounds.iter().filter(|e| e.source == *source).peekable();
        if said.peek().is_none() {
            return Some(format!("{source}: was not asked").into());
        }
        if let Some(silent) = said.find(|e| matches!(e.claim, Claim::Unknown(_))) {
            return Some(sentence(silent));
        }
    }
    None
}

fn sentence(evidence: &Evidence) -> Arc<str> {
    format!("{}: {}", evidence.source, evidence.claim.detail()).into()
}
