//! The strongest repair: the whole directory goes, and nothing that may be the only copy goes with it.
//!
//! Every refusal comes before the first change. Then: what ends with an unmount is archived, everything is unmounted, what
//! came to light below is judged again, data is archived or quarantined, and only then the rest is removed.

use std::path::{Path, PathBuf};

use nodemend_evidence::{Confirmed, Outcome};
use nodemend_rmtree::{End, Observer, Options, Pace, Tree, remove};

use super::gates::{self, Memory};
use super::inventory::Found;
use super::loops::{self, Loop};
use super::outside::{self, Outside};
use super::steps::{Step, name};
use super::tables::Near;
use super::unmount::{self, Unmounted};
use super::work::Work;
use super::{Purge, leaked};
use crate::archive::{self, Archive};
use crate::error::Error;
use crate::held::Held;
use crate::measure::Sum;
use crate::pod::PodDir;
use crate::quarantine::{KeptItem, QUARANTINE, Shelf, manifest, outside_of_pods, real};
use crate::volume::{Class, Content};

/// Removes a pod directory, if every gate is open.
pub(crate) fn purge(proof: Confirmed<'_, PodDir>, options: &Purge, work: &mut Work<'_, '_>) -> Outcome {
    let dir = proof.subject();
    let pod = match work.hold(dir) {
        Ok(Some(pod)) => pod,
        Ok(None) => return Outcome::AlreadyGone,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let plan = match plan(&pod, dir, options, work) {
        Ok(plan) => plan,
        Err(why) => return Outcome::Refused(why),
    };
    let mut done = Vec::new();
    match carry_out(&pod, dir, plan, work, &mut done) {
        Ok(()) => Outcome::Mended(done.join("; ")),
        Err(why) if done.is_empty() => Outcome::Failed(format!("{why}; nothing was removed")),
        Err(why) => Outcome::Failed(format!("{why}; before that: {}", done.join("; "))),
    }
}

/// What a purge does with one pod, with every gate open.
struct Plan<'a> {
    options: &'a Purge,
    mounts: Vec<Near>,
    memory: Vec<Memory>,
    loops: Vec<Loop>,
    outside: Vec<Outside>,
    shelf: PathBuf,
}

fn plan<'a>(
    pod: &Held,
    dir: &PodDir,
    options: &'a Purge,
    work: &mut Work<'_, '_>,
) -> Result<Plan<'a>, String> {
    let said = |error: Error| error.to_string();
    if let Some(unread) = dir.unread.first() {
        return Err(unread.clone());
    }
    work.look().map_err(said)?;
    let uid = dir.uid.as_str();
    let tables = work.tables().map_err(said)?;
    gates::mounts(uid, tables)?;
    let found = work.inventory(pod, dir).map_err(said)?;
    found.iter().try_for_each(gates::readable)?;
    found.iter().try_for_each(gates::record)?;
    let memory = gates::memory(pod, uid, tables, &found).map_err(said)?;
    let mut lost = gates::total(&found);
    for memory in &memory {
        lost.entries += memory.sum.entries;
        lost.bytes += memory.sum.bytes;
        lost.newest = lost.newest.max(memory.sum.newest);
        lost.more |= memory.sum.more;
    }
    ephemeral(&lost, &memory, options, pod)?;
    let loops = loops::of_pod(kubelet_root(dir), uid).map_err(said)?;
    for device in &loops {
        if let Some(user) = device.user() {
            return Err(format!(
                "{} lies on {}, and {user}",
                device.node.display(),
                device.backing.display()
            ));
        }
    }
    let outside = outside::of_pod(kubelet_root(dir), &dir.uid)?;
    let shelf = shelf_path(dir, options);
    // Anything may come to light below a mount, so there must be a place for it before anything is unmounted.
    let needed =
        found.iter().any(|found| found.class == Class::MaybeOnlyCopy) || tables.ours(uid).next().is_some();
    if needed {
        Shelf::for_pod(&shelf, pod).map_err(said)?;
    }
    Ok(Plan {
        options,
        mounts: tables.ours(uid).cloned().collect(),
        memory,
        loops,
        outside,
        shelf,
    })
}

