//! One look at everything that knows something of pods. Changes nothing on the node.

use std::time::{SystemTime, UNIX_EPOCH};

use nodemend_evidence::Source;
use nodemend_hostfs::Host;
use nodemend_procns::Census;
use nodemend_runtime::{Answer, Discovery, Knowledge, Known};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, LayoutError, LayoutOptions, layout};
use crate::testimony::{ANOTHER_ROOT, Access, Testimony, testimony};

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

/// Where to look, whom to ask, and how long to wait.
#[derive(Clone, Debug, Default)]
pub struct SurveyOptions {
    /// kubelet's root, and how much of it is counted.
    pub layout: LayoutOptions,
    /// How kubelet and the API server are asked. Its deadline is also that of each runtime.
    pub access: Access,
    /// Which runtimes to ask.
    pub discovery: Discovery,
}

/// Why no look could be taken. A source that did not answer is no error: the survey says so.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// kubelet's root.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The walk over the processes.
    #[error(transparent)]
    Census(#[from] nodemend_procns::Error),
    /// The host's files.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
}

/// Takes one look. The directories are read before anybody is asked about them: one that is made later is no object of it.
///
/// Of another root only the files are read; whether anybody uses them stays unknown.
///
/// # Errors
/// If kubelet's root is not there or does not answer, or if the kernel's own lists cannot be read.
pub fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, SurveyError> {
    let taken = now();
    let census = if host.is_running() {
        Census::take(host)?
    } else {
        // A kernel that cannot read another root safely must not make it look empty.
        host.open_dir("/".as_ref())?;
        Census {
            unread: vec![ANOTHER_ROOT.to_owned()],
            ..Census::default()
        }
    };
    let layout = layout(host, &options.layout, &census)?;
    let (testimony, knowledge) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| runtimes(host, options, &census));
        let testimony = testimony(host, &options.access, &layout, &census);
        let knowledge = asking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (testimony, knowledge)
    });
    Ok(Survey {
        version: SURVEY_VERSION,
        taken,
        layout,
        testimony,
        census,
        knowledge,
    })
}

fn runtimes(host: &Host, options: &SurveyOptions, census: &Census) -> Knowledge {
    if host.is_running() {
        let endpoints = nodemend_runtime::discover(host, &options.discovery);
        return nodemend_runtime::blocking::survey(host, &endpoints, census, options.access.deadline);
    }
    Knowledge {
        answers: vec![Answer {
            source: Source::new("container runtimes"),
            known: Known::Unknown(ANOTHER_ROOT.to_owned()),
        }],
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
