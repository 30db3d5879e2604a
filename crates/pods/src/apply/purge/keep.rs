//! What a purge keeps: archives, copies of records, the quarantine.

use std::path::Path;

use super::nothing_mounted;
use super::plan::Plan;
use crate::apply::gates;
use crate::apply::inventory::Found;
use crate::apply::steps::{Step, name};
use crate::apply::work::Work;
use crate::archive::Archive;
use crate::error::Error;
use crate::held::Held;
use crate::pod::PodDir;
use crate::quarantine::{KeptItem, Shelf, manifest, real};
use crate::volume::{Class, Content};

/// What is in memory must be on a disk before it is unmounted.
pub(crate) fn archive_memory(
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

/// What ends with the pod by contract and is on a disk.
pub(crate) fn archive_disk(
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

/// Copies of the records that go with the tree; those of what is quarantined stay with it.
pub(crate) fn records(
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

/// What may be the only copy.
pub(crate) fn quarantine(
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
