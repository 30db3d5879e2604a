//! What a repair writes down before each step.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nodemend_hostfs::{FileId, Journal};
use nodemend_procns::NetnsId;
use serde::Serialize;

use crate::error::Error;
use crate::sandbox::SandboxMount;

/// One line of the journal. A process that was ended and a namespace that was released cannot be brought back; the line
/// says what they were.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    tool: &'static str,
    /// Seconds since 1970.
    at: u64,
    sandbox: &'a str,
    #[serde(flatten)]
    step: Step<'a>,
}

/// One step.
#[derive(Debug, Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Step<'a> {
    /// The DEL of a cached attachment, and with it the cache file.
    Detach { network: &'a str, file: &'a Path },
    /// A signal, to processes by pid and start time.
    Signal {
        signal: &'static str,
        processes: Vec<(u32, u64)>,
    },
    /// The call to containerd that removes a task.
    DeleteTask { endpoint: &'a Path, id: &'a str },
    /// The `delete` command of a shim.
    DeleteByShim { program: &'a Path, bundle: &'a Path },
    /// The end of a shim.
    EndShim { pid: u32, start_time: u64 },
    /// The socket of a shim that has ended.
    RemoveSocket { path: &'a Path },
    /// A mount.
    Unmount { mount: &'a SandboxMount },
    /// The file of a network namespace, with the mounts on it.
    ReleaseNetns { path: &'a Path, netns: NetnsId },
    /// An empty cgroup.
    RemoveCgroup { path: PathBuf },
    /// A bundle, the work directory of one, or what runc keeps of a container.
    RemoveDirectory { path: &'a Path, dir: FileId },
}

/// The journal, shared by the repairs of a run.
pub(crate) struct Log<'a>(Mutex<&'a mut Journal>);

impl<'a> Log<'a> {
    pub(crate) fn new(journal: &'a mut Journal) -> Self {
        Self(Mutex::new(journal))
    }

    /// The journal for one sandbox.
    pub(crate) fn of<'s>(&'s self, sandbox: &'s str) -> Steps<'s, 'a> {
        Steps { log: self, sandbox }
    }
}

/// The journal, for one sandbox.
#[derive(Clone, Copy)]
pub(crate) struct Steps<'s, 'a> {
    log: &'s Log<'a>,
    sandbox: &'s str,
}

impl Steps<'_, '_> {
    /// Writes a step down. It must not happen if this fails.
    pub(crate) fn write(self, step: Step<'_>) -> Result<(), Error> {
        let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let entry = Entry {
            tool: "mend-sandboxes",
            at: u64::try_from(wall.tv_sec).unwrap_or_default(),
            sandbox: self.sandbox,
            step,
        };
        let mut journal = self.log.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(journal.append(&entry)?)
    }
}
