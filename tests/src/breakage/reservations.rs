//! Reservation files of every kind that is found on nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{LabError, Result};
use crate::image::hex;
use crate::node::Node;
use crate::sandbox::random_uuid;

/// What stands in a reservation file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// As host-local writes it since 0.8.0: the container's id, CR LF, the interface.
    Current(String),
    /// As it wrote it before: the bare id. A DEL of today's plugin still finds it.
    BeforeInterface(String),
    /// What a crash or a full disk leaves between making the file and writing it. No DEL can match it.
    Empty,
    /// As nerdctl writes it: the containerd namespace in front of the id.
    Nerdctl(String),
    /// Anything else: an operator's note, an allocation of another scheduler.
    Text(String),
}

impl Reservation {
    /// One of the current form, for a container that never was.
    ///
    /// # Errors
    ///
    /// When the kernel gives no random id.
    pub fn orphan() -> Result<Reservation> {
        random_id().map(Reservation::Current)
    }

    /// The content of the file.
    pub fn content(&self) -> String {
        match self {
            Reservation::Current(id) => format!("{id}\r\neth0"),
            Reservation::BeforeInterface(id) => id.clone(),
            Reservation::Empty => String::new(),
            Reservation::Nerdctl(id) => format!("default-{id}\r\neth0"),
            Reservation::Text(text) => text.clone(),
        }
    }
}

/// An id of the runtime's form that nobody has: 64 hexadecimal digits.
///
/// # Errors
///
/// When the kernel gives no random number.
pub fn random_id() -> Result<String> {
    Ok(hex(&Sha256::digest(random_uuid()?)))
}

impl Node {
    /// The directory of a network's reservations, inside the node.
    pub fn reservations_of(&self, network: &str) -> PathBuf {
        self.data_dir().join(network)
    }

    /// The reserved addresses of a network, sorted as text.
    pub fn reserved(&self, network: &str) -> Vec<IpAddr> {
        let names = self.names(self.reservations_of(network));
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Writes a file among a network's reservations, in any network: the name need not be an address.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn write_reservation(&self, network: &str, name: &str, what: &Reservation) -> Result<PathBuf> {
        let path = self.reservations_of(network).join(name);
        self.write(&path, &what.content())?;
        Ok(path)
    }

    /// Reserves every free address of the node's first range for containers that never were, with old times: no pod can start.
    ///
    /// # Errors
    ///
    /// When that range is not IPv4, or a file cannot be written.
    pub fn fill_range(&self) -> Result<Vec<IpAddr>> {
        let network = &self.options.network;
        let taken = self.reserved(network);
        let mut filled = Vec::new();
        for address in self
            .addresses()?
            .into_iter()
            .map(IpAddr::V4)
            .filter(|address| !taken.contains(address))
        {
            let path = self.write_reservation(network, &address.to_string(), &Reservation::orphan()?)?;
            self.age_file(&path, Duration::from_secs(7200))?;
            filled.push(address);
        }
        Ok(filled)
    }

    /// The addresses that pods may get: without the network's own, the gateway and the broadcast.
    fn addresses(&self) -> Result<Vec<Ipv4Addr>> {
        let subnet = self
            .options
            .subnets
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        let odd = || LabError::Odd(format!("`{subnet}` is no IPv4 range that could be filled"));
        let (base, length) = subnet.split_once('/').ok_or_else(odd)?;
        let base = u32::from(base.parse::<Ipv4Addr>().map_err(|_error| odd())?);
        let length: u32 = length
            .parse()
            .ok()
            .filter(|length| (16..=30).contains(length))
            .ok_or_else(odd)?;
        let last = base | (u32::MAX >> length);
        Ok((base + 2..last).map(Ipv4Addr::from).collect())
    }
}
