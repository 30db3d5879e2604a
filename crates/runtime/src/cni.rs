//! Where a runtime has its CNI plugins and configurations.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use nodemend_hostfs::Host;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cri;
use crate::endpoint::Endpoint;
use crate::line::connect;

/// The directories that a runtime was configured with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CniDirectories {
    /// [`Endpoint::address`] of the runtime.
    pub endpoint: String,
    /// Where its CNI plugins are, in the order in which they are looked for.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<PathBuf>")]
    pub plugins: Vec<PathBuf>,
    /// Where its CNI configurations are.
    #[serde(default, with = "nodemend_hostfs::text")]
    #[schemars(with = "Option<PathBuf>")]
    pub configurations: Option<PathBuf>,
}

/// Asks each runtime for its CNI directories. This is configuration and no evidence: one that does not tell (CRI-O
/// does not), or not within the deadline, is left out.
///
/// Needs a tokio runtime with I/O and time; see [`crate::blocking`] for callers without one.
pub async fn cni_directories(host: &Host, endpoints: &[Endpoint], deadline: Duration) -> Vec<CniDirectories> {
    if !host.is_running() {
        return Vec::new();
    }
    let asked = endpoints
        .iter()
        .map(|endpoint| tokio::time::timeout(deadline, ask(host, endpoint)));
    let told = join_all(asked).await;
    told.into_iter()
        .filter_map(|told| told.unwrap_or_default())
        .collect()
}

async fn ask(host: &Host, endpoint: &Endpoint) -> Option<CniDirectories> {
    let line = connect(host, endpoint.socket().ok()?).await.ok()?;
    let info = cri::info(line.channel).await;
    let info = info
        .inspect_err(|reason| tracing::debug!(endpoint = endpoint.address(), %reason, "no CNI directories"))
        .ok()?;
    read(endpoint.address(), &info)
}

/// What containerd's CNI library was set up with (go-cni, `ConfigResult`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Loaded {
    plugin_dirs: Vec<PathBuf>,
    plugin_conf_dir: PathBuf,
}

/// containerd's configuration of the CRI (internal/cri/config, `CniConfig`). Later versions have several directories.
#[derive(Deserialize)]
struct Configured {
    cni: Cni,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Cni {
    bin_dir: PathBuf,
    bin_dirs: Vec<PathBuf>,
    conf_dir: PathBuf,
}

/// Of a verbose Status: the entry `cniconfig`, and `config` where that is missing.
fn read(endpoint: &str, info: &HashMap<String, String>) -> Option<CniDirectories> {
    let loaded = || {
        let loaded: Loaded = serde_json::from_str(info.get("cniconfig")?).ok()?;
        Some((loaded.plugin_dirs, loaded.plugin_conf_dir))
    };
    let configured = || {
        let cni = serde_json::from_str::<Configured>(info.get("config")?).ok()?.cni;
        let several = cni.bin_dirs.into_iter();
        Some((several.chain([cni.bin_dir]).collect(), cni.conf_dir))
    };
    let (plugins, configurations): (Vec<PathBuf>, PathBuf) = loaded().or_else(configured)?;
    Some(CniDirectories {
        endpoint: endpoint.to_owned(),
        plugins: plugins.into_iter().filter(|dir| dir.is_absolute()).collect(),
        configurations: Some(configurations).filter(|dir| dir.is_absolute()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from what containerd 1.6.20 answers.
    const LOADED: &str = r#"{"PluginDirs":["/usr/lib/cni"],"PluginConfDir":"/etc/cni/net.d","PluginMaxConfNum":1,
        "Prefix":"eth","Networks":[]}"#;
    const CONFIGURED: &str = r#"{"containerd":{"snapshotter":"overlayfs"},"cni":{"binDir":"/opt/cni/bin",
        "confDir":"/etc/cni/net.d","maxConfNum":1,"confTemplate":"","ipPref":""},"registry":{}}"#;

    #[test]
    fn the_directories_are_found_in_either_entry() {
        let cases = [
            (
                vec![("cniconfig", LOADED), ("config", CONFIGURED)],
                Some(vec!["/usr/lib/cni"]),
            ),
            (vec![("config", CONFIGURED)], Some(vec!["/opt/cni/bin"])),
            (
                vec![(
                    "config",
                    r#"{"cni":{"binDirs":["/a","/b"],"binDir":"","confDir":"/etc/cni/net.d"}}"#,
                )],
                Some(vec!["/a", "/b"]),
            ),
            (
                vec![("cniconfig", "null"), ("config", CONFIGURED)],
                Some(vec!["/opt/cni/bin"]),
            ),
            (vec![("config", r#"{"sandboxImage":"pause"}"#)], None),
            (vec![], None),
        ];
        for (info, wanted) in cases {
            let entries = info
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let wanted = wanted.map(|dirs| CniDirectories {
                endpoint: "unix:///x.sock".into(),
                plugins: dirs.into_iter().map(PathBuf::from).collect(),
                configurations: Some("/etc/cni/net.d".into()),
            });
            assert_eq!(read("unix:///x.sock", &entries.collect()), wanted, "{info:?}");
        }
    }
}
