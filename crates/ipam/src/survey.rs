//! Reading everything that bears on a reservation. Changes nothing on the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nodemend_cni::{Cache, CacheEntry, Configurations, Problem};
use nodemend_evidence::Source;
use nodemend_hostfs::{BootClock, Host, Moment};
use nodemend_procns::Census;
use nodemend_rtnl::View;
use nodemend_runtime::{Answer, Discovery, Knowledge, Known};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::networks::{self, NetworkDir};
use crate::reservation::Reservation;

/// The version of [`Survey`]'s form. A recording of another version is refused.
pub const SURVEY_VERSION: u32 = 1;

/// What the running kernel says is no evidence for a tree that is only mounted here.
const ANOTHER_ROOT: &str = "another root is read, and what runs on this kernel says nothing about it";

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
    /// libcni's cache: what the plugins were called with.
    pub cache: Vec<CacheEntry>,
    /// Files of the cache that could not be read or understood: the DEL of their attachments cannot be run again.
    #[serde(default)]
    pub cache_problems: Vec<Problem>,
    /// Every directory of reservations.
    pub networks: Vec<NetworkDir>,
    /// Every file in them. They are read before anybody is asked about them: an address that is taken later is no
    /// object of this look.
    pub reservations: Vec<Reservation>,
    /// The processes and network namespaces.
    pub census: Census,
    /// The addresses of every namespace.
    pub views: Vec<View>,
    /// What the runtimes answered.
    pub knowledge: Knowledge,
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

/// Takes one look.
///
/// Of another root only the files are read; whether anybody holds them stays unknown.
///
/// # Errors
/// If the kernel's own lists cannot be read. A runtime that does not answer, or a directory that cannot be read, is
/// no error: the survey says so.
pub async fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, Error> {
    let moment = BootClock::new()?.now();
    if !host.is_running() {
        // A kernel that cannot read another root safely must not make it look empty.
        host.open_dir(Path::new("/"))?;
    }
    let configurations = nodemend_cni::configurations(host, &options.conf_dir);
    let Cache {
        entries: cache,
        problems: cache_problems,
    } = nodemend_cni::cache(host);
    let (networks, reservations) = networks::look(host, &configurations, &cache, moment.unix);
    let (census, views) = if host.is_running() {
        kernel(host)?
    } else {
        no_kernel()
    };
    let knowledge = if host.is_running() {
        let endpoints = nodemend_runtime::discover(host, &options.discovery);
        nodemend_runtime::survey(host, &endpoints, &census, options.deadline).await
    } else {
        no_runtime()
    };
    let version = SURVEY_VERSION;
    Ok(Survey {
        version,
        moment,
        configurations,
        cache,
        cache_problems,
        networks,
        reservations,
        census,
        views,
        knowledge,
    })
}

fn kernel(host: &Host) -> Result<(Census, Vec<View>), Error> {
    let census = Census::take(host)?;
    let views = nodemend_rtnl::blocking::visit(&census)?;
    Ok((census, views))
}

fn no_kernel() -> (Census, Vec<View>) {
    (
        Census {
            unread: vec![ANOTHER_ROOT.to_owned()],
            ..Census::default()
        },
        Vec::new(),
    )
}

fn no_runtime() -> Knowledge {
    let source = Source::new("container runtimes");
    Knowledge {
        answers: vec![Answer {
            source,
            known: Known::Unknown(ANOTHER_ROOT.to_owned()),
        }],
    }
}
