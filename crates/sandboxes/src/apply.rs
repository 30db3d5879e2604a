//! Carrying a plan out: the second look under the lock, and the repair of each sandbox, several side by side.

mod attachments;
mod bundle;
mod cgroups;
mod crew;
mod ending;
mod holders;
mod mounts;
mod netns;
mod own;
mod place;
mod process;
mod program;
mod repair;
mod rest;
mod runc;
mod runtime;
mod socket;
mod steps;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use nodemend_cni::Replay;
use nodemend_evidence::{Confirmed, Orphan, Outcome, Subject};
use nodemend_hostfs::{Host, HostLock, Journal};
use nodemend_procns::Census;

use crate::error::Error;
use crate::judge::{Policy, looks_again};
use crate::sandbox::{Sandbox, SandboxIdentity};
use crate::survey::Survey;
use repair::{Begun, Repaired};
use steps::Log;

/// What became of each sandbox.
pub type Outcomes = Vec<(SandboxIdentity, Outcome)>;

/// What an apply needs besides the plan.
pub struct Tools<'a> {
    /// Where each step is written down before it happens.
    pub journal: &'a mut Journal,
    /// Set by a signal: the sandboxes in hand are finished, the rest is not tried.
    pub stop: &'a AtomicBool,
    /// Called with the number of sandboxes done so far.
    pub progress: &'a mut (dyn FnMut(usize) + Send),
    /// How the DELs are repeated.
    pub replay: Replay,
}

/// Clears the orphans of a plan. `again` is a survey taken after `lock`.
///
/// First each sandbox is confirmed on that survey. Then the DELs of all are repeated and their applications asked to end;
/// the time that those get runs for all of them at once. Then each is cleared, with what is left of its processes.
///
/// Blocks the calling thread.
///
/// # Errors
/// Only if nothing could be tried. What failed for one sandbox is its outcome.
pub async fn apply(
    orphans: Vec<Orphan<Sandbox>>,
    lock: &HostLock,
    again: &Survey,
    policy: &Policy,
    tools: Tools<'_>,
) -> Result<Outcomes, Error> {
    let mut outcomes = Outcomes::new();
    let confirmed = confirm(orphans, lock, again, policy, &mut outcomes);
    let repaired = repair_all(confirmed, tools, &mut outcomes)?;
    outcomes.extend(repaired.into_iter().map(Repaired::outcome));
    Ok(outcomes)
}

fn confirm<'l>(
    orphans: Vec<Orphan<Sandbox>>,
    lock: &'l HostLock,
    again: &Survey,
    policy: &Policy,
    outcomes: &mut Outcomes,
) -> Vec<Confirmed<'l, Sandbox>> {
    let looks = looks_again(again, policy);
    let key = |sandbox: &Sandbox| (sandbox.id.clone(), sandbox.namespace.clone());
    let now = looks.ours.into_iter().map(|look| (key(&look.subject), look));
    let mut now: HashMap<_, _> = now.collect();
    let mut confirmed = Vec::with_capacity(orphans.len());
    for orphan in orphans {
        let identity = orphan.subject().identity();
        let Some(look) = now.remove(&key(orphan.subject())) else {
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

fn repair_all<'l>(
    confirmed: Vec<Confirmed<'l, Sandbox>>,
    tools: Tools<'_>,
    outcomes: &mut Outcomes,
) -> Result<Vec<Repaired>, Error> {
    let Tools {
        journal,
        stop,
        progress,
        replay,
    } = tools;
    if confirmed.is_empty() {
        return Ok(Vec::new());
    }
    let log = Log::new(journal);
    let stopped = || stop.load(Ordering::Relaxed);
    let begin = |proof: Confirmed<'l, Sandbox>| match stopped() {
        true => Err(Box::new(proof.subject().identity())),
        false => Ok(repair::begin(proof, &replay, &log)),
    };
    let mut begun = Vec::new();
    for one in crew::all(confirmed, begin, |_| {})? {
        match one {
            Ok(one) => begun.push(one),
            Err(identity) => outcomes.push((*identity, Outcome::NotTried)),
        }
    }
    let finish = |one: Begun<'_>| match stopped() {
        true => one.stop(),
        false => one.finish(&log),
    };
    let mut done = outcomes.len();
    let tell = |_: &Repaired| {
        done += 1;
        progress(done);
    };
    let mut repaired = crew::all(begun, finish, tell)?;
    rest::name(&mut repaired, &Census::take(&Host::local())?);
    Ok(repaired)
}
