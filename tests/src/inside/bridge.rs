//! `bridge` with `host-local`, for a machine that has no CNI plugins: the same objects and files, made with `ip`.
//!
//! No masquerading, no hairpin, no routes but the default one.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use crate::error::{Doing, LabError, Result};
use crate::inside::hook;
use crate::sandbox::random_uuid;

/// The plugin's name.
pub const NAME: &str = "bridge";

/// The plugin as the CNI specification wants it.
pub fn run() -> ExitCode {
    let mut input = String::new();
    let _ = std::io::stdin().read_to_string(&mut input);
    let config: Value = serde_json::from_str(&input).unwrap_or_default();
    let call = Call::new(config);
    let answer = match hook::variable("CNI_COMMAND").as_str() {
        "ADD" => call.add().map(Some),
        "DEL" => call.del().map(|()| None),
        "VERSION" => Ok(Some(hook::versions(&call.config))),
        _ => Ok(None),
    };
    hook::say(answer.map_err(|error| error.to_string()), &call.config)
}

struct Call {
    config: Value,
    id: String,
    netns: String,
    interface: String,
}

/// One address for the pod, and what belongs to it.
struct Lease {
    ip: IpAddr,
    gateway: IpAddr,
    length: u32,
}

impl Call {
    fn new(config: Value) -> Self {
        let [id, netns, interface] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].map(hook::variable);
        Call {
            config,
            id,
            netns,
            interface,
        }
    }

    fn add(&self) -> Result<Value> {
        let bridge = self.config["bridge"].as_str().unwrap_or("cni0");
        if ip(&["link", "show", bridge]).is_err() {
            ip(&["link", "add", bridge, "type", "bridge"])?;
            ip(&["link", "set", bridge, "up"])?;
        }
        let leases = self.lease_all()?;
        let veth = format!("veth{}", random_uuid()?.get(..8).unwrap_or_default());
        let eth = self.interface.as_str();
        ip(&[
            "link",
            "add",
            &veth,
            "type",
            "veth",
            "peer",
            "name",
            eth,
            "netns",
            &self.netns,
        ])?;
        ip(&["link", "set", &veth, "master", bridge, "up"])?;
        self.ip_inside(&["link", "set", eth, "up"])?;
        for lease in &leases {
            let Lease {
                ip: address,
                gateway,
                length,
            } = lease;
            // Without a trial of the address there is no wait before it works.
            let own = format!("{gateway}/{length}");
            ip(&with_nodad(&["addr", "replace", &own, "dev", bridge], *gateway))?;
            let pods = format!("{address}/{length}");
            self.ip_inside(&with_nodad(&["addr", "add", &pods, "dev", eth], *address))?;
            self.ip_inside(&["route", "add", "default", "via", &gateway.to_string(), "dev", eth])?;
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").doing(|| "let the node forward".to_owned())?;
        Ok(self.result(bridge, &veth, &leases))
    }

    fn result(&self, bridge: &str, veth: &str, leases: &[Lease]) -> Value {
        let ips = leases.iter().map(|lease| {
            json!({
                "version": if lease.ip.is_ipv4() { "4" } else { "6" }, "interface": 2,
                "address": format!("{}/{}", lease.ip, lease.length), "gateway": lease.gateway.to_string(),
            })
        });
        json!({
            "cniVersion": self.config["cniVersion"],
            "interfaces": [
                {"name": bridge}, {"name": veth}, {"name": self.interface, "sandbox": self.netns},
            ],
            "ips": ips.collect::<Vec<_>>(),
            "routes": self.config["ipam"]["routes"],
            "dns": {},
        })
    }

    fn del(&self) -> Result<()> {
        self.release()?;
        if !self.netns.is_empty() && self.ip_inside(&["link", "show", &self.interface]).is_ok() {
            self.ip_inside(&["link", "del", &self.interface])?;
        }
        Ok(())
    }

    fn ip_inside(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns))
            .args(["--", "ip"])
            .args(arguments);
        finish(command)
    }

    fn directory(&self) -> PathBuf {
        let base = self.config["ipam"]["dataDir"]
            .as_str()
            .unwrap_or("/var/lib/cni/networks");
        Path::new(base).join(self.config["name"].as_str().unwrap_or_default())
    }

    /// One address of every range, or none at all.
    fn lease_all(&self) -> Result<Vec<Lease>> {
        let dir = self.directory();
        fs::create_dir_all(&dir).at("make", &dir)?;
        let _lock = locked(&dir)?;
        let sets = self.config["ipam"]["ranges"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let subnets = sets
            .iter()
            .map(|set| set[0]["subnet"].as_str().unwrap_or_default());
        let leases: Result<Vec<Lease>> = subnets
            .enumerate()
            .map(|(index, subnet)| self.lease(&dir, index, subnet))
            .collect();
        if leases.is_err() {
            self.release_in(&dir);
        }
        leases
    }

    /// Round robin from the last one, as host-local does it.
    fn lease(&self, dir: &Path, index: usize, subnet: &str) -> Result<Lease> {
        let (first, last, length, v4) = range(subnet)?;
        let cursor = dir.join(format!("last_reserved_ip.{index}"));
        let latest: Option<IpAddr> = fs::read_to_string(&cursor)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let start = latest
            .map(number)
            .filter(|at| (first..last).contains(at))
            .map_or(first, |at| at + 1);
        for candidate in (start..=last).chain(first..start) {
            let ip = address(candidate, v4);
            let path = dir.join(ip.to_string());
            match File::create_new(&path) {
                Ok(mut file) => {
                    write!(file, "{}", self.content()).at("write", &path)?;
                    fs::write(&cursor, ip.to_string()).at("write", &cursor)?;
                    return Ok(Lease {
                        ip,
                        gateway: address(first - 1, v4),
                        length,
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).at("make", &path),
            }
        }
        let (from, to) = (address(first - 1, v4), address(last, v4));
        Err(LabError::Odd(format!(
            "no IP addresses available in range set: {from}-{to}"
        )))
    }

    fn content(&self) -> String {
        format!("{}\r\n{}", self.id, self.interface)
    }

    fn release(&self) -> Result<()> {
        let dir = self.directory();
        if dir.exists() {
            let _lock = locked(&dir)?;
            self.release_in(&dir);
        }
        Ok(())
    }

    fn release_in(&self, dir: &Path) {
        let ours = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text == self.content());
        let files = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        files.filter(|path| ours(path)).for_each(|path| {
            let _ = fs::remove_file(path);
        });
    }
}

fn locked(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .at("open", &path)?;
    file.lock().at("lock", &path)?;
    Ok(file)
}

/// First and last address for pods, the prefix length, and whether it is IPv4.
fn range(subnet: &str) -> Result<(u128, u128, u32, bool)> {
    let odd = || LabError::Odd(format!("`{subnet}` is no subnet"));
    let (base, length) = subnet.split_once('/').ok_or_else(odd)?;
    let base: IpAddr = base.parse().map_err(|_error| odd())?;
    let length: u32 = length.parse().map_err(|_error| odd())?;
    let bits: u32 = if base.is_ipv4() { 32 } else { 128 };
    let hosts = bits
        .checked_sub(length)
        .filter(|hosts| (2..=64).contains(hosts))
        .ok_or_else(odd)?;
    let end = number(base) + (1u128 << hosts) - 1;
    // IPv6 has no broadcast, but host-local leaves the last one out all the same.
    Ok((number(base) + 2, end - 1, length, base.is_ipv4()))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from(number).into(),
        Ok(_) | Err(_) => Ipv6Addr::from(number).into(),
    }
}

fn with_nodad<'a>(arguments: &[&'a str], ip: IpAddr) -> Vec<&'a str> {
    let flag = ip.is_ipv6().then_some("nodad");
    arguments.iter().copied().chain(flag).collect()
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    finish(command)
}

fn finish(mut command: Command) -> Result<()> {
    let done = command.output().doing(|| "run ip".to_owned())?;
    if done.status.success() {
        return Ok(());
    }
    Err(LabError::Odd(
        String::from_utf8_lossy(&done.stderr).trim().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leaves_out_network_gateway_and_broadcast() {
        let (first, last, length, v4) = range("10.88.0.0/25").unwrap();
        assert_eq!(
            (address(first, v4), address(last, v4)),
            ("10.88.0.2".parse().unwrap(), "10.88.0.126".parse().unwrap())
        );
        assert_eq!(length, 25);
        let (first, ..) = range("fd00:88::/112").unwrap();
        assert_eq!(address(first, false).to_string(), "fd00:88::2");
        assert!(range("10.88.0.0/31").is_err() && range("pods").is_err());
    }
}
