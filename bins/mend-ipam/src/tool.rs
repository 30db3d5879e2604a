//! The crate `nodemend-ipam`, as the shared run drives it.

use std::path::PathBuf;
use std::time::SystemTime;

use nodemend_cli::{Flags, Repair, Working, environment_endpoint};
use nodemend_cni::{DEFAULT_BIN_DIRS, DEFAULT_CONF_DIR, Replay};
use nodemend_evidence::{Orphan, Outcome, Plan, Report};
use nodemend_hostfs::{Host, HostLock, StateDir};
use nodemend_ipam::{
    Details, Policy, Reservation, ReservationIdentity, Survey, SurveyOptions, Tools, blocking,
};
use nodemend_runtime::{Discovery, blocking::cni_directories, discover};

use crate::Arguments;

pub(crate) struct MendIpam {
    host: Host,
    options: SurveyOptions,
    policy: Policy,
    replay: Replay,
    state: StateDir,
    run: String,
}

impl MendIpam {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let flags: &Flags = &arguments.flags;
        let host = flags.root.as_ref().map_or_else(Host::local, Host::at);
        let discovery = Discovery {
            flags: flags.runtime_endpoint.clone(),
            environment: environment_endpoint(),
        };
        let told = if flags.replay.is_some() {
            Vec::new()
        } else {
            cni_directories(&host, &discover(&host, &discovery), flags.timeout)
        };
        let conf_dir = flags
            .cni_conf_dir
            .clone()
            .or_else(|| told.iter().find_map(|told| told.configurations.clone()));
        let bin_dirs = match &arguments.cni_bin_dir[..] {
            [] => told
                .into_iter()
                .flat_map(|told| told.plugins)
                .chain(DEFAULT_BIN_DIRS.iter().map(PathBuf::from))
                .collect(),
            given => given.to_vec(),
        };
        Self {
            host,
            options: SurveyOptions {
                discovery,
                deadline: flags.timeout,
                conf_dir: conf_dir.unwrap_or_else(|| DEFAULT_CONF_DIR.into()),
            },
            policy: Policy {
                grace: flags.grace,
                include_empty: arguments.include_empty,
            },
            replay: Replay {
                bin_dirs,
                deadline: arguments.del_timeout,
            },
            state: StateDir::at(&flags.state_dir),
            run: run_name(),
        }
    }
}

/// The time and the pid: in the order of the runs, and never used twice.
fn run_name() -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("{}-{}", time.replace(':', "-"), std::process::id())
}

impl Repair for MendIpam {
    type Subject = Reservation;
    type Survey = Survey;
    type First = Survey;
    type Details = Details;

    fn names(&self) -> (&'static str, &'static str) {
        ("mend-ipam", "reservations")
    }

    fn kind(&self) -> &'static str {
        "IpamReport"
    }

    fn survey(&mut self) -> anyhow::Result<Survey> {
        Ok(blocking::survey(&self.host, &self.options)?)
    }

    fn first(&self, survey: Survey) -> Survey {
        survey
    }

    fn plan(&self, first: &Survey, second: &Survey) -> Plan<Reservation> {
        nodemend_ipam::plan(first, second, &self.policy)
    }

    fn alive(&self, survey: &Survey) -> usize {
        nodemend_ipam::live_sandboxes(survey)
    }

    fn silent(&self, survey: &Survey) -> Vec<String> {
        nodemend_ipam::silent(survey)
    }

    fn details(&self, survey: &Survey, plan: &Plan<Reservation>) -> Details {
        Details::of(survey, plan, &self.run)
    }

    fn headlines(&self, details: &Details, report: &Report<Reservation>) -> Vec<String> {
        let mut lines: Vec<String> = details.networks.iter().map(ToString::to_string).collect();
        lines.extend(
            details
                .findings
                .iter()
                .map(|finding| format!("NOTE  {}: {}", finding.what, finding.detail)),
        );
        if report.changed {
            lines.push(format!("To take this back: mend-ipam undo {}", details.run));
        }
        lines
    }

    fn apply(
        &mut self,
        orphans: Vec<Orphan<Reservation>>,
        lock: &HostLock,
        working: Working<'_>,
    ) -> anyhow::Result<Vec<(ReservationIdentity, Outcome)>> {
        let again = self.survey()?;
        let mut journal = self.state.journal()?;
        let tools = Tools {
            state: &self.state,
            run: &self.run,
            host: &self.host,
            replay: &self.replay,
            journal: &mut journal,
            stop: working.stop,
            progress: working.progress,
        };
        Ok(nodemend_ipam::apply(orphans, lock, &again, &self.policy, tools)?)
    }
}
