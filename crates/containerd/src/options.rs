//! What a run is told besides what it saw.

use std::ffi::OsString;
use std::time::Duration;

use nodemend_runtime::{DEFAULT_DEADLINE, Discovery};

/// How a run works.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command that removes the old root: a program and its arguments. It gets none from here, and finds the root by the
    /// file of the run.
    pub remover: Vec<OsString>,
    /// How long a service may take to stop.
    pub stop_within: Duration,
    /// How long a service may take to start.
    pub start_within: Duration,
    /// How long containerd's CRI and kubelet's healthz, each, may take to answer.
    pub ready_within: Duration,
    /// How long each source may take when leftovers are looked for.
    pub deadline: Duration,
    /// The time between the two looks that a leftover must be seen in.
    pub settle: Duration,
    /// Which runtimes are asked about leftovers: all of the node.
    pub discovery: Discovery,
}

impl Default for Options {
    /// No remover; 90 s for each service, as systemd's own default; 2 min until each answers.
    fn default() -> Self {
        Self {
            remover: Vec::new(),
            stop_within: Duration::from_secs(90),
            start_within: Duration::from_secs(90),
            ready_within: Duration::from_secs(120),
            deadline: DEFAULT_DEADLINE,
            settle: Duration::from_secs(2),
            discovery: Discovery::default(),
        }
    }
}
