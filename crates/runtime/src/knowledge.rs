//! What was answered: plain data, recorded and replayed.

use std::path::{Path, PathBuf};

use nodemend_evidence::Source;
use nodemend_procns::NetnsId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sources;

/// The answers of every source on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Knowledge {
    /// One answer for each source that was asked.
    pub answers: Vec<Answer>,
}

/// What one source answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Who was asked.
    pub source: Source,
    /// What it said.
    #[serde(flatten)]
    pub known: Known,
}

impl Answer {
    /// The socket that was asked, if it was one.
    pub fn socket(&self) -> Option<&Path> {
        sources::socket(&self.source)
    }

    /// True if it was asked of containerd's own API; false for the CRI and for what is not a runtime.
    pub fn is_of_containerd(&self) -> bool {
        sources::is_of_containerd(&self.source)
    }
}

/// A whole answer, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", content = "content", rename_all = "camelCase")]
pub enum Known {
    /// Everything that the source knows.
    Records(Vec<Record>),
    /// It did not answer, or its answer cannot be relied on, because …
    Unknown(String),
    /// It did answer, and knows of nothing; that cannot be relied on, because … To be taken as [`Known::Unknown`] by
    /// whoever has no proof of its own that there was nothing to know.
    Doubted(String),
    /// This runtime does not offer the service (containerd before 1.7 has no sandbox store): nothing is lost
    /// by not asking it, and it is not a required source.
    NotOffered(String),
}

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RecordKind {
    /// A pod sandbox, in any state.
    Sandbox,
    /// A container.
    Container,
    /// A task: a container that runs, or ran.
    Task,
    /// A shim or monitor process.
    Shim,
    /// A bundle directory on disk.
    Bundle,
}

/// One thing that a source knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What it stands for.
    pub kind: RecordKind,
    /// Its id, whole: never compared by prefix.
    pub id: String,
    /// The sandbox it belongs to; its own id for a sandbox.
    pub sandbox_id: Option<String>,
    /// The namespace of containerd that it is in.
    pub namespace: Option<String>,
    /// Its state in the runtime's own word (`SANDBOX_NOTREADY`, `running`).
    pub state: Option<String>,
    /// Its process, as the runtime tells it.
    pub pid: Option<u32>,
    /// Its network namespace, if the source tells.
    pub netns: Option<NetnsRef>,
    /// True if the source says that it uses the host's network: it owns no veth and no address.
    pub host_network: bool,
    /// The pod it belongs to.
    pub pod: Option<Pod>,
}

/// A network namespace as a runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetnsRef {
    /// The path in the runtime's records.
    pub path: PathBuf,
    /// What stood at that path when it was looked up; none if nothing, or no namespace.
    pub id: Option<NetnsId>,
}

/// The pod of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// metadata.uid
    pub uid: String,
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
}

impl Pod {
    /// The pod that kubelet's labels name (`io.kubernetes.pod.uid`, `.namespace`, `.name`; Kubernetes,
    /// pkg/kubelet/types/labels.go), if all are there.
    pub(crate) fn of_labels(label: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            uid: label("io.kubernetes.pod.uid")?,
            namespace: label("io.kubernetes.pod.namespace")?,
            name: label("io.kubernetes.pod.name")?,
        })
    }
}
