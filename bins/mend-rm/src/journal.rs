//! The journal of removals: a line before each, a line after it. There is no undo; the lines say what was there.

use nodemend_hostfs::{BootClock, Error, FileId, Journal, Moment, StateDir};
use nodemend_rmtree::Tree;
use serde::Serialize;

use crate::document::Outcome;
use crate::words::text;

/// One line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    tool: &'static str,
    /// `remove` before it, `removed` after it.
    action: &'static str,
    at: Moment,
    path: String,
    identity: FileId,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a Outcome>,
}

/// What is written down of one removal.
pub(crate) struct Entries {
    journal: Option<Journal>,
    clock: BootClock,
    path: String,
    identity: FileId,
}

impl Entries {
    /// Writes the line before a removal. The second value is why there is no journal, if the removal may go on without.
    ///
    /// The other tools do nothing that they cannot write down. But a full disk is what this one is for, and what it does
    /// cannot be undone from a journal: it goes on where the only trouble is that there is no room.
    pub(crate) fn begin(state: &StateDir, tree: &Tree) -> anyhow::Result<(Self, Option<String>)> {
        let mut entries = Self {
            journal: None,
            clock: BootClock::new()?,
            path: text(tree.path()),
            identity: tree.id(),
        };
        let opened = state.journal().and_then(|journal| {
            entries.journal = Some(journal);
            entries.write("remove", None)
        });
        match opened {
            Ok(()) => Ok((entries, None)),
            Err(error) if is_full(&error) => {
                entries.journal = None;
                Ok((entries, Some(error.to_string())))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the line after it.
    pub(crate) fn end(mut self, outcome: &Outcome) -> Result<(), Error> {
        self.write("removed", Some(outcome))
    }

    fn write(&mut self, action: &'static str, outcome: Option<&Outcome>) -> Result<(), Error> {
        let entry = Entry {
            tool: "mend-rm",
            action,
            at: self.clock.now(),
            path: self.path.clone(),
            identity: self.identity,
            outcome,
        };
        match &mut self.journal {
            Some(journal) => journal.append(&entry),
            None => Ok(()),
        }
    }
}

fn is_full(error: &Error) -> bool {
    match error {
        Error::Io { source, .. } => matches!(
            source.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        ),
        Error::TooLarge { .. }
        | Error::NotAFile { .. }
        | Error::MountTable { .. }
        | Error::Locked { .. }
        | Error::State { .. }
        | Error::NoScopedOpen { .. } => false,
    }
}
