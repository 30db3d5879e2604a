//! Pods' sandboxes, as kubelet makes them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_cri::v1;
use serde_json::Value;

use crate::cri;
use crate::error::{LabError, Result};
use crate::node::Node;

/// The cache of libcni: one file for each attachment.
pub const CNI_CACHE: &str = "/var/lib/cni/results";

/// A sandbox as it was when it started. What has become of it since, the node says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id: 64 hexadecimal digits.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The file on which its network namespace is mounted, inside the node.
    pub netns: PathBuf,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub host_veth: String,
    /// Its pause process, by the id inside the node.
    pub pause: u32,
}

impl Node {
    /// Runs a sandbox for a pod of this name.
    ///
    /// # Errors
    ///
    /// The runtime's own, as when no address is free.
    pub fn run_sandbox(&self, name: &str) -> Result<Sandbox> {
        let config = self.pod_config(name)?;
        let id = self.cri().run(config)?;
        self.sandbox(&id)
    }

    /// Runs `n` sandboxes, named `pod-0` and on.
    ///
    /// # Errors
    ///
    /// At the first that does not start.
    pub fn run_sandboxes(&self, n: usize) -> Result<Vec<Sandbox>> {
        (0..n)
            .map(|number| self.run_sandbox(&format!("pod-{number}")))
            .collect()
    }

    pub(crate) fn pod_config(&self, name: &str) -> Result<v1::PodSandboxConfig> {
        Ok(self.config_of(name, &random_uuid()?))
    }

    pub(crate) fn config_of(&self, name: &str, uid: &str) -> v1::PodSandboxConfig {
        let below = format!("kubepods/burstable/pod{uid}");
        // A machine has a root of cgroups of its own; a node's are the machine's.
        let parent = if self.has_systemd {
            format!("/{below}")
        } else {
            format!("/{}/{below}", self.cgroup())
        };
        cri::pod_config(name, uid, &parent)
    }

    /// A sandbox that the runtime knows, by id.
    ///
    /// # Errors
    ///
    /// When the runtime does not know it, or tells too little.
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        let answer = self.cri().status(id)?;
        let info: Value = answer
            .info
            .get("info")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let status = answer.status.unwrap_or_default();
        let metadata = status.metadata.unwrap_or_default();
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|also| also.ip);
        let ips = std::iter::once(network.ip)
            .chain(more)
            .filter_map(|ip| ip.parse().ok())
            .collect();
        let netns =
            netns_of(&info).ok_or_else(|| LabError::Odd(format!("sandbox {id} has no network namespace")))?;
        let pause = info["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0);
        Ok(Sandbox {
            id: id.to_owned(),
            name: metadata.name,
            uid: metadata.uid,
            netns,
            ips,
            host_veth: self.host_veth(id).unwrap_or_default(),
            pause,
        })
    }

    /// The cache names the node's end: the interface that is in no sandbox and is not the bridge.
    fn host_veth(&self, id: &str) -> Option<String> {
        let file = format!("{CNI_CACHE}/{}-{id}-eth0", self.options.network);
        let cache: Value = serde_json::from_str(&self.read(file).ok()?).ok()?;
        let interfaces = cache["result"]["interfaces"].as_array()?;
        let outside = interfaces
            .iter()
            .filter(|one| one["sandbox"].as_str().unwrap_or_default().is_empty());
        outside
            .filter_map(|one| one["name"].as_str())
            .find(|name| name.starts_with("veth"))
            .map(str::to_owned)
    }

    /// Stops a sandbox through the runtime.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn stop_sandbox(&self, id: &str) -> Result<()> {
        self.cri().stop(id)
    }

    /// Removes a stopped sandbox through the runtime.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.cri().remove(id)
    }

    /// The sandboxes that the runtime knows, with whether each is ready.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn list_sandboxes(&self) -> Result<Vec<(String, bool)>> {
        let ready = i32::from(v1::PodSandboxState::SandboxReady);
        Ok(self
            .cri()
            .list()?
            .into_iter()
            .map(|one| (one.id, one.state == ready))
            .collect())
    }

    /// Runs a program in a sandbox's network; it must succeed.
    ///
    /// # Errors
    ///
    /// As [`Node::exec`].
    pub fn exec_in_netns<S: AsRef<str>>(&self, netns: &Path, argv: &[S]) -> Result<String> {
        let enter = format!("--net={}", netns.display());
        let mut line = vec!["nsenter", enter.as_str(), "--"];
        line.extend(argv.iter().map(AsRef::as_ref));
        self.exec(&line)
    }

    /// Starts a process that stays in a network namespace; its id inside the node.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_in_netns<S: AsRef<str>>(&self, netns: &Path, argv: &[S]) -> Result<u32> {
        self.detach(&["--net", &netns.to_string_lossy()], argv)
    }

    /// Whether an address answers from the node.
    pub fn pings(&self, ip: IpAddr) -> bool {
        self.exec(&ping(ip)).is_ok()
    }

    /// Whether an address answers from a sandbox.
    pub fn pings_from(&self, from: &Sandbox, ip: IpAddr) -> bool {
        self.exec_in_netns(&from.netns, &ping(ip)).is_ok()
    }
}

/// Three tries: the first packet of a new port may be lost while the bridge learns.
fn ping(ip: IpAddr) -> Vec<String> {
    [
        "ping",
        "-n",
        "-q",
        "-c",
        "3",
        "-i",
        "0.2",
        "-w",
        "3",
        &ip.to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn netns_of(info: &Value) -> Option<PathBuf> {
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array()?;
    let network = namespaces.iter().find(|one| one["type"] == "network")?;
    network["path"].as_str().map(PathBuf::from)
}

/// A random UUID, from the kernel.
pub(crate) fn random_uuid() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let text = std::fs::read_to_string(path).map_err(|source| LabError::Io {
        what: "make a uuid".to_owned(),
        source,
    })?;
    Ok(text.trim().to_owned())
}
