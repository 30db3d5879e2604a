//! What was read on one machine, to be judged on another.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use nodemend_evidence::API_VERSION;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The two looks of one run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recording<S> {
    /// `nodemend/v1`.
    pub api_version: String,
    /// What it records: `VethRecording`, `IpamRecording`.
    pub kind: String,
    /// The first look.
    pub first: S,
    /// The second look.
    pub second: S,
}

impl<S: Serialize + DeserializeOwned> Recording<S> {
    /// A recording of these two looks.
    pub fn new(kind: &str, first: S, second: S) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: kind.to_owned(),
            first,
            second,
        }
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::create(path).with_context(|| format!("{}: cannot be created", path.display()))?;
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, self)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        file.flush()
            .with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// Reads one.
    ///
    /// # Errors
    /// If the file cannot be read, or is a recording of something else.
    pub fn load(path: &Path, kind: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            api_version: String,
            kind: String,
        }
        let open = || File::open(path).with_context(|| format!("{}: cannot be opened", path.display()));
        let head: Head = serde_json::from_reader(BufReader::new(open()?))
            .with_context(|| format!("{}: not a recording of a nodemend tool", path.display()))?;
        if head.api_version != API_VERSION || head.kind != kind {
            bail!(
                "{}: holds {} {}, and this tool replays {API_VERSION} {kind}",
                path.display(),
                head.api_version,
                head.kind
            );
        }
        serde_json::from_reader(BufReader::new(open()?))
            .with_context(|| format!("{}: a recording that this version cannot read", path.display()))
    }
}
