//! One look at everything that knows something of pods.

use nodemend_procns::Census;
use nodemend_runtime::Knowledge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::testimony::Testimony;

/// The version of the form of a survey.
pub const SURVEY_VERSION: u32 = 1;

/// One look at everything that knows something of pods.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// [`SURVEY_VERSION`].
    pub version: u32,
    /// When it was taken, in seconds since 1970.
    pub taken: i64,
    /// What lies on the disk, and what is mounted.
    pub layout: Layout,
    /// What kubelet, the API server, manifests, checkpoints and the kernel say.
    pub testimony: Testimony,
    /// The processes.
    pub census: Census,
    /// What the runtimes say.
    pub knowledge: Knowledge,
}
