//! Where containerd lives: its configuration, root, state and socket.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings of one containerd.
///
/// Flags win over the configuration file, and that over the defaults (containerd, `cmd/containerd/command/main.go`,
/// `applyFlags`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The configuration file, if one was named or the default one exists.
    pub config: Option<PathBuf>,
    /// Where its data lies: content, snapshots, `meta.db`. As it is configured: a link is not resolved.
    pub root: PathBuf,
    /// Where what belongs to running containers lies.
    pub state: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Its program.
    pub program: PathBuf,
    /// By what this was found.
    pub origin: Origin,
    /// Directories of plugins that the configuration moved out of the root: setting the root aside leaves them as they
    /// are.
    pub elsewhere: Vec<Elsewhere>,
}

/// By what the settings were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", content = "what", rename_all = "camelCase")]
pub enum Origin {
    /// The command line of the containerd that runs, by its pid.
    Process(u32),
    /// ExecStart of its unit.
    Unit(String),
    /// `--config`.
    Given,
    /// Nothing was found: the defaults.
    Default,
}

/// A directory of a plugin that lies outside of the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Elsewhere {
    /// The plugin: `io.containerd.snapshotter.v1.overlayfs`.
    pub plugin: String,
    /// Its directory.
    pub path: PathBuf,
}
