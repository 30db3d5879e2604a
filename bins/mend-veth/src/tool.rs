//! The crate `nodemend-veth`, as the shared run drives it.

use std::path::PathBuf;

use anyhow::bail;
use nodemend_cli::{Flags, NoDetails, Repair, Working, environment_endpoint};
use nodemend_cni::DEFAULT_CONF_DIR;
use nodemend_evidence::{Orphan, Outcome, Plan};
use nodemend_hostfs::{Host, HostLock, StateDir};
use nodemend_runtime::{Discovery, blocking::cni_directories, discover};
use nodemend_veth::{Policy, Survey, SurveyOptions, Tools, VethIdentity, VethPair, blocking, remember};

use crate::Arguments;

pub(crate) struct MendVeth {
    host: Host,
    options: SurveyOptions,
    policy: Policy,
    state: StateDir,
    changes: bool,
}

impl MendVeth {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let flags: &Flags = &arguments.flags;
        let host = flags.root.as_ref().map_or_else(Host::local, Host::at);
        let discovery = Discovery {
            flags: flags.runtime_endpoint.clone(),
            environment: environment_endpoint(),
        };
        let conf_dir = flags
            .cni_conf_dir
            .clone()
            .or_else(|| told_conf_dir(&host, &discovery, flags));
        Self {
            host,
            options: SurveyOptions {
                discovery,
                deadline: flags.timeout,
                conf_dir: conf_dir.unwrap_or_else(|| DEFAULT_CONF_DIR.into()),
            },
            policy: Policy {
                grace: flags.grace,
                cut_running: arguments.cut_running,
            },
            state: StateDir::at(&flags.state_dir),
            changes: flags.apply,
        }
    }
}

/// Where the first runtime that tells has its CNI configurations.
fn told_conf_dir(host: &Host, discovery: &Discovery, flags: &Flags) -> Option<PathBuf> {
    let asked = flags
        .replay
        .is_none()
        .then(|| cni_directories(host, &discover(host, discovery), flags.timeout));
    asked?.into_iter().find_map(|told| told.configurations)
}

impl Repair for MendVeth {
    type Subject = VethPair;
    type Survey = Survey;
    type First = Survey;
    type Details = NoDetails;

    fn names(&self) -> (&'static str, &'static str) {
        ("mend-veth", "veth pairs")
    }

    fn kind(&self) -> &'static str {
        "VethReport"
    }

    fn survey(&mut self) -> anyhow::Result<Survey> {
        if !self.host.is_running() {
            bail!(
                "links are a matter of the running kernel, and {} is a tree on disk",
                self.host.root().display()
            );
        }
        let mut survey = blocking::survey(&self.host, &self.options)?;
        remember(&mut survey, &self.state)?;
        Ok(survey)
    }

    fn first(&self, survey: Survey) -> Survey {
        survey
    }

    fn plan(&self, first: &Survey, second: &Survey) -> Plan<VethPair> {
        nodemend_veth::plan(first, second, &self.policy)
    }

    fn alive(&self, survey: &Survey) -> usize {
        nodemend_veth::live_sandboxes(survey)
    }

    fn silent(&self, survey: &Survey) -> Vec<String> {
        nodemend_veth::silent(survey)
    }

    fn details(&self, _survey: &Survey, _plan: &Plan<VethPair>) -> NoDetails {
        NoDetails {}
    }

    fn dangerous(&self) -> Option<&'static str> {
        let danger = "--cut-running takes the network from processes that still run.";
        (self.policy.cut_running && self.changes).then_some(danger)
    }

    fn apply(
        &mut self,
        orphans: Vec<Orphan<VethPair>>,
        lock: &HostLock,
        working: Working<'_>,
    ) -> anyhow::Result<Vec<(VethIdentity, Outcome)>> {
        let again = self.survey()?;
        let mut journal = self.state.journal()?;
        let tools = Tools {
            journal: &mut journal,
            stop: working.stop,
            progress: working.progress,
        };
        Ok(blocking::apply(orphans, lock, &again, &self.policy, tools)?)
    }
}
