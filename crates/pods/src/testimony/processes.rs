//! Who works in a pod directory: by cgroup, working directory, root, program, open files and mappings.
//!
//! No file of a process is touched, only what the kernel says of it: the text of the links below `/proc/PID`, the mount
//! of an open file (`mnt_id` in fdinfo), which finds files that are open through a mount of another namespace, and the
//! table of mappings. A link reads `/` once its mount was detached, so finding nobody is no proof that nobody is there.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nodemend_hostfs::pool::{self, PATIENCE, Pulse};
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use crate::layout::Layout;
use crate::testimony::{Known, cgroup};
use crate::uid::Uid;

const SMALL: usize = 1 << 20;
/// The most of a table of mappings that is read, in bytes: a process may have 65,530 of them by default.
const MAPS: usize = 64 << 20;

/// What belongs to which pod.
pub(crate) struct Places {
    /// `<root>/pods/`, by every path that the root is seen by.
    prefixes: Vec<Vec<u8>>,
    uids: HashSet<Uid>,
    /// The ids of the mounts in pod directories, in every mount namespace.
    mounts: HashMap<u64, Uid>,
}

impl Places {
    pub(crate) fn of(layout: &Layout) -> Self {
        let mounts = layout.pods.iter().flat_map(|pod| {
            let ids = pod.mounts.iter().map(|mount| mount.mount.id);
            ids.map(|id| (id, pod.uid.clone()))
        });
        Self {
            prefixes: roots(layout).map(prefix).collect(),
            uids: layout.pods.iter().map(|pod| pod.uid.clone()).collect(),
            mounts: mounts.collect(),
        }
    }

    /// The pod that a path lies in, or names.
    pub(crate) fn pod(&self, path: &[u8]) -> Option<&Uid> {
        let below = self
            .prefixes
            .iter()
            .find_map(|prefix| path.strip_prefix(&prefix[..]))?;
        let name = below.split(|&byte| byte == b'/').next()?;
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        self.uids
            .get(&std::str::from_utf8(name).ok()?.parse::<Uid>().ok()?)
    }
}

/// Every path by which kubelet's root is seen.
pub(crate) fn roots(layout: &Layout) -> impl Iterator<Item = &Path> {
    std::iter::once(&layout.root)
        .chain(&layout.also_at)
        .map(|root| root.as_path())
}

fn prefix(root: &Path) -> Vec<u8> {
    [root.join("pods").as_os_str().as_bytes(), b"/"].concat()
}

/// What the walk over the processes gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// How many processes were looked at.
    count: usize,
    /// Who belongs to which pod.
    members: HashMap<u32, (Uid, String)>,
    holds: Vec<(Uid, String)>,
    unread: Vec<String>,
}

impl Found {
    pub(crate) fn is_in_a_pod(&self, pid: u32) -> bool {
        self.members.contains_key(&pid)
    }
}

enum Said {
    Member(u32, String, Uid),
    Holds(Uid, String),
    Unread(String),
}

/// Looks at every process but this one.
pub(crate) fn look(places: Places) -> Result<Found, String> {
    let proc =
        open(CWD, "/proc", OFlags::RDONLY | OFlags::DIRECTORY).map_err(|errno| format!("/proc: {errno}"))?;
    let pids = pids(&proc).map_err(|errno| format!("/proc: {errno}"))?;
    let jobs = pids.clone();
    let work = move |pid: &u32, pulse: &Pulse, answer: &mut dyn FnMut(Said)| {
        let mut reader = Reader {
            pid: *pid,
            comm: String::new(),
            places: &places,
            pulse,
            answer,
        };
        if let Err((file, errno)) = reader.process(&proc) {
            answer(Said::Unread(unread(*pid, &file, &errno.to_string())));
        }
    };
    let done = pool::run(jobs, Box::new(work)).map_err(|error| error.to_string())?;
    let mut found = Found {
        count: pids.len(),
        ..Found::default()
    };
    for said in done.answers {
        match said {
            Said::Member(pid, comm, uid) => drop(found.members.insert(pid, (uid, comm))),
            Said::Holds(uid, sentence) => found.holds.push((uid, sentence)),
            Said::Unread(reason) => found.unread.push(reason),
        }
    }
    let silent = format!("the kernel did not answer within {PATIENCE} s");
    let given_up = done.given_up.iter().filter_map(|at| pids.get(*at));
    found.unread.extend(given_up.map(|pid| unread(*pid, "", &silent)));
    found.unread.sort_unstable();
    found.holds.sort_unstable();
    Ok(found)
}

fn unread(pid: u32, file: &str, reason: &str) -> String {
    let slash = if file.is_empty() { "" } else { "/" };
    format!("process {pid}: /proc/{pid}{slash}{file}: {reason}")
}

