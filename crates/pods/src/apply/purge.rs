//! The strongest repair: the whole directory goes, and nothing that may be the only copy goes with it.
//!
//! Every refusal comes before the first change. Then: what ends with an unmount is archived, everything is unmounted, what
//! came to light below is judged again, data is archived or quarantined, and only then the rest is removed.
//!
//! A look at all mount tables takes long where there are many mounts, and each pod needs one after its unmounts. So the
//! purges of some pods begin, one look is taken, and then they end.

mod keep;
mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodemend_evidence::{Confirmed, Outcome};
use nodemend_rmtree::{End, Observer, Options, Pace, Tree, remove};

use super::gates;
use super::outside;
use super::steps::{Step, Steps};
use super::unmount;
use super::work::Work;
use super::{Purge, leaked};
use crate::error::Error;
use crate::held::Held;
use crate::pod::PodDir;
use plan::{Plan, ephemeral, plan};

/// A purge that has begun: every gate was open, and nothing is mounted in the directory any more, as far as that went.
pub(crate) struct Begun<'l, 'o> {
    proof: Confirmed<'l, Arc<PodDir>>,
    pod: Held,
    plan: Plan<'o>,
    done: Vec<String>,
    begun: Instant,
    /// When the last unmount ended.
    unmounted: Instant,
}

/// Begins to remove a pod directory, if every gate is open. Else the outcome.
pub(crate) fn begin<'l, 'o>(
    proof: Confirmed<'l, Arc<PodDir>>,
    options: &'o Purge,
    work: &mut Work<'_, '_>,
) -> Result<Begun<'l, 'o>, Outcome> {
    let dir = proof.subject();
    let pod = match work.hold(dir) {
        Ok(Some(pod)) => pod,
        Ok(None) => return Err(Outcome::AlreadyGone),
        Err(error) => return Err(Outcome::Refused(error.to_string())),
    };
    let now = Instant::now();
    let plan = plan(&pod, dir, options, work).map_err(Outcome::Refused)?;
    let mut begun = Begun {
        proof,
        pod,
        plan,
        done: Vec::new(),
        begun: now,
        unmounted: now,
    };
    let result = begun.unmount(work);
    begun.unmounted = Instant::now();
    match result {
        Ok(()) => Ok(begun),
        Err(why) => Err(begun.failed(&why)),
    }
}

impl<'l> Begun<'l, '_> {
    /// The proof, for another look at the directory.
    pub(crate) fn proof(&self) -> &Confirmed<'l, Arc<PodDir>> {
        &self.proof
    }

    /// How old the proof is.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// It ended there.
    pub(crate) fn failed(&self, why: &str) -> Outcome {
        match self.done.is_empty() {
            true => Outcome::Failed(format!("{why}; nothing was removed")),
            false => Outcome::Failed(format!("{why}; before that: {}", self.done.join("; "))),
        }
    }

    /// Does the rest.
    pub(crate) fn finish(mut self, work: &mut Work<'_, '_>) -> Outcome {
        match self.carry_out(work) {
            Ok(()) => Outcome::Mended(self.done.join("; ")),
            Err(why) => self.failed(&why),
        }
    }

    fn unmount(&mut self, work: &mut Work<'_, '_>) -> Result<(), String> {
        let (dir, plan) = (self.proof.subject(), &self.plan);
        keep::archive_memory(&self.pod, dir, plan, work, &mut self.done)
            .map_err(|error| error.to_string())?;
        unmounting(dir, &mut self.done, |places| {
            unmount::once(dir, &plan.mounts, work, places)
        })
    }

    fn carry_out(&mut self, work: &mut Work<'_, '_>) -> Result<(), String> {
        let said = |error: Error| error.to_string();
        let Self {
            proof,
            pod,
            plan,
            done,
            unmounted,
            ..
        } = self;
        let dir = proof.subject();
        if !plan.mounts.is_empty() {
            unmounting(dir, done, |places| {
                unmount::rest(dir, &plan.mounts, *unmounted, work, places)
            })?;
        }
        let found = work.inventory(pod, dir).map_err(said)?;
        found.iter().try_for_each(gates::readable)?;
        found.iter().try_for_each(gates::record)?;
        ephemeral(&gates::total(&found), &[], plan.options, pod)?;
        keep::archive_disk(pod, dir, plan, &found, work, done).map_err(said)?;
        detach(dir, plan, work, done).map_err(said)?;
        let mut steps = Steps {
            journal: work.tools.journal,
            run: work.tools.run,
            uid: dir.uid.clone(),
        };
        outside::release(&plan.outside, &dir.uid, &mut steps, &mut work.hung, done)?;
        keep::records(pod, dir, &found, work, done).map_err(said)?;
        keep::quarantine(pod, dir, plan, &found, work, done)?;
        if work.stopped() {
            return Err("the run was ended before the rest was removed; a second one carries on".to_owned());
        }
        remove_rest(dir, work, done)?;
        // Made as there might have been something for it; one that has something in it stays.
        let _ = std::fs::remove_dir(&plan.shelf);
        let tools = &mut *work.tools;
        let mut steps = Steps {
            journal: tools.journal,
            run: tools.run,
            uid: dir.uid.clone(),
        };
        done.extend(work.leftovers.clear(&dir.uid, tools.places, &mut steps));
        let leak = leaked(&found);
        if !leak.is_empty() {
            done.push(leak.trim_start_matches("; ").to_owned());
        }
        Ok(())
    }
}

