//! Carrying a plan out: the third look under the lock, and one of two repairs for each pod directory.

mod deadline;
mod gates;
mod holders;
mod inventory;
mod leftovers;
mod loops;
mod namespaces;
mod outside;
mod purge;
pub(crate) mod steps;
mod tables;
mod unblock;
mod unmount;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nodemend_evidence::{Confirmed, Look, Orphan, Outcome, Source, Subject};
use nodemend_hostfs::{HostLock, Journal, StateDir};

use crate::again::GOOD_FOR;
use crate::error::Error;
use crate::pod::{PodDir, PodIdentity};
use inventory::Found;
use leftovers::Leftovers;
use purge::Begun;
use work::Work;

/// How many purges are at work at once. Each holds its directory open.
const AT_ONCE: usize = 128;

/// What became of each pod directory.
pub type Outcomes = Vec<(PodIdentity, Outcome)>;

/// What is done with an orphaned pod directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// What stops kubelet from finishing by itself is removed, if it is nothing but empty directories, empty files of
    /// subpaths, and records of CSI volumes that are staged no more. Nothing is unmounted.
    #[default]
    Unblock,
    /// The whole directory goes, with what the pod left elsewhere on the node.
    Purge(Purge),
}

/// What a purge may do with data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// What ends with its pod by contract (emptyDir, git-repo) may be lost although there is something in it.
    pub accept_ephemeral: bool,
    /// It is put into a tar in this directory before.
    pub archive: Option<PathBuf>,
    /// Where goes what may be the only copy: on the mount of kubelet's root, and not in `pods/`. By default
    /// [`QUARANTINE`](crate::QUARANTINE) in kubelet's root.
    pub quarantine: Option<PathBuf>,
}

/// What the look under the lock says of a pod directory.
#[derive(Debug)]
pub enum Again {
    /// It is there.
    Here(Box<Look<Arc<PodDir>>>),
    /// It is not there any more.
    Gone,
    /// It could not be looked at, or is nothing of ours any more, because …
    Refused(String),
}

/// Looks at a pod directory once more, under the lock.
pub trait Looks {
    /// What is there now. `pod` is what was judged.
    fn look(&mut self, pod: &PodDir) -> Again;

    /// The sources that must have answered now, beside those that were required when the directory was judged.
    fn required(&self) -> &[Source];
}

/// Where a dead pod leaves things outside of its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The logs of containers: a directory `NAMESPACE_NAME_UID` for each pod.
    pub pod_logs: PathBuf,
    /// Links to those logs.
    pub container_logs: PathBuf,
    /// The cgroups, of all controllers.
    pub cgroups: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            pod_logs: "/var/log/pods".into(),
            container_logs: "/var/log/containers".into(),
            cgroups: "/sys/fs/cgroup".into(),
        }
    }
}

/// What an apply needs besides the plan.
pub struct Tools<'a> {
    /// Where records that go are kept.
    pub state: &'a StateDir,
    /// The name of this run: letters, digits, dot, dash and underscore. It names quarantines and archives.
    pub run: &'a str,
    /// Where a dead pod leaves things outside of its directory.
    pub places: &'a Places,
    /// Where each step is written down before it happens.
    pub journal: &'a mut Journal,
    /// Set by a signal: the step in hand is finished, the rest is not tried.
    pub stop: &'a AtomicBool,
    /// Called with the number of pod directories done so far.
    pub progress: &'a mut (dyn FnMut(usize) + Send),
}