/// The answers of the two sources that this walk is.
pub(crate) fn told(found: Result<Found, String>) -> (Known, Known) {
    let found = match found {
        Ok(found) => found,
        Err(reason) => return (Known::silent(reason.clone()), Known::silent(reason)),
    };
    let asked = format!("{} processes", found.count);
    let mut members: Vec<_> = found.members.into_iter().collect();
    members.sort_unstable();
    let members = members
        .into_iter()
        .map(|(pid, (uid, comm))| (uid, format!("process {pid} ({comm}) belongs to it")));
    let known = |pods: Vec<(Uid, String)>, asked: String| match found.unread.first().cloned() {
        Some(reason) => Known::Partly { pods, reason },
        None => Known::Pods { pods, asked },
    };
    let cgroups = known(each_once(members), format!("none of {asked} belongs to it"));
    let holds = each_once(found.holds);
    (cgroups, known(holds, format!("none of {asked} works in it")))
}

/// The first sentence for each pod.
fn each_once(said: impl IntoIterator<Item = (Uid, String)>) -> Vec<(Uid, String)> {
    let mut seen = HashSet::new();
    said.into_iter()
        .filter(|(uid, _)| seen.insert(uid.clone()))
        .collect()
}

struct Reader<'a> {
    pid: u32,
    comm: String,
    places: &'a Places,
    pulse: &'a Pulse,
    answer: &'a mut dyn FnMut(Said),
}

type Trouble = (String, Errno);

impl Reader<'_> {
    fn process(&mut self, proc: &OwnedFd) -> Result<(), Trouble> {
        let name = self.pid.to_string();
        let Some(dir) = self.there(
            None,
            "",
            open(proc, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY),
        )?
        else {
            return Ok(());
        };
        let Some(comm) = self.there(Some(&dir), "comm", read(&dir, "comm", SMALL))? else {
            return Ok(());
        };
        self.comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
        let cgroups = self.there(Some(&dir), "cgroup", read(&dir, "cgroup", SMALL))?;
        if let Some(uid) = cgroups.and_then(|text| cgroup::pod(&text)) {
            (self.answer)(Said::Member(self.pid, self.comm.clone(), uid));
        }
        if self.pid == std::process::id() {
            return Ok(());
        }
        for (link, sentence) in [
            ("cwd", "has its working directory in it"),
            ("root", "has its root in it"),
            ("exe", "runs a program of it"),
        ] {
            if let Some(text) = self.there(Some(&dir), link, readlinkat(&dir, link, Vec::new()))? {
                self.weigh(text.as_bytes(), sentence);
            }
        }
        self.files(&dir)?;
        self.maps(&dir)
    }

    fn weigh(&mut self, path: &[u8], sentence: &str) {
        if let Some(uid) = self.places.pod(path) {
            self.holds(uid.clone(), sentence);
        }
    }

    fn holds(&mut self, uid: Uid, sentence: &str) {
        (self.answer)(Said::Holds(
            uid,
            format!("process {} ({}) {sentence}", self.pid, self.comm),
        ));
    }

    fn files(&mut self, dir: &OwnedFd) -> Result<(), Trouble> {
        let Some(fds) = self.there(
            Some(dir),
            "fd",
            open(dir, "fd", OFlags::RDONLY | OFlags::DIRECTORY),
        )?
        else {
            return Ok(());
        };
        let Some(names) = self.there(Some(dir), "fd", names(&fds))? else {
            return Ok(());
        };
        for name in names {
            self.pulse.beat();
            let text = match readlinkat(&fds, name.as_str(), Vec::new()) {
                Ok(text) => text,
                // The path is longer than the kernel writes: its mount tells.
                Err(Errno::NAMETOOLONG) => c"/".to_owned(),
                Err(errno) if is_gone(errno) => continue,
                Err(errno) => return self.there::<()>(Some(dir), "fd", Err(errno)).map(drop),
            };
            if let Some(uid) = self.places.pod(text.as_bytes()) {
                self.holds(uid.clone(), "has a file of it open");
            } else if text.as_bytes().first() == Some(&b'/') && !self.places.mounts.is_empty() {
                self.by_mount(dir, &name)?;
            }
        }
        Ok(())
    }

    fn by_mount(&mut self, dir: &OwnedFd, fd: &str) -> Result<(), Trouble> {
        let path = format!("fdinfo/{fd}");
        let info = self.there(Some(dir), &path, read(dir, &path, SMALL))?;
        let uid = info
            .and_then(|info| mount_of(&info))
            .and_then(|id| self.places.mounts.get(&id));
        if let Some(uid) = uid {
            self.holds(uid.clone(), "has a file open on a mount of it");
        }
        Ok(())
    }

    /// Read last: only this can wait for the process.
    fn maps(&mut self, dir: &OwnedFd) -> Result<(), Trouble> {
        let Some(maps) = self.there(Some(dir), "maps", read(dir, "maps", MAPS))? else {
            return Ok(());
        };
        for line in maps.split(|&byte| byte == b'\n') {
            if let Some(at) = line.iter().position(|&byte| byte == b'/')
                && let Some(uid) = self.places.pod(&line[at..])
            {
                self.holds(uid.clone(), "has a file of it mapped");
            }
        }
        Ok(())
    }

    /// None if the process has ended, or is about to: then the kernel may refuse everybody.
    fn there<T>(
        &self,
        dir: Option<&OwnedFd>,
        file: &str,
        result: Result<T, Errno>,
    ) -> Result<Option<T>, Trouble> {
        match (result, dir) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(errno), _) if is_gone(errno) => Ok(None),
            (Err(Errno::ACCESS | Errno::PERM), Some(dir)) if is_ending(dir) => Ok(None),
            (Err(errno), _) => Err((file.to_owned(), errno)),
        }
    }
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH)
}

