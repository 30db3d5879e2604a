//! Where sockets of a network namespace wait for others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nodemend_hostfs::Host;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::census::Process;
use crate::error::Error;
use crate::pool::{self, Pulse};
use crate::procfs::{open_proc, read_records};

/// The most of one table that is read, in bytes: some 400,000 sockets.
const LIMIT: usize = 64 << 20;
/// The tables below /proc/PID/net, with the state of a socket that waits: `TCP_LISTEN`, and `TCP_CLOSE` for a UDP socket
/// that is connected to nobody (include/net/tcp_states.h).
const TABLES: [(&str, Protocol, &str); 4] = [
    ("tcp", Protocol::Tcp, "0A"),
    ("tcp6", Protocol::Tcp, "0A"),
    ("udp", Protocol::Udp, "07"),
    ("udp6", Protocol::Udp, "07"),
];

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A socket that waits for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address.
    pub at: SocketAddr,
    /// Its inode, which the text of an open file names (`socket:[…]`).
    pub inode: u64,
}

impl fmt::Display for Listener {
    /// `0.0.0.0:8080/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.at)
    }
}

/// What waits in the network namespaces of these processes. Give one process for each namespace. None of its sockets is
/// told of a process that has ended, and of one whose tables the kernel does not give within two seconds: whoever
/// listens proves nothing either way.
///
/// # Errors
/// As [`crate::Census::take`].
pub fn listeners(host: &Host, processes: &[&Process]) -> Result<Vec<Listener>, Error> {
    if !host.is_running() {
        return Err(Error::NotRunning {
            root: host.root().to_owned(),
        });
    }
    let proc = open_proc().map_err(Error::proc("open", "/proc"))?;
    let pids = processes.iter().map(|process| process.pid).collect();
    let work = move |pid: &u32, pulse: &Pulse, answer: &mut dyn FnMut(Listener)| {
        for table in TABLES {
            pulse.beat();
            // If not: the process has ended, or the kernel has no IPv6.
            if let Ok(found) = waiting(&proc, *pid, table) {
                found.into_iter().for_each(&mut *answer);
            }
        }
    };
    let done = pool::run(pids, Box::new(work)).map_err(Error::Thread)?;
    Ok(done.answers)
}

fn waiting(
    proc: &OwnedFd,
    pid: u32,
    (name, protocol, state): (&str, Protocol, &str),
) -> Result<Vec<Listener>, Errno> {
    let mut buffer = Vec::new();
    read_records(proc, format!("{pid}/net/{name}"), &mut buffer, LIMIT)?;
    let text = String::from_utf8_lossy(&buffer);
    let lines = text.lines().skip(1);
    Ok(lines.filter_map(|line| parse(line, protocol, state)).collect())
}

/// A line of the form of proc_pid_net(5).
fn parse(line: &str, protocol: Protocol, state: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    // After the remote address.
    if fields.nth(1)? != state {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Listener {
        protocol,
        at: SocketAddr::new(address(ip)?, port),
        inode,
    })
}

/// Each 32 bits of an address stand as a number in the byte order of the machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::Census;

    #[test]
    fn what_this_process_listens_on_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let census = Census::take(&Host::local()).unwrap();
        let own = census.process(std::process::id()).unwrap();
        let found: Vec<String> = listeners(&Host::local(), &[own])
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            found.contains(&format!("{}/tcp", tcp.local_addr().unwrap())),
            "{found:?}"
        );
        assert!(
            found.contains(&format!("{}/udp", udp.local_addr().unwrap())),
            "{found:?}"
        );
    }

    #[test]
    fn a_connection_is_no_listener() {
        let line =
            "1: 0100007F:280A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 72 1 0";
        assert_eq!(parse(line, Protocol::Tcp, "0A"), None);
        let line = "0: 00000000000000000000000000000000:280A 00000000000000000000000000000000:0000 0A \
                    00000000:00000000 00:00000000 00000000     0        0 73 1 0";
        assert_eq!(
            parse(line, Protocol::Tcp, "0A").unwrap().to_string(),
            "[::]:10250/tcp"
        );
    }
}
