//! A look at the node's containerd by the library, from inside; as JSON.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use nodemend_containerd::{LookOptions, Manager, Service};
use nodemend_hostfs::Host;

use crate::error::{Doing, LabError, Result};

/// Prints what is seen of a containerd that no systemd manages.
pub fn run(config: Option<PathBuf>) -> Result<()> {
    let service = |name: &str| Service {
        name: name.to_owned(),
        manager: Manager::Commands {
            stop: "false".to_owned(),
            start: "false".to_owned(),
        },
    };
    let options = LookOptions {
        config,
        containerd: service("containerd"),
        kubelet: Some(service("kubelet")),
        deadline: Duration::from_secs(3),
        ..LookOptions::default()
    };
    let look = nodemend_containerd::look(&Host::local(), &options)
        .map_err(|error| LabError::Odd(error.to_string()))?;
    let json = serde_json::to_vec(&look).map_err(|error| LabError::Odd(error.to_string()))?;
    std::io::stdout()
        .write_all(&json)
        .doing(|| "print the look".to_owned())
}
