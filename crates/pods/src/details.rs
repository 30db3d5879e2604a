//! What a report on pod directories says beyond each of them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::survey::Survey;
use crate::testimony::KubeletProcess;

/// What a report on pod directories says beyond each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// kubelet's root.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub root: PathBuf,
    /// Who says that it is the root.
    pub known_by: String,
    /// Other paths by which the same root is seen.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<PathBuf>")]
    pub also_at: Vec<PathBuf>,
    /// kubelet, as a process.
    pub kubelet: KubeletProcess,
    /// What else lies in `pods/`, each with the reason why it is left alone.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<(PathBuf, String)>")]
    pub strangers: Vec<(PathBuf, String)>,
    /// The name of this run: of its quarantines and archives.
    pub run: String,
}

impl Details {
    /// Of a survey, for a run of this name.
    pub fn of(survey: &Survey, run: &str) -> Self {
        let layout = &survey.layout;
        Self {
            root: layout.root.clone(),
            known_by: layout.known_by.clone(),
            also_at: layout.also_at.clone(),
            kubelet: survey.testimony.kubelet.clone(),
            strangers: layout.strangers.clone(),
            run: run.to_owned(),
        }
    }
}
