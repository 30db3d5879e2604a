//! What a dead pod leaves outside of its directory: logs, links to them, empty cgroups.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodemend_procns::cgroup::Cgroup;
use nodemend_rmtree::{Options, Tree, remove};
use walkdir::WalkDir;

use super::Places;
use super::holders::{Hold, open_files};
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::uid::Uid;

/// For how long a look at all open files is good.
const FRESH: Duration = Duration::from_secs(10);

/// How deep the cgroup of a pod lies at most: a custom root, the class of service, a controller.
const LEVELS: usize = 9;

/// What the pods of a run left, found when it is first asked for.
#[derive(Debug)]
pub(crate) struct Leftovers {
    uids: HashSet<Uid>,
    index: Option<Index>,
    open: Option<(Instant, Option<Vec<Hold>>)>,
}

#[derive(Debug, Default)]
struct Index {
    logs: HashMap<Uid, Vec<PathBuf>>,
    /// Links with their targets.
    links: Vec<(PathBuf, PathBuf)>,
    cgroups: HashMap<Uid, Vec<PathBuf>>,
}

impl Leftovers {
    pub(crate) fn of(uids: HashSet<Uid>) -> Self {
        Self {
            uids,
            index: None,
            open: None,
        }
    }

    /// Removes what a pod left. Gives what went and what stays, in words: nothing of it makes the repair a failure.
    pub(crate) fn clear(&mut self, uid: &Uid, places: &Places, steps: &mut Steps<'_>) -> Vec<String> {
        let index = self.index.get_or_insert_with(|| Index::of(&self.uids, places));
        let logs = index.logs.remove(uid).unwrap_or_default();
        let cgroups = index.cgroups.remove(uid).unwrap_or_default();
        let mut said = Vec::new();
        for path in logs {
            said.push(match self.logs(&path, steps) {
                Ok(Some(links)) => format!("removed {} and {links} links to it", path.display()),
                Ok(None) => continue,
                Err(why) => format!("{} stays: {why}", path.display()),
            });
        }
        for path in cgroups {
            match cgroup(&path, steps) {
                Ok(()) => said.push(format!("removed the cgroup {}", path.display())),
                Err(error) => said.push(format!("the cgroup {} stays: {error}", path.display())),
            }
        }
        said
    }

    /// None if it was not there.
    fn logs(&mut self, path: &Path, steps: &mut Steps<'_>) -> Result<Option<usize>, String> {
        if let Some(user) = self.user_of(path) {
            return Err(user);
        }
        let tree = match Tree::open(path) {
            Ok(tree) => tree,
            Err(nodemend_rmtree::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.to_string()),
        };
        let step = Step::RemoveTree {
            path: path.to_owned(),
        };
        steps.write(step).map_err(|error| error.to_string())?;
        let report = remove(tree, &Options::default(), &mut ());
        if !report.gone() {
            let first = report.problems.first().map(ToString::to_string);
            return Err(first.unwrap_or_else(|| "it could not be removed".to_owned()));
        }
        self.links(path, steps)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    fn user_of(&mut self, path: &Path) -> Option<String> {
        let stale = |(taken, _): &(Instant, _)| taken.elapsed() > FRESH;
        if self.open.as_ref().is_none_or(stale) {
            let files = open_files().ok().flatten();
            self.open = Some((Instant::now(), files));
        }
        match &self.open {
            Some((_, Some(files))) => files
                .iter()
                .find(|hold| hold.path.starts_with(path))
                .map(|hold| format!("process {} has {} open", hold.pid, hold.path.display())),
            Some((_, None)) | None => Some("not all processes could be asked in time".to_owned()),
        }
    }

    /// Links that led to a directory that is gone.
    fn links(&mut self, gone: &Path, steps: &mut Steps<'_>) -> Result<usize, Error> {
        let Some(index) = &self.index else { return Ok(0) };
        let mut removed = 0;
        for (link, target) in &index.links {
            // A link that was made anew meanwhile leads elsewhere.
            let leads = target.starts_with(gone) && std::fs::read_link(link).is_ok_and(|now| now == *target);
            if leads && std::fs::symlink_metadata(target).is_err() {
                steps.write(Step::RemoveLink {
                    path: link.clone(),
                    target: target.clone(),
                })?;
                std::fs::remove_file(link).map_err(Error::io("remove", link))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Index {
    fn of(uids: &HashSet<Uid>, places: &Places) -> Self {
        let mut index = Self::default();
        // A tree is opened by its real path only; what is not there left nothing.
        let logs = std::fs::canonicalize(&places.pod_logs).unwrap_or_default();
        for name in names(&logs) {
            let text = name.to_string_lossy();
            let uid = text.rsplit_once('_').and_then(|(_, uid)| uid.parse::<Uid>().ok());
            if let Some(uid) = uid.filter(|uid| uids.contains(uid)) {
                index.logs.entry(uid).or_default().push(logs.join(&name));
            }
        }
        for name in names(&places.container_logs) {
            let link = places.container_logs.join(&name);
            if let Ok(target) = std::fs::read_link(&link) {
                index.links.push((link, target));
            }
        }
        index.cgroups_in(&places.cgroups, uids);
        index
    }

    /// The cgroups of these pods. Symlinks are not followed: in `/sys/fs/cgroup` they are second names of controllers.
    fn cgroups_in(&mut self, top: &Path, uids: &HashSet<Uid>) {
        let mut walk = WalkDir::new(top).min_depth(1).max_depth(LEVELS).into_iter();
        while let Some(entry) = walk.next() {
            // One that cannot be read has just gone.
            let Ok(entry) = entry else { continue };
            let pod = pod_of(entry.file_name().as_bytes());
            let Some(uid) = pod.filter(|_| entry.file_type().is_dir()) else {
                continue;
            };
            walk.skip_current_dir();
            if uids.contains(&uid) {
                self.cgroups.entry(uid).or_default().push(entry.into_path());
            }
        }
    }
}

/// The pod of a cgroup: `podUID`, or `kubepods-besteffort-podUID.slice` with `_` for `-`.
fn pod_of(name: &[u8]) -> Option<Uid> {
    let text = std::str::from_utf8(name).ok()?;
    match text.strip_suffix(".slice") {
        Some(slice) => {
            let (_, uid) = slice.rsplit_once("pod")?;
            uid.replace('_', "-").parse().ok()
        }
        None => text.strip_prefix("pod")?.parse().ok(),
    }
}

/// Removes a cgroup and those in it, if no process is in any of them.
fn cgroup(dir: &Path, steps: &mut Steps<'_>) -> Result<(), Error> {
    match Cgroup::open(dir)? {
        Some(cgroup) => cgroup.remove(&mut |dir: &Path| {
            let path = dir.to_owned();
            steps.write(Step::RemoveDirectory { path })
        }),
        None => Ok(()),
    }
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn both_spellings_of_a_pods_cgroup_are_known() {
        let uid = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
        let slice = "kubepods-burstable-pod0c9a8c4e_3a51_4c0e_9d1c_5a2f6f0f6b11.slice";
        for name in [
            format!("pod{uid}"),
            slice.to_owned(),
            slice.replace("burstable-", ""),
        ] {
            assert_eq!(pod_of(name.as_bytes()).unwrap().as_str(), uid, "{name}");
        }
        let hash = "kubepods-podd41d8cd98f00b204e9800998ecf8427e.slice";
        assert!(pod_of(hash.as_bytes()).unwrap().is_static());
        for name in ["pod", "kubepods.slice", "podx", "system.slice", uid] {
            assert_eq!(pod_of(name.as_bytes()), None, "{name}");
        }
    }
}
