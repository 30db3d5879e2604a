//! The list of the node's pods at the API server, asked as kubelet asks for it.

use std::net::SocketAddr;

use nodemend_hostfs::Host;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::testimony::http::{Failure, Server, Tls, get};
use crate::testimony::kubeconfig::Kubeconfig;
use crate::testimony::names::Names;
use crate::testimony::podlist::PodList;
use crate::testimony::settings::Settings;
use crate::testimony::{Known, tls};

/// Everything that the list needs, read from files.
pub(crate) struct Asking {
    config: Kubeconfig,
    names: Names,
    node: String,
    /// `/etc/machine-id`, which kubelet reports as the node's.
    machine: Option<String>,
}

impl Asking {
    pub(crate) fn prepare(host: &Host, settings: &Settings) -> Result<Self, String> {
        let config = Kubeconfig::find(host, settings.kubeconfig.as_ref())?;
        let certified = config.identity.as_ref().and_then(|identity| identity.node());
        let node = node(certified, settings.hostname_override.clone(), || hostname(host))?;
        let machine = host.read("/etc/machine-id".as_ref(), 1024).ok();
        let machine = machine.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Ok(Self {
            config,
            names: Names::of(host),
            node,
            machine: machine.filter(|id| !id.is_empty()),
        })
    }
}

/// The node's name: of the certificate, which the API server believes; else what kubelet was told; else the host's. With the
/// wrong name the list is empty, and every pod looks like an orphan: two names that differ are none.
fn node(
    certified: Option<String>,
    told: Option<String>,
    hostname: impl FnOnce() -> Result<String, String>,
) -> Result<String, String> {
    let name = match (certified, told) {
        (Some(certified), Some(told)) if certified != told => {
            return Err(format!(
                "kubelet's certificate is for node {certified}, and its flags say {told}"
            ));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => hostname()?,
    };
    let is_a_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if name.is_empty() || !name.bytes().all(is_a_name) {
        return Err(format!("\"{name}\" is no name of a node"));
    }
    Ok(name)
}

fn hostname(host: &Host) -> Result<String, String> {
    let bytes = host
        .read("/proc/sys/kernel/hostname".as_ref(), 1024)
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_lowercase())
}

/// Asks whether the node of that name is this machine, and then for its pods.
pub(crate) async fn ask(asking: &Asking) -> Result<Known, String> {
    let Kubeconfig { prefix, .. } = &asking.config;
    let server = server(asking).await?;
    let node = &asking.node;
    let said = get(&server, &format!("{prefix}/api/v1/nodes/{node}"))
        .await
        .map_err(Failure::reason)?;
    same_machine(&said, asking)?;
    let path = format!("{prefix}/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
    let list = PodList::parse(&get(&server, &path).await.map_err(Failure::reason)?)?;
    Ok(Known::Pods {
        pods: list.pods,
        asked: format!("not among the {} pods of node {node}", list.items),
    })
}

#[derive(Deserialize)]
struct Node {
    kind: String,
    #[serde(default)]
    status: Option<NodeStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    node_info: Option<NodeInfo>,
}

#[derive(Deserialize)]
struct NodeInfo {
    #[serde(rename = "machineID", default)]
    machine_id: String,
}

/// A node that was registered anew, or under a name that another machine has, has other pods.
fn same_machine(json: &[u8], asking: &Asking) -> Result<(), String> {
    let node: Node =
        serde_json::from_slice(json).map_err(|error| format!("its answer is no Node: {error}"))?;
    if node.kind != "Node" {
        return Err("its answer is no Node".to_owned());
    }
    let there = node
        .status
        .and_then(|status| status.node_info)
        .map(|info| info.machine_id)
        .unwrap_or_default();
    match &asking.machine {
        Some(here) if !there.is_empty() && *here != there => Err(format!(
            "its node {} is another machine (machine id {there}; here it is {here})",
            asking.node
        )),
        _ => Ok(()),
    }
}

async fn server(asking: &Asking) -> Result<Server, String> {
    let config = &asking.config;
    let address = SocketAddr::new(asking.names.find(&config.host).await?, config.port);
    let name = config.server_name.as_ref().unwrap_or(&config.host);
    let name = ServerName::try_from(name.clone()).map_err(|error| format!("{name}: {error}"))?;
    Ok(Server {
        address,
        host: format!("{}:{}", bracketed(&config.host), config.port),
        tls: Some(Tls {
            config: tls::by_authority(&config.authorities, config.identity.as_ref())?,
            name,
        }),
        token: config.token.clone(),
    })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
#[path = "apiserver_tests.rs"]
mod tests;
