//! What a removal came to, in words.

use std::path::Path;

use nodemend_evidence::Outcome;

use crate::error::Error;
use crate::netdir::Removal;

/// What became of an attachment's CNI DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replayed {
    /// There was none to run.
    Not,
    /// It succeeded.
    Done,
    /// It did not, because … The cache entry stays.
    Failed(String),
}

/// What became of a reservation, after the DEL of its attachment and the look at its file.
pub(crate) fn outcome(replayed: &Replayed, removed: Result<Removal, Error>, undo: &Path) -> Outcome {
    let kept = undo.display();
    match (replayed, removed) {
        (Replayed::Not, Ok(Removal::Removed)) => Outcome::Mended(format!("the file was moved to {kept}")),
        (Replayed::Not, Ok(Removal::Gone)) => Outcome::AlreadyGone,
        (Replayed::Done, Ok(Removal::Gone)) => Outcome::Mended(format!(
            "CNI DEL from libcni's cache freed it; a copy of the file is in {kept}"
        )),
        (Replayed::Done, Err(Error::NotTheSame { .. })) => Outcome::Mended(format!(
            "CNI DEL from libcni's cache freed it, and it is given out again; a copy is in {kept}"
        )),
        (Replayed::Done, Ok(Removal::Removed)) => Outcome::Mended(format!(
            "CNI DEL succeeded and left the file, which was then moved to {kept}"
        )),
        (Replayed::Failed(why), Ok(Removal::Removed)) => Outcome::Mended(format!(
            "the file was moved to {kept}; its CNI DEL was not carried through, so port mappings may be left, and the cache entry stays: {why}"
        )),
        (Replayed::Failed(why), Ok(Removal::Gone)) => Outcome::Mended(format!(
            "CNI DEL freed it and then failed, so the cache entry stays: {why}"
        )),
        (Replayed::Failed(why), Err(error)) => Outcome::Failed(format!(
            "{error}; its CNI DEL was not carried through either: {why}"
        )),
        (Replayed::Not | Replayed::Done, Err(error)) => Outcome::Failed(error.to_string()),
    }
}