/// Zombies, and tasks that have given up their memory (`PF_EXITING` of include/linux/sched.h).
fn is_ending(dir: &OwnedFd) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = read(dir, "stat", SMALL) else {
        return true;
    };
    let stat = String::from_utf8_lossy(&stat);
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_ascii_whitespace();
    let is_dead = matches!(fields.next(), Some("Z" | "X" | "x"));
    let flags = fields
        .nth(5)
        .and_then(|flags| flags.parse::<u64>().ok())
        .unwrap_or_default();
    is_dead || flags & PF_EXITING != 0
}

fn mount_of(info: &[u8]) -> Option<u64> {
    let line = info
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"mnt_id:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

fn open(at: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, name, flags | OFlags::CLOEXEC, Mode::empty())
}

/// A file of /proc, to its end.
fn read(at: &OwnedFd, name: &str, limit: usize) -> Result<Vec<u8>, Errno> {
    let fd = open(at, name, OFlags::RDONLY)?;
    let mut bytes = Vec::with_capacity(4096);
    while rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes))? > 0 {
        if bytes.len() > limit {
            return Err(Errno::FBIG);
        }
        bytes.reserve(bytes.len().max(4096));
    }
    Ok(bytes)
}

fn names(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

fn pids(proc: &OwnedFd) -> Result<Vec<u32>, Errno> {
    Ok(names(proc)?.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a failed unwrap is a failed test"
    )]

    use std::process::{Command, Stdio};

    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

    fn places(root: &Path) -> Places {
        Places {
            prefixes: vec![prefix(root)],
            uids: HashSet::from([UID.parse().unwrap()]),
            mounts: HashMap::new(),
        }
    }

    #[test]
    fn t21_a_path_belongs_to_a_pod_by_whole_names_only() {
        let places = places(Path::new("/var/lib/kubelet"));
        let is = |path: String| places.pod(path.as_bytes()).is_some();
        assert!(is(format!("/var/lib/kubelet/pods/{UID}")));
        assert!(is(format!("/var/lib/kubelet/pods/{UID}/etc-hosts")));
        assert!(is(format!("/var/lib/kubelet/pods/{UID} (deleted)")));
        assert!(!is(format!("/var/lib/kubelet/pods/{UID}x/etc-hosts")));
        assert!(!is(format!("/srv/var/lib/kubelet/pods/{UID}")));
        assert!(!is(format!("/var/lib/kubelet/plugins/{UID}")));
        assert!(!is("/var/lib/kubelet/pods/".into()));
    }

    #[test]
    fn a_process_that_works_in_a_pod_directory_is_found_and_named() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().canonicalize().unwrap().join("pods").join(UID);
        std::fs::create_dir_all(&dir).unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(&dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let file = std::fs::File::create(dir.join("log")).unwrap();
        let mut other = Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let found = look(places(&root.path().canonicalize().unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        let holds: Vec<String> = found.unwrap().holds.into_iter().map(|(_, said)| said).collect();
        // Its name may still be that of the test: the kernel gives the new one after it lets the parent go on.
        let said = |pid: u32, what: &str| {
            let process = format!("process {pid} (");
            holds
                .iter()
                .any(|said| said.starts_with(&process) && said.ends_with(what))
        };
        assert!(said(child.id(), ") has its working directory in it"), "{holds:?}");
        assert!(said(other.id(), ") has a file of it open"), "{holds:?}");
    }

    #[test]
    fn the_mount_of_an_open_file_is_read_from_fdinfo() {
        assert_eq!(
            mount_of(b"pos:\t0\nflags:\t0100000\nmnt_id:\t581\nino:\t12\n"),
            Some(581)
        );
        assert_eq!(mount_of(b"pos:\t0\n"), None);
    }

    #[test]
    fn with_one_process_that_nobody_can_read_only_what_was_seen_is_said() {
        let found = Found {
            unread: vec!["process 9: /proc/9/maps: EACCES".into()],
            members: HashMap::from([(8, (UID.parse().unwrap(), "pause".into()))]),
            ..Found::default()
        };
        let (cgroups, processes) = told(Ok(found));
        let Known::Partly { pods, reason } = cgroups else {
            panic!("{cgroups:?}")
        };
        assert_eq!(
            pods,
            [(UID.parse().unwrap(), "process 8 (pause) belongs to it".to_owned())]
        );
        assert_eq!(reason, "process 9: /proc/9/maps: EACCES");
        assert!(matches!(processes, Known::Partly { pods, .. } if pods.is_empty()));
    }
}
