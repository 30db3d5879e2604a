//! The DEL of each attachment of a sandbox, replayed from libcni's cache.

use std::slice;

use nodemend_cni::{CacheEntry, Replay};
use nodemend_evidence::Confirmed;
use nodemend_hostfs::{FileId, Host};

use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::Sandbox;

/// What came of the DELs.
#[derive(Debug, Default)]
pub(crate) struct Detached {
    /// How many succeeded. Their cache files are gone.
    pub(crate) done: usize,
    /// Why the others did not, each in a sentence.
    pub(crate) failed: Vec<String>,
}

/// Repeats each DEL. One that fails stops nothing: the cache file stays, and what it would have freed.
///
/// # Errors
/// Only if the journal cannot be written.
pub(crate) fn detach(
    proof: &Confirmed<'_, Sandbox>,
    replay: &Replay,
    steps: Steps<'_, '_>,
) -> Result<Detached, Error> {
    let mut detached = Detached::default();
    for entry in &proof.subject().attachments {
        if let Some(reason) = refusal(proof.subject(), entry) {
            detached.failed.push(reason);
            continue;
        }
        steps.write(Step::Detach {
            network: &entry.network,
            file: &entry.path,
        })?;
        match replay.delete(&Host::local(), entry, slice::from_ref(proof)) {
            Ok(()) => detached.done += 1,
            Err(error) => detached.failed.push(error.to_string()),
        }
    }
    Ok(detached)
}

/// Why a DEL must not be tried. The plugins enter whatever namespace the cached path leads to.
fn refusal(sandbox: &Sandbox, entry: &CacheEntry) -> Option<String> {
    let file = entry.path.display();
    if !entry.replayable {
        return Some(format!(
            "{file}: holds no configuration, so its DEL cannot be repeated"
        ));
    }
    // Nothing there is well: then the DEL frees what needs no namespace.
    let there = rustix::fs::stat(&entry.netns).ok()?;
    let own = sandbox.network.as_ref().map(|network| network.netns);
    (own != Some(FileId::from(&there)))
        .then(|| format!("{file}: {} is another namespace now", entry.netns.display()))
}