/// Says what was unmounted, also if not all of it was.
fn unmounting(
    dir: &PodDir,
    done: &mut Vec<String>,
    unmount: impl FnOnce(&mut Vec<PathBuf>) -> Result<(), String>,
) -> Result<(), String> {
    let mut places = Vec::new();
    let result = unmount(&mut places);
    if !places.is_empty() {
        let places = places
            .iter()
            .map(|place| super::steps::below(place, &dir.path).display().to_string());
        done.push(format!("unmounted {}", places.collect::<Vec<_>>().join(", ")));
    }
    result
}

fn detach(
    dir: &PodDir,
    plan: &Plan<'_>,
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    for device in &plan.loops {
        work.steps(dir).write(Step::Detach {
            node: &device.node,
            backing: &device.backing,
        })?;
        device.detach()?;
        done.push(format!("detached {}", device.node.display()));
    }
    Ok(())
}

fn nothing_mounted(dir: &PodDir, work: &mut Work<'_, '_>) -> Result<(), String> {
    work.look().map_err(|error| error.to_string())?;
    let tables = work.tables().map_err(|error| error.to_string())?;
    if let Some(unread) = tables.unread.first() {
        return Err(format!("not every mount table can be read: {unread}"));
    }
    match tables.of(dir.uid.as_str()).first() {
        Some(near) => Err(format!("{} by now", unmount::seen(near))),
        None => Ok(()),
    }
}

/// Ends a removal when a signal came.
struct Until<'a>(&'a std::sync::atomic::AtomicBool);

impl Observer for Until<'_> {
    fn pace(&mut self) -> Pace {
        match super::is_set(self.0) {
            true => Pace::Stop,
            false => Pace::Go,
        }
    }
}

fn remove_rest(dir: &PodDir, work: &mut Work<'_, '_>, done: &mut Vec<String>) -> Result<(), String> {
    let tree = match Tree::open(&dir.path) {
        Ok(tree) => tree,
        Err(nodemend_rmtree::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            done.push("kubelet removed the rest".to_owned());
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
    if tree.id() != dir.identity.dir {
        return Err(format!("{}: another directory by now", dir.path.display()));
    }
    work.steps(dir)
        .write(Step::RemoveTree {
            path: dir.path.clone(),
        })
        .map_err(|error| error.to_string())?;
    // A directory on which something is mounted in another namespace only can be removed, and takes the mount away there.
    nothing_mounted(dir, work)?;
    let report = remove(tree, &Options::default(), &mut Until(work.tools.stop));
    let removed = report.removed;
    done.push(format!(
        "removed {} files and {} directories",
        removed.files, removed.directories
    ));
    match report.end {
        End::Gone => Ok(()),
        End::Stopped => {
            Err("the run was ended while the rest was removed; a second one carries on".to_owned())
        }
        End::ReadOnly => Err("the file system became read-only".to_owned()),
        End::Left => {
            let problems: Vec<String> = report.problems.iter().take(3).map(ToString::to_string).collect();
            let all = report.problem_count();
            Err(format!("{all} entries stay: {}", problems.join(", ")))
        }
    }
}
