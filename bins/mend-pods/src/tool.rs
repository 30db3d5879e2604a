//! The crate `nodemend-pods`, as the shared run drives it.

use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use nodemend_cli::{Repair, UsageError, Working, environment_endpoint, remark};
use nodemend_evidence::{Orphan, Outcome, Plan, Report};
use nodemend_hostfs::{Host, HostLock, StateDir};
use nodemend_pods::{
    Access, Details, Discovery, KubeletProcess, LayoutOptions, Named, Ownerless, Places, PodDir, PodIdentity,
    Policy, Purge, Survey, SurveyOptions, ThirdLook, Tools, from_log, live_pods, silent, survey,
};

use crate::arguments::Arguments;

pub(crate) struct MendPods {
    host: Host,
    options: SurveyOptions,
    policy: Policy,
    repair: nodemend_pods::Repair,
    state: StateDir,
    run: String,
}

impl MendPods {
    pub(crate) fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let flags = &arguments.flags;
        let named = arguments.from_log.as_deref().map(read_log).transpose()?;
        Ok(Self {
            host: flags.root.as_ref().map_or_else(Host::local, Host::at),
            options: SurveyOptions {
                layout: LayoutOptions {
                    kubelet_root: arguments.kubelet_root.clone(),
                    ..LayoutOptions::default()
                },
                access: Access {
                    deadline: flags.timeout,
                    token_file: arguments.kubelet_token_file.clone(),
                    client_cert: arguments.kubelet_client_cert.clone(),
                    client_key: arguments.kubelet_client_key.clone(),
                },
                discovery: Discovery {
                    flags: flags.runtime_endpoint.clone(),
                    environment: environment_endpoint(),
                },
            },
            policy: Policy {
                grace: flags.grace,
                settled: arguments.kubelet_settled,
                kubelet_down: arguments.kubelet_down,
                only: named.map(|named| named.uids),
            },
            repair: repair(arguments),
            state: StateDir::at(&flags.state_dir),
            run: run_name(),
        })
    }
}

fn repair(arguments: &Arguments) -> nodemend_pods::Repair {
    if !arguments.purge {
        return nodemend_pods::Repair::Unblock;
    }
    nodemend_pods::Repair::Purge(Purge {
        accept_ephemeral: arguments.accept_ephemeral,
        archive: arguments.archive.clone(),
        quarantine: arguments.quarantine_dir.clone(),
    })
}

/// Says what a log names, for it names only some of what it counts.
fn read_log(path: &Path) -> anyhow::Result<Named> {
    let read = || match path == Path::new("-") {
        true => from_log(stdin().lock()),
        false => from_log(BufReader::new(File::open(path)?)),
    };
    let named = read().with_context(|| format!("{}: cannot be read", path.display()))?;
    if named.uids.is_empty() {
        return Err(UsageError::new(format!("{}: names no orphaned pod", path.display())).into());
    }
    let names = named.uids.len();
    if named.counted > names as u64 {
        let counted = named.counted;
        remark(&format!(
            "The log names {names} pods and counts {counted}: kubelet names the first only. Without --from-log all are found.\n"
        ));
    }
    Ok(named)
}

/// The time and the pid: in the order of the runs, and never used twice.
fn run_name() -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("{}-{}", time.replace(':', "-"), std::process::id())
}

impl Repair for MendPods {
    type Subject = Arc<PodDir>;
    type Survey = Survey;
    type First = Ownerless;
    type Details = Details;

    fn names(&self) -> (&'static str, &'static str) {
        ("mend-pods", "pod directories")
    }

    fn kind(&self) -> &'static str {
        "PodsReport"
    }

    fn survey(&mut self) -> anyhow::Result<Survey> {
        Ok(survey(&self.host, &self.options)?)
    }

    fn first(&self, survey: Survey) -> Ownerless {
        Ownerless::of(&survey, &self.policy)
    }

    fn plan(&self, first: &Ownerless, second: &Survey) -> Plan<Arc<PodDir>> {
        nodemend_pods::plan(first, second, &self.policy)
    }

    fn alive(&self, survey: &Survey) -> usize {
        live_pods(survey)
    }

    fn silent(&self, survey: &Survey) -> Vec<String> {
        silent(survey, &self.policy)
    }

    fn details(&self, survey: &Survey, _plan: &Plan<Arc<PodDir>>) -> Details {
        Details::of(survey, &self.run)
    }

    fn headlines(&self, details: &Details, report: &Report<Arc<PodDir>>) -> Vec<String> {
        let mut lines = vec![root_line(details), kubelet_line(&details.kubelet)];
        let strangers = details.strangers.iter();
        lines.extend(strangers.map(|(path, why)| format!("NOTE  {} is left alone: {why}", path.display())));
        if report.changed {
            lines.push("To put back what was moved or copied: mend-pods restore".to_owned());
        }
        lines
    }

    fn action(&self, survey: &Survey, subject: &Arc<PodDir>) -> String {
        self.repair.intent(subject, survey.taken)
    }

    fn apply(
        &mut self,
        orphans: Vec<Orphan<Arc<PodDir>>>,
        lock: &HostLock,
        working: Working<'_>,
    ) -> anyhow::Result<Vec<(PodIdentity, Outcome)>> {
        let (host, options) = (&self.host, &self.options);
        let mut again = ThirdLook::new(&self.policy, || {
            survey(host, options).map_err(|error| error.to_string())
        });
        let mut journal = self.state.journal()?;
        let tools = Tools {
            state: &self.state,
            run: &self.run,
            places: &Places::default(),
            journal: &mut journal,
            stop: working.stop,
            progress: working.progress,
        };
        Ok(nodemend_pods::apply(
            orphans,
            lock,
            &mut again,
            &self.repair,
            tools,
        )?)
    }
}

fn root_line(details: &Details) -> String {
    let mut line = format!("{}  (by {})", details.root.display(), details.known_by);
    for path in &details.also_at {
        line.push_str(&format!(", also seen at {}", path.display()));
    }
    line
}

fn kubelet_line(kubelet: &KubeletProcess) -> String {
    match kubelet {
        KubeletProcess::Running { pid, comm, .. } => format!("kubelet runs (pid {pid}, {comm})"),
        KubeletProcess::NotRunning => "kubelet does not run".to_owned(),
        KubeletProcess::Unknown(reason) => format!("nobody can tell whether kubelet runs: {reason}"),
        KubeletProcess::NotAsked => "nobody looked for kubelet".to_owned(),
    }
}
