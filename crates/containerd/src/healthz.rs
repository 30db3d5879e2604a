//! Where kubelet tells its health: by its flags and its configuration.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nodemend_runtime::daemons::{Files, flag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// kubeadm's configuration of kubelet, for one whose command line is not known whole.
const USUAL: &str = "/var/lib/kubelet/config.yaml";
const PORT: u16 = 10248;

/// Where kubelet tells its health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "healthz", content = "at", rename_all = "camelCase")]
pub enum Healthz {
    /// There.
    At(SocketAddr),
    /// It is turned off (`healthzPort: 0`).
    Off,
}

impl Default for Healthz {
    /// kubelet's default, 127.0.0.1:10248 (pkg/kubelet/apis/config/v1beta1/defaults.go).
    fn default() -> Self {
        Self::At(SocketAddr::from(([127, 0, 0, 1], PORT)))
    }
}

impl Healthz {
    /// By the words of kubelet's command line. Flags win over the configuration, and drop-ins (`--config-dir`) over its
    /// main file. What cannot be read leaves the default.
    pub(crate) fn of(files: &Files, words: &[OsString]) -> Self {
        let text = |name: &str| Some(flag(words, &[name])?.to_string_lossy().into_owned());
        let main = flag(words, &["config"]).unwrap_or_else(|| USUAL.into());
        let drop_ins = flag(words, &["config-dir"]).map(|dir| drop_ins(files, &dir));
        let documents: Vec<String> = std::iter::once(main)
            .chain(drop_ins.unwrap_or_default())
            .filter_map(|path| files.read(&path).ok().flatten())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect();
        let set = |flag: &str, key: &str| {
            let of_file = || documents.iter().rev().find_map(|document| scalar(document, key));
            text(flag).or_else(of_file)
        };
        let port = set("healthz-port", "healthzPort").and_then(|port| port.parse().ok());
        let address = set("healthz-bind-address", "healthzBindAddress").and_then(|ip| ip.parse().ok());
        match port.unwrap_or(PORT) {
            0 => Self::Off,
            port => Self::At(SocketAddr::new(reachable(address), port)),
        }
    }
}

fn drop_ins(files: &Files, dir: &Path) -> Vec<std::path::PathBuf> {
    let names = files.list(dir).unwrap_or_default();
    let paths = names.iter().map(|name| dir.join(name));
    paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "conf"))
        .collect()
}

/// Who listens on every address is asked on this machine's own.
fn reachable(address: Option<IpAddr>) -> IpAddr {
    match address {
        None => Ipv4Addr::LOCALHOST.into(),
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        Some(ip) => ip,
    }
}

/// A plain value at the top of a KubeletConfiguration, in YAML or JSON.
fn scalar(document: &str, key: &str) -> Option<String> {
    if let Ok(object) = serde_json::from_str::<serde_json::Value>(document) {
        let value = object.get(key)?;
        return value
            .as_str()
            .map(str::to_owned)
            .or_else(|| Some(value.as_u64()?.to_string()));
    }
    let value = document.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim_matches(['"', '\'']) == key).then_some(value)
    })?;
    let value = value
        .split(" #")
        .next()
        .unwrap_or_default()
        .trim()
        .trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::Host;

    use super::*;

    fn found(files: &[(&str, &str)], line: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match Healthz::of(&Files::of_host(&Host::at(dir.path())), &words) {
            Healthz::At(at) => at.to_string(),
            Healthz::Off => "off".to_owned(),
        }
    }

    #[test]
    fn healthz_is_found_by_flags_drop_ins_and_the_file() {
        let kubeadm = [(
            USUAL,
            "kind: KubeletConfiguration\nhealthzBindAddress: 127.0.0.1\nhealthzPort: 10250 # moved\nx:\n  healthzPort: 1\n",
        )];
        assert_eq!(found(&[], "kubelet"), "127.0.0.1:10248");
        assert_eq!(found(&kubeadm, "kubelet"), "127.0.0.1:10250");
        assert_eq!(found(&kubeadm, "kubelet --healthz-port=7"), "127.0.0.1:7");
        let json = [("/k.json", r#"{"healthzPort": 9, "healthzBindAddress": "::"}"#)];
        assert_eq!(found(&json, "kubelet --config /k.json"), "[::1]:9");
        let more = [
            ("/k.yaml", "healthzPort: 1\n"),
            ("/d/10.conf", "\"healthzPort\": 2\n"),
            ("/d/20.conf", "healthzPort: 0\n"),
            ("/d/30.txt", "healthzPort: 3\n"),
        ];
        assert_eq!(found(&more, "kubelet --config=/k.yaml --config-dir=/d"), "off");
    }
}
