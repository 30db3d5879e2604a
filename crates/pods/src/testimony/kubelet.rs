//! kubelet's own list, from the port that the kubelet process holds.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use nodemend_hostfs::Host;
use rustls::pki_types::ServerName;

use crate::testimony::credentials::{self, Credentials};
use crate::testimony::http::{Failure, Server, Tls, get};
use crate::testimony::listeners::{self, Listener};
use crate::testimony::podlist::PodList;
use crate::testimony::process::Kubelet;
use crate::testimony::settings::Settings;
use crate::testimony::{Access, Known, tls};

const PORT: u16 = 10250;
const READ_ONLY_PORT: u16 = 10255;
const HEALTHZ_PORT: u16 = 10248;

/// Where kubelet can be asked, found before anything is sent.
pub(crate) struct Ports {
    secure: Result<SocketAddr, String>,
    read_only: Option<SocketAddr>,
    healthz: Option<SocketAddr>,
}

impl Ports {
    /// Those that the kubelet process holds itself.
    pub(crate) fn of(host: &Host, kubelet: &Kubelet, settings: &Settings) -> Result<Self, String> {
        let all = listeners::all(host)?;
        let own = listeners::sockets_of(kubelet.pid)?;
        Ok(Self::among(&all, &own, settings))
    }

    fn among(all: &[Listener], own: &HashSet<u64>, settings: &Settings) -> Self {
        let reach = |port: Option<u16>, usual| {
            listeners::reach(all, own, port.filter(|port| *port > 0).unwrap_or(usual))
        };
        Self {
            secure: reach(settings.port, PORT),
            read_only: reach(settings.read_only_port, READ_ONLY_PORT).ok(),
            healthz: reach(settings.healthz_port, HEALTHZ_PORT).ok(),
        }
    }
}

/// Everything that the list needs, read from files.
pub(crate) struct Asking {
    ports: Ports,
    credentials: Vec<Credentials>,
}

impl Asking {
    pub(crate) fn prepare(
        host: &Host,
        access: &Access,
        root: &Path,
        kubelet: &Kubelet,
        settings: &Settings,
    ) -> Result<Self, String> {
        Ok(Self {
            ports: Ports::of(host, kubelet, settings)?,
            credentials: credentials::all(host, access, root, settings)?,
        })
    }
}

/// Asks for the list, and before for kubelet's health: one that is not well may hold an old list.
pub(crate) async fn ask(asking: &Asking) -> Result<Known, String> {
    let servers = servers(asking)?;
    healthy(asking, &servers).await?;
    let mut denied = String::new();
    for (from, server) in &servers {
        match get(server, "/pods").await {
            Ok(json) => return told(&json),
            Err(Failure::Denied(reason)) => {
                denied = format!("{denied}{}{from}: {reason}", separator(&denied))
            }
            Err(Failure::Failed(reason)) => return Err(reason),
        }
    }
    Err(format!(
        "it lets nobody ask who could be tried ({denied}); give --kubelet-token-file or --kubelet-client-cert of somebody \
         who may get nodes/proxy"
    ))
}

fn separator(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "; " }
}

fn told(json: &[u8]) -> Result<Known, String> {
    let list = PodList::parse(json)?;
    Ok(Known::Pods {
        pods: list.pods,
        asked: format!("not among its {} pods", list.items),
    })
}

/// Each way to ask, with whose credentials it uses.
fn servers(asking: &Asking) -> Result<Vec<(String, Server)>, String> {
    let mut servers = Vec::new();
    if let Ok(address) = &asking.ports.secure {
        for credentials in &asking.credentials {
            servers.push((credentials.from.clone(), secure(*address, credentials)?));
        }
    }
    if let Some(address) = asking.ports.read_only {
        servers.push(("the read-only port".to_owned(), plain(address)));
    }
    match (&asking.ports.secure, servers.is_empty()) {
        (Err(reason), true) => Err(reason.clone()),
        _ => Ok(servers),
    }
}

fn secure(address: SocketAddr, credentials: &Credentials) -> Result<Server, String> {
    let config = tls::of_process(credentials.identity.as_ref())
        .map_err(|reason| format!("{}: {reason}", credentials.from))?;
    Ok(Server {
        address,
        host: address.to_string(),
        tls: Some(Tls {
            config,
            name: ServerName::IpAddress(address.ip().into()),
        }),
        token: credentials.token.clone(),
    })
}

fn plain(address: SocketAddr) -> Server {
    Server {
        address,
        host: address.to_string(),
        tls: None,
        token: None,
    }
}

/// The port for health checks answers anybody; where it is turned off, the list's own port has the same page.
async fn healthy(asking: &Asking, servers: &[(String, Server)]) -> Result<(), String> {
    let own = asking.ports.healthz.map(plain);
    let mut said = Err("it does not say whether it is well".to_owned());
    for server in own.iter().chain(servers.iter().map(|(_, server)| server)) {
        said = match get(server, "/healthz").await {
            Ok(text) if text.trim_ascii() == b"ok" => return Ok(()),
            Ok(text) => Err(String::from_utf8_lossy(&text).chars().take(120).collect()),
            Err(Failure::Denied(reason)) => Err(reason),
            // It answered, and is not well: no other port will say better.
            Err(Failure::Failed(reason)) => return Err(format!("/healthz: {reason}")),
        };
    }
    said.map_err(|reason| format!("/healthz: {reason}"))
}

#[cfg(test)]
#[path = "kubelet_tests.rs"]
mod tests;
