//! Sources of truth and what they say.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that can know whether an object is in use: a runtime's endpoint, the processes of the node, a
/// directory. Two sources are the same if their names are; a name says what was asked, and where
/// (`cri unix:///run/containerd/containerd.sock`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Source(Arc<str>);

impl Source {
    /// A source of that name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Its name, as it stands in reports.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one source said of one object, with the sentence that a reader gets to see.
///
/// The sentence is shared (`Arc<str>`): a node has tens of thousands of reservations, and most of them are
/// told the same by the same source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "claim", content = "detail", rename_all = "camelCase")]
pub enum Claim {
    /// The source knows the object: it is alive.
    InUse(Arc<str>),
    /// The source answered, in full, and does not know the object.
    Absent(Arc<str>),
    /// The source did not answer, or not in a way that can be relied on. Never argues for removal.
    Unknown(Arc<str>),
}

impl Claim {
    /// The object is in use, because …
    pub fn in_use(detail: impl Into<Arc<str>>) -> Self {
        Self::InUse(detail.into())
    }

    /// The source answered and does not know the object.
    pub fn absent(detail: impl Into<Arc<str>>) -> Self {
        Self::Absent(detail.into())
    }

    /// The source could not answer, because …
    pub fn unknown(detail: impl Into<Arc<str>>) -> Self {
        Self::Unknown(detail.into())
    }

    /// The sentence for the reader.
    pub fn detail(&self) -> &str {
        match self {
            Self::InUse(detail) | Self::Absent(detail) | Self::Unknown(detail) => detail,
        }
    }
}

/// One claim with the source that made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Who was asked.
    pub source: Source,
    /// What it said.
    #[serde(flatten)]
    pub claim: Claim,
}

impl Evidence {
    /// The claim of that source.
    pub fn new(source: &Source, claim: Claim) -> Self {
        Self {
            source: source.clone(),
            claim,
        }
    }
}
