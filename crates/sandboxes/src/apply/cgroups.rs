//! Removing the cgroups of a sandbox, in every controller.

use std::collections::BTreeSet;
use std::path::Path;

use super::own;
use super::place::Place;
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::Sandbox;

/// Removes the cgroups of its containers, the deepest first, and then that of its pod, if nothing is left in it. Gives how
/// many were removed.
///
/// # Errors
/// If one of a container is not empty, or cannot be removed.
pub(crate) fn remove_all(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<usize, Error> {
    let mut cgroups: Vec<_> = sandbox.cgroups.iter().collect();
    cgroups.sort_by_key(|cgroup| std::cmp::Reverse(cgroup.path.components().count()));
    let mut done = 0;
    for cgroup in &cgroups {
        let before = &mut |path: &Path| {
            let path = path.to_owned();
            steps.write(Step::RemoveCgroup { path })
        };
        if let Some(opened) = own::open(cgroup)? {
            opened.remove(before)?;
            done += 1;
        }
    }
    let parents = cgroups.iter().filter_map(|cgroup| cgroup.path.parent());
    let of_pod: BTreeSet<&Path> = parents.filter(|path| is_pods(path, sandbox)).collect();
    for path in of_pod {
        done += usize::from(remove_pods(path, steps)?);
    }
    Ok(done)
}

/// True for the cgroup of the sandbox's pod, `pod<uid>` or `…-pod<uid>.slice` with `_` for `-`, unless another sandbox of
/// the pod is on record: it uses that cgroup, or is about to.
fn is_pods(path: &Path, sandbox: &Sandbox) -> bool {
    let uid = sandbox.pod.as_ref().map_or("", |pod| pod.uid.as_str());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.strip_suffix(".slice").unwrap_or(&name).replace('_', "-");
    let before = plain.strip_suffix(uid).and_then(|rest| rest.strip_suffix("pod"));
    let own = before.is_some_and(|before| before.is_empty() || before.ends_with('-'));
    own && !uid.is_empty() && sandbox.twin.is_none()
}

/// The kernel refuses to remove a cgroup in which there is a process, or another cgroup. False if it stays.
fn remove_pods(path: &Path, steps: Steps<'_, '_>) -> Result<bool, Error> {
    let Some(place) = Place::of(path)? else {
        return Ok(false);
    };
    if place.stat()?.is_none() {
        return Ok(false);
    }
    let path = path.to_owned();
    steps.write(Step::RemoveCgroup { path })?;
    place.rmdir()
}
