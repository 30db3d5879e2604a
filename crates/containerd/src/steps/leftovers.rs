//! What the pods of before leave behind: sandboxes, veth pairs, addresses. Each is judged and removed by its own crate.

use std::path::PathBuf;
use std::time::Duration;

use nodemend_cni::{DEFAULT_BIN_DIRS, DEFAULT_CONF_DIR, Replay};
use nodemend_evidence::{Outcome, Subject, Summary};
use nodemend_hostfs::{Host, Journal, Moment};
use nodemend_runtime::{blocking::cni_directories, discover};

use super::sandboxes;
use crate::error::Error;
use crate::options::Options;
use crate::run::Tools;
use crate::state::{PodChoice, Run};

/// How long all plugins of one attachment may take together.
const DEL_TIMEOUT: Duration = Duration::from_secs(60);

/// How many failures are told one by one.
const TOLD: usize = 5;

/// What a crate made of its leftovers.
pub(crate) struct Cleared {
    /// `veth pairs`.
    pub(crate) what: &'static str,
    /// The plan.
    pub(crate) summary: Summary,
    /// What became of each.
    pub(crate) outcomes: Vec<(String, Outcome)>,
}

/// Ends the running pods, if the operator said so.
pub(crate) fn running(
    run: &Run,
    options: &Options,
    tools: &mut Tools<'_>,
    journal: &mut Journal,
) -> Result<Vec<String>, Error> {
    match run.pods {
        PodChoice::None => Ok(vec!["none ran".to_owned()]),
        PodChoice::Keep => Ok(vec!["they run on, and nobody knows them any more".to_owned()]),
        PodChoice::Reap => {
            let setting = Setting::find(options);
            let cleared = sandboxes::clear(run, Duration::ZERO, options, &setting, tools, journal)?;
            let failed = cleared.failed();
            match failed.is_empty() {
                true => Ok(cleared.said()),
                false => Err(Error::Unfit(format!("not all pods ended: {}", failed.join("; ")))),
            }
        }
    }
}

/// Clears everything that is older than the stop of containerd: what is younger belongs to the new root.
pub(crate) fn all(
    run: &Run,
    now: &Moment,
    options: &Options,
    tools: &mut Tools<'_>,
    journal: &mut Journal,
) -> Result<Vec<String>, Error> {
    let grace = run
        .stopped
        .as_ref()
        .and_then(|stopped| now.since(stopped))
        .unwrap_or_default();
    let setting = Setting::find(options);
    let mut said = Vec::new();
    said.extend(sandboxes::clear(run, grace, options, &setting, tools, journal)?.said());
    said.extend(veth(grace, options, &setting, tools, journal)?.said());
    said.extend(ipam(run, grace, options, &setting, tools, journal)?.said());
    Ok(said)
}

/// Where this node has its CNI configurations and plugins.
pub(crate) struct Setting {
    pub(crate) host: Host,
    pub(crate) conf_dir: PathBuf,
    pub(crate) replay: Replay,
}

impl Setting {
    /// As the runtimes tell; where none answers, as containerd has it by default.
    fn find(options: &Options) -> Self {
        let host = Host::local();
        let told = cni_directories(&host, &discover(&host, &options.discovery), options.deadline);
        let conf_dir = told.iter().find_map(|told| told.configurations.clone());
        let plugins = told.into_iter().flat_map(|told| told.plugins);
        Self {
            conf_dir: conf_dir.unwrap_or_else(|| DEFAULT_CONF_DIR.into()),
            replay: Replay {
                bin_dirs: plugins.chain(DEFAULT_BIN_DIRS.iter().map(PathBuf::from)).collect(),
                deadline: DEL_TIMEOUT,
            },
            host,
        }
    }
}

