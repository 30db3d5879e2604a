//! `mend-pods restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use nodemend_cli::{Exit, Output, fail, say, start};
use nodemend_hostfs::{Host, StateDir};
use nodemend_pods::{Kept, QUARANTINE, RestoreReport, find_root, restorable, restore};
use nodemend_procns::Census;

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// What to put back: a name as `mend-pods restore` lists it, NAME/NUMBER for one thing of it, or the UID of a pod
    name: Option<String>,

    /// Put it below DIR instead of where it was
    #[arg(long, value_name = "DIR", requires = "name")]
    to: Option<PathBuf>,

    /// The quarantine, if the repair was given another one
    #[arg(long, value_name = "DIR")]
    quarantine_dir: Vec<PathBuf>,

    /// kubelet's root. By default what the running kubelet was told, else /var/lib/kubelet
    #[arg(long, value_name = "DIR")]
    kubelet_root: Option<PathBuf>,

    /// Where the lock, the journal and copies of records are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nodemend")]
    state_dir: PathBuf,

    /// How the report is written to stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Restore {
    /// 0 if all of it is back; 4 if some of it could not be put back.
    pub(crate) fn run(&self) -> Exit {
        start(0);
        let state = StateDir::at(&self.state_dir);
        let done = self.quarantines().and_then(|quarantines| match &self.name {
            Some(name) => self.put_back(&state, &quarantines, name),
            None => self.list(&state, &quarantines),
        });
        done.unwrap_or_else(|error| fail(&error))
    }

    /// Those that were given, and the usual one in kubelet's root.
    fn quarantines(&self) -> anyhow::Result<Vec<PathBuf>> {
        let root = match &self.kubelet_root {
            Some(root) => root.clone(),
            None => {
                let host = Host::local();
                let census = Census::take(&host)?;
                find_root(&host, &census, None)?.path
            }
        };
        let mut all = self.quarantine_dir.clone();
        all.push(root.join(QUARANTINE));
        Ok(all)
    }

    fn list(&self, state: &StateDir, quarantines: &[PathBuf]) -> anyhow::Result<Exit> {
        let kept = restorable(state, quarantines)?;
        match self.output {
            Output::Json => say(&serde_json::to_string_pretty(&kept)?)?,
            Output::Text if kept.is_empty() => say("There is nothing to put back.")?,
            Output::Text => say(&kept.iter().map(line).collect::<Vec<_>>().join("\n"))?,
        }
        Ok(Exit::Success)
    }

    fn put_back(&self, state: &StateDir, quarantines: &[PathBuf], name: &str) -> anyhow::Result<Exit> {
        let report = restore(state, quarantines, name, self.to.as_deref())?;
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

fn line(kept: &Kept) -> String {
    let (entry, item) = (&kept.entry, &kept.item.name);
    format!("{entry}/{item}  {}", shown(&kept.was))
}

fn text(report: &RestoreReport) -> String {
    let back = report
        .restored
        .iter()
        .map(|(_, to)| format!("BACK      {}", shown(to)));
    let kept = report
        .kept
        .iter()
        .map(|(at, why)| format!("NOT BACK  {}  {why}", shown(at)));
    let (restored, left) = (report.restored.len(), report.kept.len());
    back.chain(kept)
        .chain([format!("{restored} put back, {left} not")])
        .collect::<Vec<_>>()
        .join("\n")
}

/// As it is written in JSON: a path may be no text.
fn shown(path: &Path) -> String {
    nodemend_hostfs::text::of(path.as_os_str()).into_owned()
}
