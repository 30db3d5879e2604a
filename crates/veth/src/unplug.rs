//! Removing confirmed pairs by their links.

use std::collections::HashSet;

use nodemend_evidence::Confirmed;
use nodemend_rtnl::{Link, Links, blocking::host_links};

use crate::error::Error;
use crate::pair::VethPair;

/// The first group number that is tried: far from what people choose by hand.
const FIRST_GROUP: u32 = 0x6e6d_0000;
const LAST_GROUP: u32 = 0x6e6d_ffff;

/// What became of each pair, in the order given.
pub(crate) type Outcomes = Vec<Result<(), String>>;

/// True for a group that a run of this tool uses, or that an ended run left behind.
pub(crate) fn is_own_group(group: u32) -> bool {
    (FIRST_GROUP..=LAST_GROUP).contains(&group)
}

/// Removes the host's links of confirmed pairs; the inner ends go with them.
///
/// One removal waits for an RCU grace period, about 17 ms, and so do a thousand, if they are removed as one link
/// group. So they are put into an unused group, the group is read back, and it is removed only if it holds exactly
/// these links. Kernels that do not know group removal get one removal after the other.
pub(crate) async fn unplug(confirmed: Vec<Confirmed<'_, VethPair>>) -> Result<Outcomes, Error> {
    let links = Links::connect()?;
    let pairs: Vec<&VethPair> = confirmed.iter().map(Confirmed::subject).collect();
    if pairs.len() > 1 && by_group(&links, &pairs).await?.is_some() {
        return Ok(pairs.iter().map(|_| Ok(())).collect());
    }
    let mut outcomes = Vec::with_capacity(pairs.len());
    for pair in pairs {
        outcomes.push(one(&links, pair).await);
    }
    Ok(outcomes)
}

/// Gives nothing if the pairs cannot be removed as a group; then they are as they were before.
async fn by_group(links: &Links, pairs: &[&VethPair]) -> Result<Option<()>, Error> {
    let Some(group) = unused_group(&host_links()?) else {
        return Ok(None);
    };
    for pair in pairs {
        if links.set_group(pair.ifindex, group).await.is_err() {
            return ungroup(links, pairs).await;
        }
    }
    // A group goes whole, so nothing else may have slipped into it, and each must still be itself.
    let expected: HashSet<_> = pairs
        .iter()
        .map(|pair| (pair.ifindex, &*pair.name, &*pair.mac))
        .collect();
    let now = host_links()?;
    let found: HashSet<_> = now.iter().filter(|link| link.group == group).map(key).collect();
    if found != expected || links.delete_group(group).await.is_err() {
        return ungroup(links, pairs).await;
    }
    Ok(Some(()))
}

async fn ungroup(links: &Links, pairs: &[&VethPair]) -> Result<Option<()>, Error> {
    for pair in pairs {
        // A pair that went meanwhile cannot be put back, and need not be.
        let _ = links.set_group(pair.ifindex, 0).await;
    }
    Ok(None)
}

fn unused_group(links: &[Link]) -> Option<u32> {
    let used: HashSet<u32> = links.iter().map(|link| link.group).collect();
    (FIRST_GROUP..=LAST_GROUP).find(|group| !used.contains(group))
}

fn key(link: &Link) -> (u32, &str, &str) {
    (link.ifindex, &*link.name, &*link.mac)
}

async fn one(links: &Links, pair: &VethPair) -> Result<(), String> {
    let now = host_links().map_err(|error| error.to_string())?;
    if !now
        .iter()
        .any(|link| key(link) == (pair.ifindex, &*pair.name, &*pair.mac))
    {
        return Err("it is not the same link any more; it was left alone".to_owned());
    }
    links
        .delete(pair.ifindex)
        .await
        .map_err(|error| error.to_string())
}
