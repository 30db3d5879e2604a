//! Who listens on a port of this host: nothing is sent to a port before it is known to be kubelet's.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nodemend_hostfs::Host;
use rustix::fs::{CWD, Mode, OFlags};

const TABLE_LIMIT: u64 = 64 << 20;
/// The state of a listening socket (`TCP_LISTEN` in include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) at: SocketAddr,
    pub(crate) inode: u64,
}

/// Every TCP listener of this network namespace.
pub(crate) fn all(host: &Host) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for name in ["tcp", "tcp6"] {
        let path = format!("/proc/self/net/{name}");
        match host.read(Path::new(&path), TABLE_LIMIT) {
            Ok(table) => listeners.extend(parse(&String::from_utf8_lossy(&table))),
            // A kernel without IPv6.
            Err(error) if error.is_not_found() && name == "tcp6" => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(listeners)
}

/// The listeners in a table of the form of proc_net_tcp(5).
fn parse(table: &str) -> Vec<Listener> {
    table.lines().skip(1).filter_map(line).collect()
}

fn line(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    // After the remote address.
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Listener {
        at: SocketAddr::new(address(ip)?, port),
        inode,
    })
}

/// Each 32 bits of an address stand as a number in the byte order of the machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
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

/// The sockets that a process has open.
pub(crate) fn sockets_of(pid: u32) -> Result<HashSet<u64>, String> {
    let path = format!("/proc/{pid}/fd");
    let failed = |errno: rustix::io::Errno| format!("{path}: {errno}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path.as_str(), flags, Mode::empty()).map_err(failed)?;
    let mut sockets = HashSet::new();
    let mut entries = rustix::fs::Dir::read_from(&dir).map_err(failed)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed)?;
        if let Ok(text) = rustix::fs::readlinkat(&dir, entry.file_name(), Vec::new()) {
            let text = text.to_string_lossy();
            let inode = text
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'));
            sockets.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    Ok(sockets)
}

/// Where a port of the process with these sockets can be reached. The reason, if nobody listens there, or somebody else
/// could be the one who answers.
pub(crate) fn reach(all: &[Listener], own: &HashSet<u64>, port: u16) -> Result<SocketAddr, String> {
    let on_port = || all.iter().filter(|listener| listener.at.port() == port);
    let Some(its_own) = on_port().find(|listener| own.contains(&listener.inode)) else {
        return Err(match on_port().next() {
            Some(_) => format!("port {port} is held by another process than kubelet: nothing was sent to it"),
            None => format!("kubelet does not listen on port {port}"),
        });
    };
    let target = target(its_own.at);
    let rival = on_port().find(|other| !own.contains(&other.inode) && answers(other.at.ip(), target.ip()));
    match rival {
        Some(rival) => Err(format!(
            "port {port} is held by another process, too ({}): nothing was sent to it",
            rival.at
        )),
        None => Ok(target),
    }
}

/// A listener on every address is reached by loopback.
fn target(at: SocketAddr) -> SocketAddr {
    // One on [::] takes IPv4 as well, unless told otherwise; and a host may have no IPv6 on lo.
    let ip = if at.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        at.ip()
    };
    SocketAddr::new(ip, at.port())
}

/// True if a listener there could get what is sent to the target.
fn answers(listener: IpAddr, target: IpAddr) -> bool {
    listener.is_unspecified() || listener == target
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1 0 100 0 0 10 0\n   \
        1: 0100007F:280A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 72 1 0 100 0 0 10 0\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue\n   \
        0: 00000000000000000000000000000000:280A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 73 1 0 100 0 0 10 0\n   \
        1: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 74 1 0 100 0 0 10 0\n";

    fn table() -> Vec<Listener> {
        parse(TCP).into_iter().chain(parse(TCP6)).collect()
    }

    #[test]
    fn listeners_are_read_from_both_tables_and_connections_are_not() {
        let told: Vec<_> = table().iter().map(|l| (l.at.to_string(), l.inode)).collect();
        assert_eq!(
            told,
            [
                ("127.0.0.1:10248".to_owned(), 71),
                ("[::]:10250".to_owned(), 73),
                ("[::1]:8080".to_owned(), 74)
            ]
        );
    }

    #[test]
    fn a_port_is_asked_only_if_it_is_kubelets_own() {
        let reached = |own: &[u64], port| reach(&table(), &own.iter().copied().collect(), port);
        assert_eq!(reached(&[73], 10250).unwrap().to_string(), "127.0.0.1:10250");
        assert_eq!(reached(&[71], 10248).unwrap().to_string(), "127.0.0.1:10248");
        assert!(
            reached(&[71], 10250)
                .unwrap_err()
                .contains("another process than kubelet")
        );
        assert!(reached(&[71], 10255).unwrap_err().contains("does not listen"));
    }

    #[test]
    fn a_second_listener_that_could_answer_spoils_the_port() {
        let at = |text: &str, inode| Listener {
            at: text.parse().unwrap(),
            inode,
        };
        let own = HashSet::from([1]);
        let shared = [at("0.0.0.0:10250", 1), at("127.0.0.1:10250", 2)];
        assert!(
            reach(&shared, &own, 10250)
                .unwrap_err()
                .contains("another process, too")
        );
        let apart = [at("10.0.0.5:10250", 1), at("127.0.0.1:10250", 2)];
        assert_eq!(reach(&apart, &own, 10250).unwrap().to_string(), "10.0.0.5:10250");
    }
}
