//! `mend-ipam undo`.

use std::path::PathBuf;

use clap::Args;
use nodemend_cli::{Exit, Output, fail, say, start};
use nodemend_hostfs::StateDir;
use nodemend_ipam::{UndoReport, runs, undo};

#[derive(Args)]
pub(crate) struct Undo {
    /// The run, as `mend-ipam undo` lists it
    run: Option<String>,

    /// Where the copies are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nodemend")]
    state_dir: PathBuf,

    /// How the report is written to stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Undo {
    /// 0 if all of it is back; 4 if some of it could not be put back.
    pub(crate) fn run(&self) -> Exit {
        start(0);
        let state = StateDir::at(&self.state_dir);
        let done = match &self.run {
            Some(run) => self.put_back(&state, run),
            None => self.list(&state),
        };
        done.unwrap_or_else(|error| fail(&error))
    }

    fn list(&self, state: &StateDir) -> anyhow::Result<Exit> {
        let runs = runs(state)?;
        match self.output {
            Output::Json => say(&serde_json::to_string_pretty(&runs)?)?,
            Output::Text if runs.is_empty() => say("There is no run to undo.")?,
            Output::Text => say(&runs.join("\n"))?,
        }
        Ok(Exit::Success)
    }

    fn put_back(&self, state: &StateDir, run: &str) -> anyhow::Result<Exit> {
        let report = undo(state, run)?;
        match self.output {
            Output::Json => say(&serde_json::to_string_pretty(&report)?)?,
            Output::Text => say(&text(&report))?,
        }
        Ok(if report.kept.is_empty() {
            Exit::Success
        } else {
            Exit::Partly
        })
    }
}

fn text(report: &UndoReport) -> String {
    let mut lines: Vec<String> = report
        .restored
        .iter()
        .map(|path| format!("BACK      {}", path.display()))
        .collect();
    lines.extend(
        report
            .kept
            .iter()
            .map(|(path, why)| format!("NOT BACK  {}  {why}", path.display())),
    );
    lines.push(format!(
        "{} put back, {} not",
        report.restored.len(),
        report.kept.len()
    ));
    lines.join("\n")
}
