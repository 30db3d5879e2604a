//! Carrying a plan out: the second look under the lock, the removal, and the check that it happened.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nodemend_evidence::{Confirmed, Orphan, Outcome, Subject};
use nodemend_hostfs::{HostLock, Journal};
use nodemend_procns::release::{self, Room};
use nodemend_rtnl::blocking::host_links;
use serde::Serialize;

use crate::error::Error;
use crate::judge::{Policy, looks_again};
use crate::pair::{VethIdentity, VethPair};
use crate::release::{in_room, on_host};
use crate::survey::Survey;
use crate::unplug::unplug;

/// How long the kernel gets to end the released namespaces. It took 1 s for 900 on two cores.
const ENDING: Duration = Duration::from_secs(10);

/// How many threads release namespaces at most, and how many files make one worth while.
const THREADS: usize = 8;
const SHARE: usize = 16;

/// What became of each pair.
pub type Outcomes = Vec<(VethIdentity, Outcome)>;

/// What an apply needs besides the plan.
pub struct Tools<'a> {
    /// Where each action is written down before it happens.
    pub journal: &'a mut Journal,
    /// Set by a signal: what is in hand is finished, the rest is not tried.
    pub stop: &'a AtomicBool,
    /// Called with the number of pairs done so far.
    pub progress: &'a mut (dyn FnMut(usize) + Send),
}

/// One line of the journal. There is no undo for a namespace; the line says what it was.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    tool: &'static str,
    action: String,
    pair: &'a VethPair,
}

impl<'a> Entry<'a> {
    fn of(pair: &'a VethPair) -> Self {
        Self {
            tool: "mend-veth",
            action: pair.action(),
            pair,
        }
    }
}

/// Removes the orphans of a plan. `again` is a survey taken after `lock`.
///
/// First each pair is confirmed on that survey. Then the namespaces that only mounts keep are released, and the
/// kernel removes their pairs; what is left, and what `--cut-running` names, goes by its links.
///
/// # Errors
/// Only if nothing could be tried. What failed for one pair is that pair's outcome.
pub async fn apply(
    orphans: Vec<Orphan<VethPair>>,
    lock: &HostLock,
    again: &Survey,
    policy: &Policy,
    mut tools: Tools<'_>,
) -> Result<Outcomes, Error> {
    let mut outcomes = Outcomes::new();
    let confirmed = confirm(orphans, lock, again, policy, &mut outcomes);
    let mut left = release_all(confirmed, &mut tools, &mut outcomes)?;
    wait_until_gone(&mut left, &mut tools, &mut outcomes)?;
    unplug_all(left, &mut tools, &mut outcomes).await?;
    Ok(outcomes)
}

fn confirm<'l>(
    orphans: Vec<Orphan<VethPair>>,
    lock: &'l HostLock,
    again: &Survey,
    policy: &Policy,
    outcomes: &mut Outcomes,
) -> Vec<Confirmed<'l, VethPair>> {
    let looks = looks_again(again, policy);
    let mut now: HashMap<u32, _> = looks
        .ours
        .into_iter()
        .map(|look| (look.subject.ifindex, look))
        .collect();
    let mut confirmed = Vec::with_capacity(orphans.len());
    for orphan in orphans {
        let identity = orphan.subject().identity();
        let Some(look) = now.remove(&identity.ifindex) else {
            outcomes.push((identity, Outcome::AlreadyGone));
            continue;
        };
        match orphan.confirm(lock, &looks.required, look) {
            Ok(proof) => confirmed.push(proof),
            Err(kept) => outcomes.push((identity, Outcome::Refused(kept.reason.to_string()))),
        }
    }
    confirmed
}

