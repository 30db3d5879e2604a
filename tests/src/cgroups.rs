//! The cgroups of a lab: named after their owner, removed when it ends, swept when it could not.
//!
//! /sys is not remounted in a node: a fresh one has no cgroup mounts below it, and runc then finds none. So the cgroups of a node lie in
//! the machine's own hierarchies, below one directory with a name of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use walkdir::WalkDir;

use crate::error::{Doing, Result};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "nodemend-lab-";

/// Processes that were killed leave their cgroup when they are reaped, which may be a moment later.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cgroup directory of the `n`th node of a process: its pid and start time tell later whether it still lives.
pub(crate) fn name(pid: u32, n: u32) -> String {
    format!("{PREFIX}{pid}-{}-{n}", start_time(pid).unwrap_or(0))
}

/// When a process started, in clock ticks since boot: with the pid it names one process for ever.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Every hierarchy's root: the one of cgroup v2, or the mounts of v1 (and the empty v2 beside them).
fn hierarchies() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(ROOT)];
    if !Path::new(ROOT).join("cgroup.controllers").exists() {
        roots.extend(subdirs(Path::new(ROOT)));
    }
    roots
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Makes this cgroup in every hierarchy, ready to take processes; its directories.
pub(crate) fn make(name: &str) -> Result<Vec<PathBuf>> {
    let tops = hierarchies()
        .into_iter()
        .filter(|top| top.join("cgroup.procs").exists());
    tops.map(|top| {
        let dir = top.join(name);
        fs::create_dir_all(&dir).at("make", &dir)?;
        // Empty in a new one of cgroup v1, which then takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(all), true) = (fs::read(top.join(file)), dir.join(file).exists()) {
                fs::write(dir.join(file), all).at("fill", &dir.join(file))?;
            }
        }
        Ok(dir)
    })
    .collect()
}

/// Every directory of this cgroup that exists, in any hierarchy.
pub fn directories(name: &str) -> Vec<PathBuf> {
    hierarchies()
        .into_iter()
        .map(|root| root.join(name))
        .filter(|path| path.is_dir())
        .collect()
}

/// Removes the cgroup with all below it, in every hierarchy. A cgroup with a process in it stays: the kernel refuses.
pub(crate) fn remove(name: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        directories(name).iter().for_each(|dir| remove_tree(dir));
        if directories(name).is_empty() || Instant::now() > end {
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

fn remove_tree(dir: &Path) {
    let below = WalkDir::new(dir).contents_first(true).into_iter().flatten();
    for directory in below.filter(|entry| entry.file_type().is_dir()) {
        // Busy or gone already: the caller looks again.
        let _ = fs::remove_dir(directory.path());
    }
}

/// Removes the cgroups of labs whose owner is dead: the only thing of a lab that can outlive it, and only when both the owner and its
/// janitor were killed.
pub(crate) fn sweep() {
    for root in hierarchies() {
        for dir in subdirs(&root) {
            if dir
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(owner_is_dead)
            {
                remove_tree(&dir);
            }
        }
    }
}

/// The names of labs in a path.
pub(crate) fn names_in(path: &str) -> impl Iterator<Item = &str> {
    let starts = path.match_indices(PREFIX).map(|(at, _)| &path[at..]);
    starts.map(|rest| {
        let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        rest.split(|c| !part_of_a_name(c)).next().unwrap_or_default()
    })
}

/// Whether this is the name of a lab, or begins with one, whose owner has ended.
pub(crate) fn owner_is_dead(name: &str) -> bool {
    let mut parts = name
        .strip_prefix(PREFIX)
        .unwrap_or_default()
        .split('-')
        .map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (parts.next(), parts.next()) else {
        return false;
    };
    u32::try_from(pid).is_ok_and(|pid| start_time(pid) != Some(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owners_cgroup_is_kept_and_foreign_names_are_never_ours() {
        let pid = std::process::id();
        assert!(!owner_is_dead(&name(pid, 1)));
        assert!(owner_is_dead(&format!("{PREFIX}{pid}-1-1")));
        let of_an_image = format!("/run/lab/images/{PREFIX}{pid}-1-1-kubelet (deleted)");
        assert!(names_in(&of_an_image).any(owner_is_dead));
        assert!(!names_in("/var/lib/images/kubelet").any(owner_is_dead));
        for foreign in ["kubepods", "nodemend-lab-", "nodemend-lab-x-1-1", "system.slice"] {
            assert!(!owner_is_dead(foreign), "{foreign}");
        }
    }
}
