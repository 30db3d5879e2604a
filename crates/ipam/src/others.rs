//! What belongs to other containers by now, or to one that no runtime knows. Pure.
//!
//! A DEL takes more than reservations: the plugin bridge deletes the interface in the namespace at the cached path
//! (`cmdDel` in plugins/main/bridge/bridge.go), and the plugin firewall deletes the rules of the cached addresses
//! (`delRules` in plugins/meta/firewall/iptables.go). Both a path and an address may have been given away since.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nodemend_cni::CacheEntry;
use nodemend_evidence::Claim;
use nodemend_procns::Netns;
use nodemend_runtime::Index;

use crate::addresses::{Addresses, Owner, Spot, owner};
use crate::scene::{in_run, mounts};
use crate::survey::Survey;

/// The containers of which an address is configured in a namespace that no runtime accounts for: the container may
/// live there, and then all its addresses are its own. What a known sandbox has says nothing of another id.
pub(crate) fn siblings<'a>(
    survey: &'a Survey,
    addresses: &Addresses<'a>,
) -> HashMap<&'a str, (IpAddr, Spot<'a>)> {
    let mut siblings: HashMap<&str, (IpAddr, Spot<'a>)> = HashMap::new();
    for reservation in &survey.reservations {
        let (Some(id), Some(ip)) = (reservation.id.as_deref(), reservation.ip) else {
            continue;
        };
        for spot in addresses.spots(ip) {
            match *spot.owner {
                Owner::Process(_) => {
                    siblings.insert(id, (ip, spot.clone()));
                }
                Owner::Nobody => {
                    siblings.entry(id).or_insert_with(|| (ip, spot.clone()));
                }
                Owner::Host | Owner::Sandbox(_) => {}
            }
        }
    }
    siblings
}

/// The attachments of which a DEL would take what is another container's by now: their cache files, with the reason.
pub(crate) fn refusals<'a>(
    survey: &'a Survey,
    index: &Index,
    addresses: &Addresses<'_>,
) -> HashMap<&'a Path, String> {
    if survey.cache.is_empty() {
        return HashMap::new();
    }
    let others = Others::of(survey, index, addresses);
    let refused = survey
        .cache
        .iter()
        .map(|entry| (&*entry.path, others.refusal(entry)));
    refused.filter_map(|(path, why)| Some((path, why?))).collect()
}

struct Others<'a, 'b> {
    survey: &'a Survey,
    index: &'b Index,
    addresses: &'b Addresses<'b>,
    /// The namespaces by the paths that they are mounted at.
    namespaces: HashMap<PathBuf, &'a Netns>,
    /// Every reservation of an address: the id in it, if it has one.
    reserved: HashMap<IpAddr, Vec<Option<&'a str>>>,
}

impl<'a, 'b> Others<'a, 'b> {
    fn of(survey: &'a Survey, index: &'b Index, addresses: &'b Addresses<'b>) -> Self {
        let mut namespaces = HashMap::new();
        for netns in &survey.census.namespaces {
            namespaces.extend(mounts(netns).map(|path| (in_run(path), netns)));
        }
        let mut reserved: HashMap<_, Vec<_>> = HashMap::new();
        for reservation in &survey.reservations {
            if let Some(ip) = reservation.ip {
                reserved.entry(ip).or_default().push(reservation.id.as_deref());
            }
        }
        Self {
            survey,
            index,
            addresses,
            namespaces,
            reserved,
        }
    }

    fn refusal(&self, entry: &CacheEntry) -> Option<String> {
        let path = in_run(&entry.netns);
        if let Some(user) = self.user_of(&path) {
            return Some(format!(
                "{} is used by {user}, and the DEL would take the {} in it",
                entry.netns.display(),
                entry.ifname
            ));
        }
        let taken = |ip: &IpAddr| Some(format!("{ip} is {} by now", self.holder_of(*ip, entry)?));
        entry.ips.iter().find_map(taken)
    }

    /// Who may use the namespace at a path: somebody in it, a sandbox, or a plugin that is just making it.
    fn user_of(&self, path: &Path) -> Option<String> {
        let mut calls = self.survey.census.cni_calls();
        if let Some((process, call)) = calls.find(|(_, call)| in_run(&call.netns) == path) {
            return Some(format!(
                "process {}, which is at CNI {}",
                process.pid, call.command
            ));
        }
        let netns = *self.namespaces.get(path)?;
        match owner(self.survey, self.index, netns.id, Some(netns)) {
            Owner::Host => return Some("the host".to_owned()),
            Owner::Sandbox(name) | Owner::Process(name) => return Some(name),
            Owner::Nobody if !netns.is_mount_only() => {
                return Some("something that holds it open".to_owned());
            }
            Owner::Nobody => {}
        }
        let said = self.index.of_netns(netns.id, &[path]);
        let doubt = said.iter().find(|said| !matches!(said.claim, Claim::Absent(_)));
        doubt.map(|said| format!("a sandbox, perhaps ({}: {})", said.source, said.claim.detail()))
    }

    /// Who has an address that was this attachment's.
    fn holder_of(&self, ip: IpAddr, entry: &CacheEntry) -> Option<String> {
        if let Some(spot) = self.addresses.spots(ip).first() {
            return Some(format!("configured on {}", spot.told()));
        }
        let ids = self.reserved.get(&ip)?;
        match ids.iter().find(|id| **id != Some(&entry.container_id))? {
            Some(id) => Some(format!("reserved for {id}")),
            None => Some("reserved by a file that names no container".to_owned()),
        }
    }
}
