//! What kubelet, the API server, files and the kernel say of pods.
//!
//! | source | what it is |
//! |---|---|
//! | [`KUBELET`] | kubelet's own list: `/pods` of the port that the kubelet process holds |
//! | [`API_SERVER`] | the list that kubelet itself gets, asked with kubelet's own credentials |
//! | [`MANIFESTS`] | where static pods come from, and the UIDs that stand in them |
//! | [`CHECKPOINTS`] | what kubelet wrote down under its root |
//! | [`CGROUPS`] | the pods that processes belong to by their cgroups |
//! | [`PROCESSES`] | who works in a pod directory, or has something of it open or mapped |
//! | [`BLOCKS`] | loop devices, swap and device-mapper devices on what lies in a pod directory |
//!
//! Each says everything that it knows, or why it said nothing. Whether that is enough is for [`crate::plan`] to say.

mod apiserver;
mod blocks;
mod cgroup;
mod checkpoints;
mod credentials;
mod http;
mod kubeconfig;
mod kubelet;
mod listed;
mod listeners;
mod manifests;
mod names;
mod podlist;
mod process;
mod processes;
mod settings;
#[cfg(test)]
mod standin;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_procns::Census;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::uid::Uid;

pub(crate) use settings::parse as parse_yaml;

/// kubelet's own list.
pub const KUBELET: &str = "kubelet /pods";
/// The list that kubelet itself gets.
pub const API_SERVER: &str = "API server";
/// Where static pods come from.
pub const MANIFESTS: &str = "static pod manifests";
/// What kubelet wrote down under its root.
pub const CHECKPOINTS: &str = "kubelet checkpoints";
/// The pods that processes belong to.
pub const CGROUPS: &str = "processes in pod cgroups";
/// Who works in a pod directory.
pub const PROCESSES: &str = "processes";
/// Devices on what lies in a pod directory.
pub const BLOCKS: &str = "loop, swap and dm devices";

pub(crate) const ANOTHER_ROOT: &str =
    "another root is read, and what runs on this kernel says nothing about it";

/// What each source said. To be judged with what the runtimes and the processes say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Testimony {
    /// The answers, one a source.
    pub answers: Vec<Answer>,
    /// kubelet, as a process.
    #[serde(default)]
    pub kubelet: KubeletProcess,
}

/// kubelet, as a process of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "is",
    content = "detail",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum KubeletProcess {
    /// It runs.
    Running {
        /// Its pid.
        pid: u32,
        /// Its name: `kubelet`, or `k3s` where kubelet is a part of it.
        comm: String,
        /// For how long, in seconds.
        since: u64,
    },
    /// There is no such process.
    NotRunning,
    /// Nobody can tell, because …
    Unknown(String),
    /// Nobody looked.
    #[default]
    NotAsked,
}

/// One source's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The source, as the report names it: `kubelet /pods`, `API server`, `static pod manifests`, `loop devices`.
    pub source: String,
    /// What it knows.
    pub known: Known,
}

/// What a source knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "answer",
    content = "detail",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Known {
    /// It answered: these pods, each with a sentence.
    Pods {
        /// The pods that it knows.
        pods: Vec<(Uid, String)>,
        /// How much was asked, for the sentence of an absent pod: `14 pods in its answer`.
        asked: String,
    },
    /// It knows these pods, and of the others it can say nothing.
    Partly {
        /// The pods that it knows.
        pods: Vec<(Uid, String)>,
        /// Why it says nothing of the others.
        reason: String,
    },
    /// It did not answer, or not whole.
    Silent(String),
    /// It cannot be on this node, with the reason: no manifests are configured.
    NotHere(String),
}

impl Known {
    pub(crate) fn silent(reason: impl Into<String>) -> Self {
        Self::Silent(reason.into())
    }

    pub(crate) fn not_here(reason: impl Into<String>) -> Self {
        Self::NotHere(reason.into())
    }

    fn of<E: Into<String>>(answer: Result<Self, E>) -> Self {
        answer.unwrap_or_else(Self::silent)
    }
}

impl Testimony {
    /// What a source said, if it was asked.
    pub fn of(&self, source: &str) -> Option<&Known> {
        self.answers
            .iter()
            .find(|answer| answer.source == source)
            .map(|answer| &answer.known)
    }

    fn enter(&mut self, source: &str, known: Known) {
        self.answers.push(Answer {
            source: source.to_owned(),
            known,
        });
    }
}

/// How kubelet and the API server are asked.
#[derive(Clone, Debug)]
pub struct Access {
    /// How long each of them may take to answer, from the first byte sent to the last one read.
    pub deadline: Duration,
    /// A file with a bearer token for kubelet (`--kubelet-token-file`).
    pub token_file: Option<PathBuf>,
    /// A client certificate for kubelet, as PEM (`--kubelet-client-cert`).
    pub client_cert: Option<PathBuf>,
    /// Its key, as PEM; by default in the same file (`--kubelet-client-key`).
    pub client_key: Option<PathBuf>,
}

impl Default for Access {
    /// Five seconds, and the credentials that are found on the node.
    fn default() -> Self {
        Self {
            deadline: nodemend_runtime::DEFAULT_DEADLINE,
            token_file: None,
            client_cert: None,
            client_key: None,
        }
    }
}

/// Asks everybody but the runtimes. This never fails: a source that does not answer is in the result as
/// [`Known::Silent`], with the reason. Read the layout before: a pod that is born later is no object of this look.
pub fn testimony(host: &Host, access: &Access, layout: &Layout, census: &Census) -> Testimony {
    if !host.is_running() {
        return elsewhere(host, layout);
    }
    let mut said = Testimony::default();
    let places = processes::Places::of(layout);
    let found = processes::look(places);
    let kubelet = process::find(host, census, found.as_ref().ok());
    let settings = settings::Settings::of(host, &layout.root, kubelet.as_ref().ok().and_then(Option::as_ref));
    said.kubelet = process::told(&kubelet);
    let (of_kubelet, of_api) = listed::ask(host, access, &layout.root, kubelet, &settings);
    said.enter(KUBELET, of_kubelet);
    said.enter(API_SERVER, of_api);
    said.enter(MANIFESTS, manifests::look(host, &settings));
    said.enter(CHECKPOINTS, checkpoints::look(host, &layout.root));
    let (cgroups, processes) = processes::told(found);
    said.enter(CGROUPS, cgroups);
    said.enter(PROCESSES, processes);
    said.enter(BLOCKS, blocks::look(host, layout));
    said
}

/// Of another root only the files are read.
fn elsewhere(host: &Host, layout: &Layout) -> Testimony {
    let settings = settings::Settings::of(host, &layout.root, None);
    let mut said = Testimony {
        kubelet: KubeletProcess::Unknown(ANOTHER_ROOT.to_owned()),
        ..Testimony::default()
    };
    for source in [KUBELET, API_SERVER, CGROUPS, PROCESSES, BLOCKS] {
        said.enter(source, Known::silent(ANOTHER_ROOT));
    }
    said.enter(MANIFESTS, manifests::look(host, &settings));
    said.enter(CHECKPOINTS, checkpoints::look(host, &layout.root));
    said
}