/// Two levels above a pod directory.
fn kubelet_root(dir: &PodDir) -> &Path {
    dir.path.ancestors().nth(2).unwrap_or(Path::new("/"))
}

fn shelf_path(dir: &PodDir, options: &Purge) -> PathBuf {
    match &options.quarantine {
        Some(path) => real(path),
        None => kubelet_root(dir).join(QUARANTINE),
    }
}

/// The gate before what ends with the pod by contract.
fn ephemeral(lost: &Sum, memory: &[Memory], options: &Purge, pod: &Held) -> Result<(), String> {
    if lost.entries == 0 {
        return Ok(());
    }
    if let Some(dir) = &options.archive {
        return outside_of_pods(&real(dir), pod)
            .and_then(|()| archive::check_room(&real(dir), *lost))
            .map_err(|error| error.to_string());
    }
    if options.accept_ephemeral {
        return Ok(());
    }
    let memory = match memory.first() {
        Some(memory) => format!(
            ", part of them in memory at {}, where unmounting ends them",
            memory.place.display()
        ),
        None => String::new(),
    };
    Err(format!(
        "it holds data that has no other copy: {}{memory}. --archive DIR keeps it, --accept-ephemeral lets it go",
        gates::amount(lost)
    ))
}

fn carry_out(
    pod: &Held,
    dir: &PodDir,
    plan: Plan<'_>,
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    archive_memory(pod, dir, &plan, work, done).map_err(said)?;
    unmount_all(dir, &plan, work, done)?;
    let found = work.inventory(pod, dir).map_err(said)?;
    found.iter().try_for_each(gates::readable)?;
    found.iter().try_for_each(gates::record)?;
    ephemeral(&gates::total(&found), &[], plan.options, pod)?;
    archive_disk(pod, dir, &plan, &found, work, done).map_err(said)?;
    detach(dir, &plan, work, done).map_err(said)?;
    outside::release(&plan.outside, &dir.uid, &mut work.steps(dir), done)?;
    keep(pod, dir, &found, work, done).map_err(said)?;
    quarantine(pod, dir, &plan, &found, work, done)?;
    if work.stopped() {
        return Err("the run was ended before the rest was removed; a second one carries on".to_owned());
    }
    remove_rest(dir, work, done)?;
    // Made as there might have been something for it; one that has something in it stays.
    let _ = std::fs::remove_dir(&plan.shelf);
    let tools = &mut *work.tools;
    let mut steps = super::steps::Steps {
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

/// What is in memory must be on a disk before it is unmounted.
fn archive_memory(
    pod: &Held,
    dir: &PodDir,
    plan: &Plan<'_>,
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let (Some(to), false) = (&plan.options.archive, plan.memory.is_empty()) else {
        return Ok(());
    };
    let archive = Archive::create(&real(to), work.tools.run, &dir.uid, "-memory")?;
    work.steps(dir).write(Step::Archive { to: &archive.path() })?;
    fill(archive, done, |archive| {
        for memory in &plan.memory {
            let held = gates::open_memory(pod, &memory.place, memory.mount)?;
            archive.add(&held, &memory.place)?;
        }
        Ok(())
    })
}

fn archive_disk(
    pod: &Held,
    dir: &PodDir,
    plan: &Plan<'_>,
    found: &[Found],
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(to) = &plan.options.archive else {
        return Ok(());
    };
    let places: Vec<&Path> = gates::ephemeral(found)
        .filter(|found| matches!(found.content, Content::Files { .. }))
        .map(|found| found.leaf.as_path())
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    let archive = Archive::create(&real(to), work.tools.run, &dir.uid, "")?;
    work.steps(dir).write(Step::Archive { to: &archive.path() })?;
    fill(archive, done, |archive| {
        for place in places {
            if let Some(held) = pod.below(place)? {
                archive.add(&held, place)?;
            }
        }
        Ok(())
    })
}

fn fill(
    mut archive: Archive,
    done: &mut Vec<String>,
    add: impl FnOnce(&mut Archive) -> Result<(), Error>,
) -> Result<(), Error> {
    if let Err(error) = add(&mut archive) {
        archive.discard();
        return Err(error);
    }
    let (path, sum) = archive.finish()?;
    done.push(format!(
        "archived {} entries with {} bytes in {}",
        sum.entries,
        sum.bytes,
        path.display()
    ));
    Ok(())
}

fn unmount_all(
    dir: &PodDir,
    plan: &Plan<'_>,
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), String> {
    if plan.mounts.is_empty() {
        return Ok(());
    }
    let tables = work.take_tables().map_err(|error| error.to_string())?;
    let mut unmounted = Unmounted {
        hung: work.hung.clone(),
        ..Unmounted::default()
    };
    let result = unmount::all(
        dir.uid.as_str(),
        &plan.mounts,
        tables,
        &mut work.steps(dir),
        &mut unmounted,
    );
    work.hung.extend(unmounted.hung);
    if !unmounted.done.is_empty() {
        let places: Vec<String> = unmounted
            .done
            .iter()
            .map(|place| super::steps::below(place, &dir.path).display().to_string())
            .collect();
        done.push(format!("unmounted {}", places.join(", ")));
    }
    work.set_tables(result?);
    Ok(())
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

/// Copies of the records that go with the tree; those of what is quarantined stay with it.
fn keep(
    pod: &Held,
    dir: &PodDir,
    found: &[Found],
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let records: Vec<&Found> = found
        .iter()
        .filter(|found| found.record && found.class != Class::MaybeOnlyCopy)
        .collect();
    if let Some(path) = work.keep_records(pod, dir, &records)? {
        done.push(format!("vol_data.json was copied to {}", path.display()));
    }
    Ok(())
}

fn quarantine(
    pod: &Held,
    dir: &PodDir,
    plan: &Plan<'_>,
    found: &[Found],
    work: &mut Work<'_, '_>,
    done: &mut Vec<String>,
) -> Result<(), String> {
    let only: Vec<&Found> = found
        .iter()
        .filter(|found| matches!(found.class, Class::MaybeOnlyCopy | Class::DurableElsewhere))
        .collect();
    if only.is_empty() {
        return Ok(());
    }
    let said = |error: Error| error.to_string();
    let shelf = Shelf::for_pod(&plan.shelf, pod).map_err(said)?;
    let mut manifest = manifest(dir, work.tools.run);
    manifest.items = items(&only);
    let entry = shelf.entry(work.tools.run, &dir.uid).map_err(said)?;
    let steps: Vec<Step<'_>> = manifest
        .items
        .iter()
        .map(|item| Step::Quarantine {
            from: pod.path().join(&item.place),
            to: entry.path().join(&item.name),
        })
        .collect();
    work.steps(dir).write_all(steps).map_err(said)?;
    entry.write(&manifest).map_err(said)?;
    // A rename takes along what is mounted inside: nothing may be, in any namespace.
    nothing_mounted(dir, work)?;
    for item in &manifest.items {
        let above = item.place.parent().unwrap_or(Path::new(""));
        if let Some(above) = pod.below(above).map_err(said)? {
            entry.take(&above, name(&item.place), &item.name).map_err(said)?;
        }
    }
    done.push(format!(
        "moved {} that may be the only copy to {}; mend-pods restore puts it back",
        match only.len() {
            1 => "one volume".to_owned(),
            many => format!("{many} volumes"),
        },
        entry.path().display()
    ));
    Ok(())
}

fn items(only: &[&Found]) -> Vec<KeptItem> {
    let item = |(number, found): (usize, &&Found)| KeptItem {
        name: number.to_string(),
        place: found.place.clone(),
        plugin: found.plugin.clone(),
        class: found.class,
        content: found.content.clone(),
        csi: found.csi.clone(),
    };
    only.iter().enumerate().map(item).collect()
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
