//! kubelet's clean-up, run inside the node: a mount is seen, and holds, only in its own mount namespace.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Doing, LabError, Result};
use crate::kubelet::gc::{self, Era, Pass};
use crate::kubelet::{CONTROL, PODS};
use crate::node::Node;
use crate::tools;

impl Node {
    /// Lets kubelet of that era clean up once, after the pods that it was last told of.
    ///
    /// # Errors
    ///
    /// When there are no pod directories.
    pub fn housekeeping(&self, era: Era) -> Result<Pass> {
        let lab = tools::lab_binary()?;
        let said = self.exec(&[&lab.to_string_lossy(), "housekeeping", era.name()])?;
        serde_json::from_str(&said).map_err(|error| LabError::Odd(format!("no pass ({error}): {said}")))
    }

    /// Lets it clean up for ever, at this interval (a real one waits 2 s); its process id inside.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn keep_house(&self, era: Era, every: Duration) -> Result<u32> {
        let lab = tools::lab_binary()?;
        let every = every.as_millis().to_string();
        self.spawn(&[
            &lab.to_string_lossy(),
            "housekeeping",
            era.name(),
            "--every",
            &every,
        ])
    }
}

/// The subcommand: one round, as JSON, or rounds for ever.
///
/// # Errors
///
/// When kubelet's list or the pod directories cannot be read.
pub fn run(era: &str, every: Option<u64>) -> Result<()> {
    let era = Era::named(era).ok_or_else(|| LabError::Odd(format!("no era: {era}")))?;
    let Some(every) = every else {
        let done = round(era)?;
        let said = serde_json::to_string(&done).doing(|| "write the pass".to_owned())?;
        return writeln!(std::io::stdout(), "{said}").doing(|| "say what was done".to_owned());
    };
    loop {
        round(era)?;
        sleep(Duration::from_millis(every));
    }
}

fn round(era: Era) -> Result<Pass> {
    let list = Path::new(CONTROL).join("pods.json");
    let text = std::fs::read_to_string(&list).at("read", &list)?;
    let list: Value = serde_json::from_str(&text).doing(|| "read kubelet's list".to_owned())?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known: BTreeSet<String> = items
        .iter()
        .filter_map(|item| item["metadata"]["uid"].as_str().map(str::to_owned))
        .collect();
    gc::pass(era, Path::new(PODS), &known).at("clean up in", Path::new(PODS))
}
