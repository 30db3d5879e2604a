//! A service and its manager: systemd, or commands that the operator gave.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Who starts and stops a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "manager", rename_all = "camelCase")]
pub enum Manager {
    /// systemd, through `systemctl`.
    Systemd,
    /// `--stop-command` and `--start-command`, run by `sh -c`.
    Commands {
        /// Stops the service.
        stop: String,
        /// Starts it.
        start: String,
    },
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The unit: `containerd.service`. With [`Manager::Commands`] a name for messages.
    pub name: String,
    /// Who starts and stops it.
    pub manager: Manager,
}

/// What a manager says of a service. With [`Manager::Commands`] nothing but the process is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceState {
    /// systemd's LoadState: `loaded`, `not-found`, `masked`.
    pub load: Option<String>,
    /// ActiveState: `active`, `activating`, `inactive`, `failed`.
    pub active: Option<String>,
    /// SubState: `running`, `auto-restart`, `dead`.
    pub sub: Option<String>,
    /// Result of the last run: `success`, `exit-code`, `signal`, `core-dump`, `start-limit-hit`.
    pub result: Option<String>,
    /// NRestarts: how often systemd restarted it by itself since somebody started it. systemd tells since 235.
    pub restarts: Option<u64>,
    /// The main process, if it runs.
    pub main_pid: Option<u32>,
    /// Seconds since it became active, by the clock that a change of the wall clock does not move. None if it is not
    /// active.
    pub active_for: Option<u64>,
    /// KillMode: with `process` (containerd's own unit) a stop leaves the shims and what runs in the containers.
    pub kill_mode: Option<String>,
    /// The command line of the unit, if it has one.
    pub exec_start: Vec<String>,
    /// The file of the unit.
    pub unit_file: Option<PathBuf>,
}

impl Service {
    /// What is known of it now. A unit that does not exist has the load state `not-found`.
    ///
    /// # Errors
    /// If systemctl cannot be run, fails, or does not answer within 5 s.
    pub fn state(&self) -> Result<ServiceState, Error> {
        todo!()
    }

    /// Stops it, and waits until it has ended.
    ///
    /// # Errors
    /// If it did not stop within the deadline; with what it is now.
    pub fn stop(&self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Starts it, and waits until the manager says that it is started. That is no readiness: see
    /// [`wait_for_cri`](crate::wait_for_cri).
    ///
    /// # Errors
    /// If it did not start within the deadline; with what it is now, and the end of its journal.
    pub fn start(&self, deadline: Duration) -> Result<(), Error> {
        let _ = deadline;
        todo!()
    }

    /// Clears the failures that systemd counts: a unit that hit its start limit refuses to start otherwise. Nothing with
    /// [`Manager::Commands`].
    ///
    /// # Errors
    /// As [`Service::state`].
    pub fn reset_failed(&self) -> Result<(), Error> {
        todo!()
    }
}

impl ServiceState {
    /// True if there is no such unit.
    pub fn is_absent(&self) -> bool {
        self.load.as_deref() == Some("not-found")
    }

    /// True if its main process runs, or systemd is about to start it.
    pub fn is_up(&self) -> bool {
        self.main_pid.is_some()
            || matches!(
                self.active.as_deref(),
                Some("active" | "activating" | "reloading")
            )
    }
}