/// Repairs the pod directories of a plan, each after a look at it under `lock`.
///
/// # Errors
/// Only if nothing could be tried. What failed for one directory is its outcome.
pub fn apply(
    orphans: Vec<Orphan<Arc<PodDir>>>,
    lock: &HostLock,
    again: &mut dyn Looks,
    repair: &Repair,
    mut tools: Tools<'_>,
) -> Result<Outcomes, Error> {
    check_run(tools.run)?;
    let uids = orphans.iter().map(|orphan| orphan.subject().uid.clone());
    let leftovers = Leftovers::of(uids.collect());
    let mut outcomes = Outcomes::with_capacity(orphans.len());
    let mut begun = Vec::new();
    let mut work = Work::new(&mut tools, leftovers);
    for orphan in orphans {
        let identity = orphan.subject().identity();
        let outcome = match work.stopped() {
            true => Outcome::NotTried,
            false => match one(orphan, lock, again, repair, &mut work) {
                Done::All(outcome) => outcome,
                Done::Half(purge) => {
                    begun.push((outcomes.len(), purge));
                    Outcome::NotTried
                }
            },
        };
        outcomes.push((identity, outcome));
        if begun.len() >= AT_ONCE || !work.is_fresh() {
            finish(&mut begun, again, &mut work, &mut outcomes);
        }
        work.progress(outcomes.len() - begun.len());
    }
    finish(&mut begun, again, &mut work, &mut outcomes);
    work.progress(outcomes.len());
    Ok(outcomes)
}

/// How far one pod directory is.
enum Done<'l, 'o> {
    All(Outcome),
    Half(Box<Begun<'l, 'o>>),
}

/// Ends the purges that have begun. One that had to wait for long is looked at once more.
fn finish(
    begun: &mut Vec<(usize, Box<Begun<'_, '_>>)>,
    again: &mut dyn Looks,
    work: &mut Work<'_, '_>,
    outcomes: &mut Outcomes,
) {
    for (at, purge) in begun.drain(..) {
        let still = match purge.age() < GOOD_FOR {
            true => Ok(()),
            false => still(purge.proof(), again),
        };
        let outcome = match still {
            Ok(()) => purge.finish(work),
            Err(why) => purge.failed(&why),
        };
        if let Some(slot) = outcomes.get_mut(at) {
            slot.1 = outcome;
        }
    }
}

fn still(proof: &Confirmed<'_, Arc<PodDir>>, again: &mut dyn Looks) -> Result<(), String> {
    match again.look(proof.subject()) {
        Again::Here(look) => proof
            .still(again.required(), *look)
            .map_err(|kept| kept.reason.to_string()),
        // kubelet removed it, and the purge will see that.
        Again::Gone => Ok(()),
        Again::Refused(why) => Err(why),
    }
}

fn check_run(run: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if run.is_empty() || run.len() > 128 || run.starts_with('.') || !run.bytes().all(plain) {
        return Err(Error::RunName { run: run.to_owned() });
    }
    Ok(())
}

fn one<'l, 'o>(
    orphan: Orphan<Arc<PodDir>>,
    lock: &'l HostLock,
    again: &mut dyn Looks,
    repair: &'o Repair,
    work: &mut Work<'_, '_>,
) -> Done<'l, 'o> {
    let look = match again.look(orphan.subject()) {
        Again::Here(look) => look,
        Again::Gone => return Done::All(Outcome::AlreadyGone),
        Again::Refused(why) => return Done::All(Outcome::Refused(why)),
    };
    match orphan.confirm(lock, again.required(), *look) {
        Err(kept) => Done::All(Outcome::Refused(kept.reason.to_string())),
        Ok(proof) => match repair {
            Repair::Unblock => Done::All(unblock::unblock(proof, work)),
            Repair::Purge(options) => match purge::begin(proof, options, work) {
                Ok(begun) => Done::Half(Box::new(begun)),
                Err(outcome) => Done::All(outcome),
            },
        },
    }
}

/// What stays elsewhere, as nobody told the driver: in words, for the end of an outcome.
fn leaked(found: &[Found]) -> String {
    let mut text = String::new();
    for csi in found.iter().filter_map(|found| found.csi.as_ref()) {
        if csi.lifecycle == "Ephemeral" {
            text.push_str(&format!(
                "; the driver {} was not told that its inline volume {} is gone, and may keep what is behind it",
                csi.driver, csi.handle
            ));
        }
    }
    text
}

fn is_set(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
