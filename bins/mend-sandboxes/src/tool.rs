//! The crate `nodemend-sandboxes`, as the shared run drives it.

use std::path::PathBuf;

use anyhow::bail;
use nodemend_cli::{Flags, Repair, Working, environment_endpoint};
use nodemend_cni::{DEFAULT_BIN_DIRS, Replay};
use nodemend_evidence::{Orphan, Outcome, Plan, Report};
use nodemend_hostfs::{Host, HostLock, StateDir};
use nodemend_runtime::{blocking::cni_directories, discover};
use nodemend_sandboxes::{
    Details, Discovery, Policy, Sandbox, SandboxIdentity, Survey, SurveyOptions, Tools, blocking, remember,
};

use crate::Arguments;

pub(crate) struct MendSandboxes {
    host: Host,
    options: SurveyOptions,
    policy: Policy,
    state: StateDir,
    changes: bool,
}

impl MendSandboxes {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let flags: &Flags = &arguments.flags;
        Self {
            host: flags.root.as_ref().map_or_else(Host::local, Host::at),
            options: SurveyOptions {
                discovery: Discovery {
                    flags: flags.runtime_endpoint.clone(),
                    environment: environment_endpoint(),
                },
                deadline: flags.timeout,
            },
            policy: Policy {
                grace: flags.grace,
                reap: arguments.reap,
                records_lost: arguments.records_lost,
            },
            state: StateDir::at(&flags.state_dir),
            changes: flags.apply,
        }
    }
}

impl MendSandboxes {
    /// The plugins lie where the runtime says, else where they mostly do.
    fn replay(&self) -> Replay {
        let endpoints = discover(&self.host, &self.options.discovery);
        let told = cni_directories(&self.host, &endpoints, self.options.deadline);
        let told = told.into_iter().flat_map(|told| told.plugins);
        Replay {
            bin_dirs: told.chain(DEFAULT_BIN_DIRS.iter().map(PathBuf::from)).collect(),
            ..Replay::default()
        }
    }
}

impl Repair for MendSandboxes {
    type Subject = Sandbox;
    type Survey = Survey;
    type Details = Details;

    fn names(&self) -> (&'static str, &'static str) {
        ("mend-sandboxes", "sandboxes")
    }

    fn kind(&self) -> &'static str {
        "SandboxesReport"
    }

    fn survey(&mut self) -> anyhow::Result<Survey> {
        if !self.host.is_running() {
            bail!(
                "sandboxes are a matter of the running kernel, and {} is a tree on disk",
                self.host.root().display()
            );
        }
        let mut survey = blocking::survey(&self.host, &self.options)?;
        remember(&mut survey, &self.state)?;
        Ok(survey)
    }

    fn plan(&self, first: &Survey, second: &Survey) -> Plan<Sandbox> {
        nodemend_sandboxes::plan(first, second, &self.policy)
    }

    fn alive(&self, survey: &Survey) -> usize {
        nodemend_sandboxes::live_sandboxes(survey)
    }

    fn silent(&self, survey: &Survey) -> Vec<String> {
        nodemend_sandboxes::silent(survey)
    }

    fn details(&self, _survey: &Survey, plan: &Plan<Sandbox>) -> Details {
        Details::of(plan)
    }

    fn headlines(&self, details: &Details, _report: &Report<Sandbox>) -> Vec<String> {
        details.lines()
    }

    fn dangerous(&self) -> Option<&'static str> {
        let danger = "--reap ends applications that still run.";
        (self.policy.reap && self.changes).then_some(danger)
    }

    fn apply(
        &mut self,
        orphans: Vec<Orphan<Sandbox>>,
        lock: &HostLock,
        working: Working<'_>,
    ) -> anyhow::Result<Vec<(SandboxIdentity, Outcome)>> {
        let again = self.survey()?;
        let mut journal = self.state.journal()?;
        let tools = Tools {
            journal: &mut journal,
            stop: working.stop,
            progress: working.progress,
            replay: self.replay(),
        };
        Ok(blocking::apply(orphans, lock, &again, &self.policy, tools)?)
    }
}
