//! Reading everything that bears on a sandbox. Changes nothing on the node.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use nodemend_cni::CacheEntry;
use nodemend_hostfs::{BootClock, Host, Moment, StateDir};
use nodemend_procns::{Census, Details, Listener, NetnsId, Process, listeners};
use nodemend_rtnl::View;
use nodemend_runtime::{Discovery, Knowledge, Leftovers, MetadataFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::places::Places;

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
    /// The processes and network namespaces.
    pub census: Census,
    /// More of those processes that are containers', or watch over them.
    pub details: Details,
    /// Where the containers' network namespaces wait for others.
    pub listeners: Vec<Listener>,
    /// The links and addresses of every namespace. The host's comes first.
    pub views: Vec<View>,
    /// libcni's cache: which attachment has which namespace.
    pub cache: Vec<CacheEntry>,
    /// The shims and the bundles.
    pub leftovers: Leftovers,
    /// The mounts and cgroups of containers.
    pub places: Places,
    /// What the runtimes answered, asked last: what is born after the processes were listed is no object of this look.
    pub knowledge: Knowledge,
    /// When each containerd's database was made.
    pub metadata: Vec<MetadataFile>,
    /// When a sandbox without a time of its own was first seen, by its id; see [`remember`].
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
}

impl Default for SurveyOptions {
    fn default() -> Self {
        Self {
            discovery: Discovery::default(),
            deadline: nodemend_runtime::DEFAULT_DEADLINE,
        }
    }
}

/// Takes one look at the running host.
///
/// # Errors
/// If the kernel's own lists cannot be read. A runtime that does not answer is no error: the survey says so.
pub async fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, Error> {
    let moment = BootClock::new()?.now();
    let census = Census::take(host)?;
    let deadline = options.deadline;
    let endpoints = nodemend_runtime::discover_with_shims(host, &options.discovery, &census, deadline).await;
    let leftovers = nodemend_runtime::leftovers(host, &endpoints, &census, options.deadline).await;
    let contained = contained(&census);
    let of_interest = of_interest(&census, &leftovers, &contained);
    let mut details = Details::of(host, &of_interest)?;
    add_parents(host, &census, &mut details)?;
    let places = Places::find(host, &census, &details, &leftovers)?;
    let listeners = listeners(host, &one_for_each_netns(&contained))?;
    let views = nodemend_rtnl::blocking::visit(&census)?;
    let cache = nodemend_cni::cache(host);
    let knowledge = nodemend_runtime::survey(host, &endpoints, &census, options.deadline).await;
    let metadata = nodemend_runtime::metadata_files(host, &endpoints, options.deadline).await;
    Ok(Survey {
        version: SURVEY_VERSION,
        moment,
        census,
        details,
        listeners,
        views,
        cache: cache.entries,
        leftovers,
        places,
        knowledge,
        metadata,
        first_seen: BTreeMap::new(),
    })
}

/// The processes that carry the id of a container of this host.
fn contained(census: &Census) -> Vec<&Process> {
    census
        .processes
        .iter()
        .filter(|process| container_of(census, process).is_some())
        .collect()
}

/// The container of this host that a process belongs to. One in a container in a container belongs to the outer one, and
/// the ids of process 1 count for nothing: on a node that is a container itself, everything carries them.
pub(crate) fn container_of<'a>(census: &Census, process: &'a Process) -> Option<&'a str> {
    let outer = census.process(1).map_or(&[][..], |init| &init.container_ids);
    let mut ids = process.container_ids.iter();
    ids.find(|id| !outer.contains(id)).map(String::as_str)
}

fn of_interest<'a>(census: &'a Census, leftovers: &Leftovers, contained: &[&'a Process]) -> Vec<&'a Process> {
    let known: HashSet<u32> = contained.iter().map(|process| process.pid).collect();
    let shims = leftovers.shims.iter().filter(|shim| !known.contains(&shim.pid));
    let shims = shims.filter_map(|shim| census.process(shim.pid));
    contained.iter().copied().chain(shims).collect()
}

/// Who started them, too: that tells a container of this host from one of a node in a container.
fn add_parents(host: &Host, census: &Census, details: &mut Details) -> Result<(), Error> {
    let known: BTreeSet<u32> = details.processes.iter().map(|detail| detail.pid).collect();
    let parents: BTreeSet<u32> = details.processes.iter().map(|detail| detail.parent).collect();
    let parents = parents.difference(&known);
    let parents: Vec<&Process> = parents.filter_map(|pid| census.process(*pid)).collect();
    let more = Details::of(host, &parents)?;
    details.processes.extend(more.processes);
    details.processes.sort_unstable_by_key(|detail| detail.pid);
    details.unread.extend(more.unread);
    Ok(())
}

fn one_for_each_netns<'a>(processes: &[&'a Process]) -> Vec<&'a Process> {
    let mut seen: HashSet<NetnsId> = HashSet::new();
    let in_new = |process: &&&Process| process.netns.is_some_and(|netns| seen.insert(netns));
    processes.iter().filter(in_new).copied().collect()
}

/// Enters into a survey when each sandbox was first seen that has no time of its own, and remembers it in the state
/// directory. Without this, such a sandbox never comes of age.
///
/// # Errors
/// If the state directory cannot be read or written.
pub fn remember(survey: &mut Survey, state: &StateDir) -> Result<(), Error> {
    let keys = crate::judge::ageless(survey);
    if keys.is_empty() && !state.path().exists() {
        return Ok(());
    }
    let mut sightings = state.sightings()?;
    survey.first_seen = sightings.see("sandbox ", &keys, &survey.moment);
    sightings.save()?;
    Ok(())
}