/// Releases what is held by mounts. Gives back everything that is not yet known to be gone.
fn release_all<'l>(
    confirmed: Vec<Confirmed<'l, VethPair>>,
    tools: &mut Tools<'_>,
    outcomes: &mut Outcomes,
) -> Result<Vec<Confirmed<'l, VethPair>>, Error> {
    tools
        .journal
        .append_all(confirmed.iter().map(|proof| Entry::of(proof.subject())))?;
    let stop = tools.stop;
    let tried = release::within(shares(confirmed), |mut room, share| {
        let one = |proof: Confirmed<'l, VethPair>| {
            let result = release_one(&proof, room.as_mut(), stop);
            (proof, result)
        };
        share.into_iter().map(one).collect::<Vec<_>>()
    })?;
    let tried: Vec<_> = tried.into_iter().flatten().collect();
    let mut left = Vec::with_capacity(tried.len());
    for (proof, result) in tried {
        let result = match result {
            Ok(Release::OnHost) if !stop.load(Ordering::Relaxed) => on_host(&proof).map(|()| Release::Done),
            other => other,
        };
        match result {
            Ok(Release::Done) => left.push(proof),
            Ok(Release::OnHost | Release::NotTried) => {
                outcomes.push((proof.subject().identity(), Outcome::NotTried))
            }
            Err(error) => outcomes.push((proof.subject().identity(), Outcome::Failed(error.to_string()))),
        }
    }
    Ok(left)
}

/// Each release waits for RCU, so several wait together; a few files are not worth a second thread.
fn shares<T>(mut all: Vec<T>) -> Vec<Vec<T>> {
    let share = all.len().div_ceil(THREADS).max(SHARE);
    let mut shares = Vec::new();
    while !all.is_empty() {
        let rest = all.split_off(share.min(all.len()));
        shares.push(std::mem::replace(&mut all, rest));
    }
    shares
}

/// How far the release of a pair's namespace came.
enum Release {
    /// There was none to do, or it is done.
    Done,
    /// It can only be done from the host's own mount namespace.
    OnHost,
    /// A signal came first.
    NotTried,
}

fn release_one(
    proof: &Confirmed<'_, VethPair>,
    room: Option<&mut Room>,
    stop: &AtomicBool,
) -> Result<Release, Error> {
    if stop.load(Ordering::Relaxed) {
        return Ok(Release::NotTried);
    }
    if !proof.subject().held_by_mounts_only() {
        return Ok(Release::Done);
    }
    let done = room.map_or(Ok(false), |room| in_room(proof, room))?;
    Ok(if done { Release::Done } else { Release::OnHost })
}

/// Waits for the kernel to remove the pairs of released namespaces. Those that are still there in the end have a
/// holder that nobody could see, and stay in `left`.
fn wait_until_gone(
    left: &mut Vec<Confirmed<'_, VethPair>>,
    tools: &mut Tools<'_>,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    let until = Instant::now() + ENDING;
    let mut pause = Duration::from_millis(2);
    while left.iter().any(|proof| proof.subject().held_by_mounts_only()) && Instant::now() < until {
        let links = host_links()?;
        let there: HashSet<_> = links.iter().map(|link| (link.ifindex, &*link.mac)).collect();
        left.retain(|proof| {
            let pair = proof.subject();
            let stays = !pair.held_by_mounts_only() || there.contains(&(pair.ifindex, &*pair.mac));
            if !stays {
                let detail = "its namespace was released, and the pair went with it".to_owned();
                outcomes.push((pair.identity(), Outcome::Mended(detail)));
            }
            stays
        });
        (tools.progress)(outcomes.len());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}

async fn unplug_all(
    left: Vec<Confirmed<'_, VethPair>>,
    tools: &mut Tools<'_>,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    if left.is_empty() {
        return Ok(());
    }
    let identities: Vec<_> = left.iter().map(|proof| proof.subject().identity()).collect();
    if tools.stop.load(Ordering::Relaxed) {
        outcomes.extend(
            identities
                .into_iter()
                .map(|identity| (identity, Outcome::NotTried)),
        );
        return Ok(());
    }
    let done = unplug(left).await?.into_iter().map(|result| match result {
        Ok(()) => Outcome::Mended("its link was removed".to_owned()),
        Err(reason) => Outcome::Failed(reason),
    });
    outcomes.extend(identities.into_iter().zip(done));
    (tools.progress)(outcomes.len());
    Ok(())
}
