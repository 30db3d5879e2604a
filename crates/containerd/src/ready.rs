//! Waiting until containerd and kubelet answer.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a runtime said when it was ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `containerd`.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// `v1` or `v1alpha2`.
    pub api: String,
    /// Milliseconds that were waited.
    pub waited_ms: u64,
}

/// Where kubelet tells its health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "healthz", content = "at", rename_all = "camelCase")]
pub enum Healthz {
    /// There.
    At(SocketAddr),
    /// It is turned off (`healthzPort: 0`).
    Off,
}

impl Default for Healthz {
    /// kubelet's default, 127.0.0.1:10248.
    fn default() -> Self {
        Self::At(SocketAddr::from(([127, 0, 0, 1], 10248)))
    }
}

/// Waits until the CRI on a socket answers Version and Status and says that the runtime is ready; v1alpha2 is asked where
/// there is no v1.
///
/// # Errors
/// [`Error::NotReady`] after the deadline, with what was said last.
pub fn wait_for_cri(socket: &Path, deadline: Duration) -> Result<Ready, Error> {
    let _ = (socket, deadline);
    todo!()
}

/// Waits until kubelet's healthz answers 200. Returns how long that took.
///
/// # Errors
/// [`Error::NotReady`] after the deadline, with what was said last; at once if healthz is off.
pub fn wait_for_kubelet(healthz: &Healthz, deadline: Duration) -> Result<Duration, Error> {
    let _ = (healthz, deadline);
    todo!()
}
