//! The address of the API server, when its kubeconfig has a name.
//!
//! libc's look-up is not used: in a static binary it loads parts of the node's own libc, which may be another release, and
//! they do not fit. What is needed is little: `/etc/hosts`, and one question to the name servers of `/etc/resolv.conf`
//! (RFC 1035). A wrong address does no harm: the server must prove its name by TLS.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nodemend_hostfs::Host;
use tokio::net::UdpSocket;

const LIMIT: u64 = 1 << 20;
/// How long each name server may take.
const PATIENCE: Duration = Duration::from_millis(1500);
const A: u16 = 1;
const AAAA: u16 = 28;
const DNS_PORT: u16 = 53;

/// What the node knows of names, read from files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    hosts: String,
    servers: Vec<IpAddr>,
}

impl Names {
    pub(crate) fn of(host: &Host) -> Self {
        let read = |path: &str| {
            let bytes = host.read(Path::new(path), LIMIT).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self {
            hosts: read("/etc/hosts"),
            servers: servers(&read("/etc/resolv.conf")),
        }
    }

    /// The first address of a host.
    pub(crate) async fn find(&self, name: &str) -> Result<IpAddr, String> {
        if let Some(known) = name.parse().ok().or_else(|| in_hosts(&self.hosts, name)) {
            return Ok(known);
        }
        let mut said =
            format!("{name}: it is not in /etc/hosts, and /etc/resolv.conf names no server to ask");
        for server in &self.servers {
            for kind in [A, AAAA] {
                match ask(SocketAddr::new(*server, DNS_PORT), name, kind).await {
                    Ok(Some(address)) => return Ok(address),
                    Ok(None) => said = format!("{name}: name server {server} knows no address of it"),
                    Err(reason) => {
                        said = format!("{name}: name server {server}: {reason}");
                        break;
                    }
                }
            }
        }
        Err(said)
    }
}

fn in_hosts(hosts: &str, name: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    })
}

fn servers(conf: &str) -> Vec<IpAddr> {
    let lines = conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).collect()
}

async fn ask(server: SocketAddr, name: &str, kind: u16) -> Result<Option<IpAddr>, String> {
    let exchange = async {
        let any: IpAddr = if server.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        let id = id();
        let question = question(id, name, kind).ok_or_else(|| std::io::Error::other("no name of a host"))?;
        socket.send(&question).await?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let message = buffer.get(..length).unwrap_or_default();
            // An answer to something else is not waited for.
            if message.get(..2) == Some(&id.to_be_bytes()) {
                return Ok::<_, std::io::Error>(answer(message, kind));
            }
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("did not answer within {} ms", PATIENCE.as_millis())),
    }
}

/// Only to tell answers apart: nobody is believed for knowing it.
fn id() -> u16 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec;
    u16::try_from(now & 0xffff).unwrap_or_default()
}

/// One question, with recursion asked for.
fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(name.len() + 18);
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    Some(message)
}

/// The first address of that kind among the answers.
fn answer(message: &[u8], kind: u16) -> Result<Option<IpAddr>, String> {
    let cut = || "its answer is cut".to_owned();
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let code = word(2).ok_or_else(cut)? & 0xf;
    if code != 0 {
        return Err(format!("it answers with error {code}"));
    }
    let (questions, answers) = (word(4).ok_or_else(cut)?, word(6).ok_or_else(cut)?);
    let mut at = 12;
    for _ in 0..questions {
        at = after_name(message, at).ok_or_else(cut)? + 4;
    }
    for _ in 0..answers {
        at = after_name(message, at).ok_or_else(cut)?;
        let (found, length) = (word(at).ok_or_else(cut)?, word(at + 8).ok_or_else(cut)?);
        let data = message
            .get(at + 10..at + 10 + usize::from(length))
            .ok_or_else(cut)?;
        if found == kind {
            return Ok(address(data));
        }
        at += 10 + usize::from(length);
    }
    Ok(None)
}

fn address(data: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(data).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(data).ok().map(IpAddr::from))
}

/// Behind a name, which ends with an empty label or with a pointer to the rest of it.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn files_come_before_servers() {
        let hosts = "127.0.0.1 localhost\n# 1.1.1.1 api\n10.0.0.1\tnode-1 api.example.org # 9.9.9.9 api\n::1 localhost6\n";
        assert_eq!(
            in_hosts(hosts, "API.example.org").unwrap().to_string(),
            "10.0.0.1"
        );
        assert_eq!(in_hosts(hosts, "localhost6").unwrap().to_string(), "::1");
        assert_eq!(in_hosts(hosts, "api"), None);
        let conf = "search example.org\nnameserver 127.0.0.53\n; nameserver 9.9.9.9\nnameserver fd00::1\nnameserver x\n";
        let told: Vec<_> = servers(conf).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["127.0.0.53", "fd00::1"]);
    }

    /// api.example.org is a CNAME of lb.example.org, which is 10.0.0.7.
    fn recorded() -> Vec<u8> {
        let mut message = question(7, "api.example.org", A).unwrap();
        message[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2]);
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 5, 2, b'l', b'b', 0xc0, 16]);
        message.extend([0xc0, 45, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 7]);
        message
    }

    #[test]
    fn an_answer_is_read_behind_its_aliases_and_a_cut_one_never() {
        let message = recorded();
        assert_eq!(answer(&message, A), Ok(Some("10.0.0.7".parse().unwrap())));
        assert_eq!(answer(&message, AAAA), Ok(None));
        for cut in 0..message.len() {
            assert!(answer(&message[..cut], A).is_err(), "{cut}");
        }
        let mut refused = message;
        refused[3] = 0x83;
        assert_eq!(answer(&refused, A), Err("it answers with error 3".into()));
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for name in ["", ".", "a..b", &"x".repeat(64)] {
            assert_eq!(question(1, name, A), None, "{name}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let names = Names::default();
        assert_eq!(
            runtime.block_on(names.find("10.0.0.1")).unwrap().to_string(),
            "10.0.0.1"
        );
        assert!(
            runtime
                .block_on(names.find("api"))
                .unwrap_err()
                .contains("no server to ask")
        );
    }
}