fn veth(
    grace: Duration,
    options: &Options,
    setting: &Setting,
    tools: &mut Tools<'_>,
    journal: &mut Journal,
) -> Result<Cleared, Error> {
    use nodemend_veth::{Policy, SurveyOptions, blocking, plan, remember};
    let wanted = SurveyOptions {
        discovery: options.discovery.clone(),
        deadline: options.deadline,
        conf_dir: setting.conf_dir.clone(),
    };
    let policy = Policy {
        grace,
        cut_running: false,
    };
    let look = || -> Result<_, Error> {
        let mut survey = blocking::survey(&setting.host, &wanted)?;
        remember(&mut survey, tools.state)?;
        Ok(survey)
    };
    let first = look()?;
    std::thread::sleep(options.settle);
    let plan = plan(&first, &look()?, &policy);
    let summary = plan.summary();
    let mut outcomes = Vec::new();
    if summary.orphans > 0 {
        let again = look()?;
        let mending = nodemend_veth::Tools {
            journal,
            stop: tools.stop,
            progress: &mut |_done| {},
        };
        let done = blocking::apply(plan.into_orphans(), tools.lock, &again, &policy, mending)?;
        outcomes = done.into_iter().map(|(pair, outcome)| (pair.name, outcome)).collect();
    }
    Ok(Cleared {
        what: "veth pairs",
        summary,
        outcomes,
    })
}

fn ipam(
    run: &Run,
    grace: Duration,
    options: &Options,
    setting: &Setting,
    tools: &mut Tools<'_>,
    journal: &mut Journal,
) -> Result<Cleared, Error> {
    use nodemend_ipam::{Policy, SurveyOptions, apply, blocking, plan};
    let wanted = SurveyOptions {
        discovery: options.discovery.clone(),
        deadline: options.deadline,
        conf_dir: setting.conf_dir.clone(),
    };
    let policy = Policy {
        grace,
        include_empty: false,
    };
    let look = || blocking::survey(&setting.host, &wanted);
    let first = look()?;
    std::thread::sleep(options.settle);
    let plan = plan(&first, &look()?, &policy);
    let summary = plan.summary();
    let mut outcomes = Vec::new();
    if summary.orphans > 0 {
        let names: Vec<_> = plan
            .orphans()
            .map(|orphan| (orphan.subject().identity(), orphan.subject().title()))
            .collect();
        let mending = nodemend_ipam::Tools {
            state: tools.state,
            run: &run.id,
            host: &setting.host,
            replay: &setting.replay,
            journal,
            stop: tools.stop,
            progress: &mut |_done| {},
        };
        let done = apply(plan.into_orphans(), tools.lock, &look()?, &policy, mending)?;
        outcomes = done
            .into_iter()
            .map(|(identity, outcome)| {
                let name = names.iter().find(|(known, _)| *known == identity);
                (name.map(|(_, title)| title.clone()).unwrap_or_default(), outcome)
            })
            .collect();
    }
    Ok(Cleared {
        what: "addresses",
        summary,
        outcomes,
    })
}

impl Cleared {
    /// What became of them, in sentences.
    pub(crate) fn said(&self) -> Vec<String> {
        let cleared = self.outcomes.iter();
        let cleared = cleared.filter(|(_, outcome)| matches!(outcome, Outcome::Mended(_) | Outcome::AlreadyGone));
        let mut said = vec![format!(
            "{}: {} cleared, {} in use",
            self.what,
            cleared.count(),
            self.summary.live
        )];
        if self.summary.undecided > 0 {
            said.push(format!(
                "{}: {} undecided, and left alone; mend-{} says why",
                self.what,
                self.summary.undecided,
                match self.what {
                    "veth pairs" => "veth",
                    "addresses" => "ipam",
                    _ => "sandboxes",
                }
            ));
        }
        said.extend(self.failed().into_iter().take(TOLD));
        said
    }

    /// What was to go and did not.
    pub(crate) fn failed(&self) -> Vec<String> {
        let each = self.outcomes.iter();
        each.filter_map(|(name, outcome)| match outcome {
            Outcome::Mended(_) | Outcome::AlreadyGone => None,
            Outcome::Refused(why) | Outcome::Failed(why) => Some(format!("{name}: {why}")),
            Outcome::NotTried => Some(format!("{name}: not tried")),
        })
        .collect()
    }
}
