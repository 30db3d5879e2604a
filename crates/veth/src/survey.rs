//! Reading everything that bears on a veth pair. Changes nothing on the node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nodemend_cni::{CacheEntry, Configurations};
use nodemend_hostfs::{BootClock, Host, Moment, StateDir};
use nodemend_procns::Census;
use nodemend_rtnl::View;
use nodemend_runtime::{Discovery, Knowledge};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The version of [`Survey`]'s form. A recording of another version is refused.
pub const SURVEY_VERSION: u32 = 1;

/// All that was read in one look: plain data, so that it can be recorded and judged elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// [`SURVEY_VERSION`].
    pub version: u32,
    /// When the look began.
    pub moment: Moment,
    /// This node's CNI configurations.
    pub configurations: Configurations,
    /// The processes and network namespaces.
    pub census: Census,
    /// The links and addresses of every namespace. The host's comes first.
    pub views: Vec<View>,
    /// libcni's cache: which attachment has which namespace.
    pub cache: Vec<CacheEntry>,
    /// What the runtimes answered, asked last: what is born after the links were listed is no object of this look.
    pub knowledge: Knowledge,
    /// When a pair without a time of its own was first seen, by its identity; see [`remember`].
    #[serde(default)]
    pub first_seen: BTreeMap<String, Moment>,
}

/// Where to look, and how long to wait.
#[derive(Clone, Debug)]
pub struct SurveyOptions {
    /// Which runtimes to ask.
    pub discovery: Discovery,
    /// How long each source may take.
    pub deadline: Duration,
    /// Where the CNI configurations are.
    pub conf_dir: PathBuf,
}

impl Default for SurveyOptions {
    fn default() -> Self {
        Self {
            discovery: Discovery::default(),
            deadline: nodemend_runtime::DEFAULT_DEADLINE,
            conf_dir: nodemend_cni::DEFAULT_CONF_DIR.into(),
        }
    }
}

/// Takes one look at the running host.
///
/// # Errors
/// If the kernel's own lists cannot be read. A runtime that does not answer is no error: the survey says so.
pub async fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, Error> {
    let (moment, census, views) = kernel(host)?;
    let configurations = nodemend_cni::configurations(host, &options.conf_dir);
    let cache = nodemend_cni::cache(host);
    let endpoints = nodemend_runtime::discover(host, &options.discovery);
    let knowledge = nodemend_runtime::survey(host, &endpoints, &census, options.deadline).await;
    Ok(Survey {
        version: SURVEY_VERSION,
        moment,
        configurations,
        census,
        views,
        cache: cache.entries,
        knowledge,
        first_seen: BTreeMap::new(),
    })
}

fn kernel(host: &Host) -> Result<(Moment, Census, Vec<View>), Error> {
    let moment = BootClock::new()?.now();
    let census = Census::take(host)?;
    let views = nodemend_rtnl::blocking::visit(&census)?;
    Ok((moment, census, views))
}

/// Enters into a survey when each pair was first seen that has no time of its own, and remembers it in the state
/// directory. Without this, such a pair never comes of age.
///
/// # Errors
/// If the state directory cannot be read or written.
pub fn remember(survey: &mut Survey, state: &StateDir) -> Result<(), Error> {
    let keys = crate::judge::ageless(survey);
    if keys.is_empty() && !state.path().exists() {
        return Ok(());
    }
    let mut sightings = state.sightings()?;
    survey.first_seen = sightings.see("veth ", &keys, &survey.moment);
    sightings.save()?;
    Ok(())
}
