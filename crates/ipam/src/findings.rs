//! What is wrong and no removal mends. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use nodemend_cni::Problem;
use nodemend_runtime::Index;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addresses::{Addresses, Owner, Spot};
use crate::networks::NetworkDir;
use crate::scene::ties;
use crate::survey::Survey;
use crate::usage::range_sets;

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is, in a few words.
    pub what: String,
    /// Where, and what follows from it.
    pub detail: String,
}

/// Finds the two inverse leaks: an address in use that no file reserves, so that host-local gives it out again, and
/// an address that already is in two namespaces.
pub fn findings(survey: &Survey) -> Vec<Finding> {
    let index = Index::new(&survey.knowledge, &survey.census, &ties(survey));
    let addresses = Addresses::of(survey, &index);
    let reserved: HashSet<IpAddr> = survey
        .reservations
        .iter()
        .filter_map(|reservation| reservation.ip)
        .collect();
    let mut findings = Vec::new();
    for (ip, spots) in addresses.all() {
        let network = home(survey, ip);
        if network.is_some() || reserved.contains(&ip) {
            findings.extend(twice(ip, spots));
        }
        if let Some(network) = network.filter(|_| !reserved.contains(&ip)) {
            findings.extend(unreserved(ip, spots, network));
        }
    }
    findings.extend(survey.cache_problems.iter().map(unusable));
    findings.sort_unstable();
    findings
}

/// The network that hands this address out, if its files could be read.
fn home(survey: &Survey, ip: IpAddr) -> Option<&NetworkDir> {
    let mut readable = survey.networks.iter().filter(|network| network.problem.is_none());
    readable.find(|network| range_sets(survey, network).any(|set| set.contains(ip)))
}

fn unreserved(ip: IpAddr, spots: &[Spot<'_>], network: &NetworkDir) -> Option<Finding> {
    let owned = |spot: &&Spot<'_>| matches!(*spot.owner, Owner::Sandbox(_) | Owner::Process(_));
    let spot = spots.iter().find(owned)?;
    Some(Finding {
        what: "address in use without a reservation".to_owned(),
        detail: format!(
            "{ip} is configured on {}, and {} has no file for it: host-local can give it to another pod",
            spot.told(),
            network.dir
        ),
    })
}

fn twice(ip: IpAddr, spots: &[Spot<'_>]) -> Option<Finding> {
    let first = spots.first()?;
    let second = spots.iter().find(|spot| spot.netns != first.netns)?;
    Some(Finding {
        what: "the same address twice".to_owned(),
        detail: format!(
            "{ip} is configured on {}, and on {}: traffic to it is lost",
            first.told(),
            second.told()
        ),
    })
}

/// A cache file without which the DEL of its attachment cannot be run again.
fn unusable(problem: &Problem) -> Finding {
    Finding {
        what: "file of libcni's cache that cannot be used".to_owned(),
        detail: format!("{}: {}", problem.path.display(), problem.reason),
    }
}
