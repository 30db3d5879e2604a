//! What a repair writes down before each step.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;
use nodemend_hostfs::{Journal, text};
use serde::Serialize;

use crate::error::Error;
use crate::uid::Uid;

/// One line of the journal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    tool: &'static str,
    run: &'a str,
    /// Seconds since 1970.
    at: u64,
    pod: &'a Uid,
    #[serde(flatten)]
    step: Step<'a>,
}

/// One step, with what is needed to undo it where it can be undone.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Step<'a> {
    /// Undone by mounting the source again.
    Unmount { mount: &'a Mount },
    /// Undone by `losetup NODE BACKING`.
    Detach {
        #[serde(serialize_with = "text::serialize")]
        node: &'a Path,
        #[serde(serialize_with = "text::serialize")]
        backing: &'a Path,
    },
    /// Adds a copy; undone by removing it.
    Archive {
        #[serde(serialize_with = "text::serialize")]
        to: &'a Path,
    },
    /// Undone by `restore`, which finds it by its manifest.
    Quarantine {
        #[serde(serialize_with = "text::serialize")]
        from: PathBuf,
        #[serde(serialize_with = "text::serialize")]
        to: PathBuf,
    },
    /// Adds a copy of a file that goes; `restore` finds it by its manifest.
    Keep {
        #[serde(serialize_with = "text::serialize")]
        from: PathBuf,
        #[serde(serialize_with = "text::serialize")]
        to: PathBuf,
    },
    /// An empty directory; undone by making it again.
    RemoveDirectory {
        #[serde(serialize_with = "text::serialize")]
        path: PathBuf,
    },
    /// An empty file, a device file, or one that was kept before.
    RemoveFile {
        #[serde(serialize_with = "text::serialize")]
        path: PathBuf,
    },
    /// Undone by making it again.
    RemoveLink {
        #[serde(serialize_with = "text::serialize")]
        path: PathBuf,
        #[serde(serialize_with = "text::serialize")]
        target: PathBuf,
    },
    /// All that is left there: nothing that has no other copy, unless the caller accepted that.
    RemoveTree {
        #[serde(serialize_with = "text::serialize")]
        path: PathBuf,
    },
}

/// The journal, for one pod.
pub(crate) struct Steps<'a> {
    pub(crate) journal: &'a mut Journal,
    pub(crate) run: &'a str,
    pub(crate) uid: Uid,
}

impl Steps<'_> {
    /// Writes a step down. It must not happen if this fails.
    pub(crate) fn write(&mut self, step: Step<'_>) -> Result<(), Error> {
        self.write_all([step])
    }

    /// Writes several steps down at once.
    pub(crate) fn write_all<'s>(&mut self, steps: impl IntoIterator<Item = Step<'s>>) -> Result<(), Error> {
        let at = now();
        let entries = steps.into_iter().map(|step| Entry {
            tool: "mend-pods",
            run: self.run,
            at,
            pod: &self.uid,
            step,
        });
        Ok(self.journal.append_all(entries)?)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(wall.tv_sec).unwrap_or_default()
}

/// A path as it lies below another, or itself.
pub(crate) fn below<'a>(path: &'a Path, top: &Path) -> &'a Path {
    path.strip_prefix(top).unwrap_or(path)
}

/// The last name of a path that has one.
pub(crate) fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}
