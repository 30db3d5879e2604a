//! Removing the cgroups of a sandbox, in every controller.

use std::path::Path;

use super::own;
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::Sandbox;

/// Removes the empty ones, the deepest first. Gives how many, and why others stay: one that is the pod's may have somebody
/// else in it.
///
/// # Errors
/// If one of a container's own is not empty, or cannot be removed.
pub(crate) fn remove_all(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<(usize, Vec<String>), Error> {
    let ids: Vec<&str> = sandbox.containers.iter().map(|one| one.id.as_str()).collect();
    let mut cgroups: Vec<_> = sandbox.cgroups.iter().collect();
    cgroups.sort_by_key(|cgroup| std::cmp::Reverse(cgroup.path.components().count()));
    let (mut done, mut stay) = (0, Vec::new());
    for cgroup in cgroups {
        let own = own::is_own(cgroup, &ids);
        // A pod that was started again uses its cgroup, or is about to.
        if !own && sandbox.twin.is_some() {
            continue;
        }
        let Some(opened) = own::open(cgroup)? else {
            continue;
        };
        let before = &mut |path: &Path| {
            let path = path.to_owned();
            steps.write(Step::RemoveCgroup { path })
        };
        match opened.remove(before) {
            Ok(()) => done += 1,
            Err(Error::Census(error @ nodemend_procns::Error::Occupied { .. })) if !own => {
                stay.push(format!("its pod's cgroup stays: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((done, stay))
}
