//! What the pods of before leave behind: sandboxes, veth pairs, addresses. Each is judged and removed by its own crate.

use std::path::PathBuf;
use std::time::Duration;

use nodemend_cni::{DEFAULT_BIN_DIRS, DEFAULT_CONF_DIR, Replay};
use nodemend_evidence::{Outcome, Plan, Subject, Summary, Verdict};
use nodemend_hostfs::{Host, Journal, Moment};
use nodemend_runtime::{blocking::cni_directories, discover};

use super::sandboxes;
use crate::error::Error;
use crate::options::Options;
use crate::run::Tools;
use crate::state::{PodChoice, Run};

/// How long all plugins of one attachment may take together.
const DEL_TIMEOUT: Duration = Duration::from_secs(60);

/// The least age of a leftover if nobody knows when containerd stopped: the default of the tools.
const GRACE: Duration = Duration::from_secs(600);

/// How many failures are told one by one.
const TOLD: usize = 5;

/// What a crate made of its leftovers.
pub(crate) struct Cleared {
    /// `veth pairs`.
    pub(crate) what: &'static str,
    /// The plan.
    pub(crate) summary: Summary,
    /// What is undecided, and why.
    pub(crate) undecided: Vec<String>,
    /// What became of each.
    pub(crate) outcomes: Vec<(String, Outcome)>,
}

/// What was decided about running pods.
pub(crate) fn decided(pods: PodChoice) -> &'static str {
    match pods {
        PodChoice::None => "none runs",
        PodChoice::Keep => "they run on, and nobody knows them any more",
        PodChoice::Reap => "they are ended as soon as the new containerd says that it has no record of them",
    }
}

/// Ends the pods of before. All of them must end: kubelet is about to start them a second time.
///
/// None is too young: kubelet does not run, and so nobody makes new ones.
pub(crate) fn reap(
    run: &Run,
    options: &Options,
    tools: &mut Tools<'_>,
    journal: &mut Journal,
) -> Result<Vec<String>, Error> {
    let setting = Setting::find(options);
    let cleared = sandboxes::clear(run, (Duration::ZERO, true), options, &setting, tools, journal)?;
    let left: Vec<String> = cleared
        .failed()
        .into_iter()
        .chain(cleared.undecided.clone())
        .collect();
    match left.is_empty() {
        true => Ok(cleared.said()),
        false => Err(Error::Unfit(format!(
            "not all pods of before have ended, so kubelet is not started: {}; --resume tries again, --resume --keep-pods goes on without",
            left.join("; ")
        ))),
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
    let grace = since_stop(run, now);
    let setting = Setting::find(options);
    let mut said = Vec::new();
    said.extend(sandboxes::clear(run, (grace, false), options, &setting, tools, journal)?.said());
    said.extend(veth(grace, options, &setting, tools, journal)?.said());
    said.extend(ipam(run, grace, options, &setting, tools, journal)?.said());
    Ok(said)
}

/// How long ago containerd stopped. After a boot nothing of before is left, and what there is may be on its way up.
fn since_stop(run: &Run, now: &Moment) -> Duration {
    let stopped = run.stopped.as_ref();
    stopped.and_then(|stopped| now.since(stopped)).unwrap_or(GRACE)
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
                bin_dirs: plugins
                    .chain(DEFAULT_BIN_DIRS.iter().map(PathBuf::from))
                    .collect(),
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
    let (summary, undecided) = (plan.summary(), undecided(&plan, |_| true));
    let mut outcomes = Vec::new();
    if summary.orphans > 0 {
        let again = look()?;
        let mending = nodemend_veth::Tools {
            journal,
            stop: tools.stop,
            progress: &mut |_done| {},
        };
        let done = blocking::apply(plan.into_orphans(), tools.lock, &again, &policy, mending)?;
        outcomes = done
            .into_iter()
            .map(|(pair, outcome)| (pair.name, outcome))
            .collect();
    }
    Ok(Cleared {
        what: "veth pairs",
        summary,
        undecided,
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
    let (summary, undecided) = (plan.summary(), undecided(&plan, |_| true));
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
        undecided,
        outcomes,
    })
}

/// What a plan leaves alone of ours because it is not proven either way, with the reason.
pub(crate) fn undecided<T: Subject>(plan: &Plan<T>, is_ours: impl Fn(&T) -> bool) -> Vec<String> {
    let kept = plan.verdicts().iter().filter_map(|verdict| match verdict {
        Verdict::Undecided(kept) if is_ours(&kept.subject) => {
            Some(format!("{}: {}", kept.subject.title(), kept.reason))
        }
        Verdict::Undecided(_) | Verdict::Live(_) | Verdict::Foreign(_) | Verdict::Orphan(_) => None,
    });
    kept.collect()
}

impl Cleared {
    /// What became of them, in sentences.
    pub(crate) fn said(&self) -> Vec<String> {
        let cleared = self.outcomes.iter();
        let cleared =
            cleared.filter(|(_, outcome)| matches!(outcome, Outcome::Mended(_) | Outcome::AlreadyGone));
        let mut said = vec![format!(
            "{}: {} cleared, {} in use",
            self.what,
            cleared.count(),
            self.summary.live
        )];
        let undecided = self.undecided.iter().take(TOLD);
        said.extend(undecided.map(|one| format!("left alone, undecided: {one}")));
        if let Some(more) = self.undecided.len().checked_sub(TOLD).filter(|more| *more > 0) {
            said.push(format!("and {more} more {} undecided", self.what));
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
