//! What the tests share: a tree that holds a node's files.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodemend_hostfs::Host;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A node's files, below a temporary directory.
pub(crate) struct Node {
    root: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn host(&self) -> Host {
        Host::at(self.root.path())
    }

    /// Where a path of the node is here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

/// A cache file as libcni 1.1 writes it after an ADD of containerd.
pub(crate) fn cached(config: &Value) -> Value {
    json!({
        "kind": "cniCacheV1",
        "containerId": "5f0c1d",
        "config": STANDARD.encode(config.to_string()),
        "ifName": "eth0",
        "networkName": config["name"],
        "netns": "/var/run/netns/cni-1b2c",
        "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "kube-system"], ["K8S_POD_NAME", "dns-0"]],
        "capabilityArgs": {"portMappings": [{"hostPort": 8080, "containerPort": 80}], "dns": {"servers": []}},
        "result": {
            "cniVersion": "0.4.0",
            "interfaces": [
                {"name": "cni0", "mac": "8a:00:00:00:00:01"},
                {"name": "veth7817d4e7", "mac": "8a:00:00:00:00:02", "sandbox": ""},
                {"name": "eth0", "mac": "8a:00:00:00:00:03", "sandbox": "/var/run/netns/cni-1b2c"}
            ],
            "ips": [
                {"version": "4", "interface": 2, "address": "10.88.0.9/16", "gateway": "10.88.0.1"},
                {"version": "6", "interface": 2, "address": "fd00::9/64"}
            ]
        }
    })
}

/// The configuration of most tests: a bridge, then port mappings.
pub(crate) fn pods() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "dataDir": "/run/ipam"}},
            {"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": true, "dns": false}}
        ]
    })
}

pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
