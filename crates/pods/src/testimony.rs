//! What kubelet, the API server, files and the kernel say of pods.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::uid::Uid;

/// What each source said. To be judged with what the runtimes and the processes say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Testimony {
    /// The answers, one a source.
    pub answers: Vec<Answer>,
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
#[serde(tag = "answer", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Known {
    /// It answered: these pods, each with a sentence.
    Pods {
        /// The pods that it knows.
        pods: Vec<(Uid, String)>,
        /// How much was asked, for the sentence of an absent pod: `14 pods in its answer`.
        asked: String,
    },
    /// It did not answer, or not whole.
    Silent(String),
    /// It cannot be on this node, with the reason: no manifests are configured.
    NotHere(String),
}
