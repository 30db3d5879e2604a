//! What is mounted, in every mount namespace.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nodemend_hostfs::Host;
use rustix::io::Errno;

use crate::census::{Census, MountNamespace};
use crate::error::Error;
use crate::mounts::{LIMIT, in_order, room};
use crate::pool::{self, PATIENCE, Pulse};
use crate::procfs::{is_gone, open_proc, read_records};
use crate::take::{own, own_mount_namespace};

/// Through whose eyes a mount table was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// A process or thread of that namespace; None for the namespace of the caller.
    pub pid: Option<u32>,
    /// Its name, if the census has it.
    pub comm: String,
    /// The inode of the mount namespace.
    pub namespace: u64,
}

/// What the mount tables of a node said.
#[derive(Debug)]
pub struct Tables<A> {
    /// What was made of each table: the caller's own first, then by namespace.
    pub read: Vec<(Viewer, A)>,
    /// The tables that could not be read, each with the reason: then nobody can say what is mounted.
    pub unread: Vec<String>,
}

/// One table that is to be read.
struct Job {
    /// None is the caller's own namespace.
    viewers: Option<Vec<u32>>,
    /// The names of the viewers, as far as the census has them.
    names: HashMap<u32, String>,
    namespace: u64,
}

/// Reads the mount table of each mount namespace of a census, the caller's own among them, and gives `select` its bytes
/// (to be parsed by `nodemend_hostfs::mountinfo`). One table is held at a time by each of two threads.
///
/// A namespace whose processes have all ended since the census is left out. One that the kernel does not show within two
/// seconds is unread.
///
/// # Errors
/// [`Error::NotRunning`] for a tree on a disk; [`Error::Proc`] if /proc itself cannot be read.
pub fn mount_tables<A: Send + 'static>(
    host: &Host,
    census: &Census,
    select: impl Fn(&Viewer, &[u8]) -> Result<A, String> + Send + Sync + 'static,
) -> Result<Tables<A>, Error> {
    if !host.is_running() {
        return Err(Error::NotRunning {
            root: host.root().to_owned(),
        });
    }
    let proc = Arc::new(open_proc().map_err(Error::proc("open", "/proc"))?);
    let jobs = jobs(census, own_mount_namespace(&proc)?);
    let names: Vec<u64> = jobs.iter().map(|job| job.namespace).collect();
    let dir = Arc::clone(&proc);
    let done = pool::run(
        jobs,
        Box::new(move |job: &Job, pulse, answer| answer(look(&dir, job, pulse, &select))),
    )
    .map_err(Error::Thread)?;
    let mut tables = Tables {
        read: Vec::new(),
        unread: Vec::new(),
    };
    for answer in done.answers {
        match answer {
            Ok(Some(read)) => tables.read.push(read),
            Ok(None) => {}
            Err(reason) => tables.unread.push(reason),
        }
    }
    for namespace in done.given_up.iter().filter_map(|at| names.get(*at)) {
        tables.unread.push(format!(
            "mount namespace {namespace}: the kernel did not give its table within {PATIENCE} s"
        ));
    }
    tables
        .read
        .sort_by_key(|(viewer, _)| (viewer.pid.is_some(), viewer.namespace));
    Ok(tables)
}

fn jobs(census: &Census, own: u64) -> Vec<Job> {
    let others = census
        .mount_namespaces
        .iter()
        .filter(|namespace| namespace.inode != own);
    let others = others.map(|MountNamespace { inode, viewers }| Job {
        viewers: Some(viewers.clone()),
        names: viewers
            .iter()
            .filter_map(|pid| Some((*pid, census.process(*pid)?.comm.clone())))
            .collect(),
        namespace: *inode,
    });
    let own = Job {
        viewers: None,
        names: HashMap::new(),
        namespace: own,
    };
    std::iter::once(own).chain(others).collect()
}

/// None if nobody is left who sees the table.
fn look<A>(
    proc: &OwnedFd,
    job: &Job,
    pulse: &Pulse,
    select: &impl Fn(&Viewer, &[u8]) -> Result<A, String>,
) -> Result<Option<(Viewer, A)>, String> {
    let Some(viewers) = &job.viewers else {
        // The thread of the pool is in the namespace of the thread that started it.
        return match table(proc.as_fd(), own(proc), None, job, select)? {
            Some(read) => Ok(Some(read)),
            None => Err("/proc/self/mountinfo: it is not there".to_owned()),
        };
    };
    for viewer in in_order(proc.as_fd(), viewers) {
        pulse.beat();
        if let Some(read) = table(proc.as_fd(), &viewer.to_string(), Some(viewer), job, select)? {
            return Ok(Some(read));
        }
    }
    Ok(None)
}

fn table<A>(
    proc: BorrowedFd<'_>,
    of: &str,
    pid: Option<u32>,
    job: &Job,
    select: &impl Fn(&Viewer, &[u8]) -> Result<A, String>,
) -> Result<Option<(Viewer, A)>, String> {
    let path = format!("{of}/mountinfo");
    let unread = |reason: String| format!("mount namespace {}: /proc/{path}: {reason}", job.namespace);
    let mut buffer = room();
    match read_records(proc, path.as_str(), &mut buffer, LIMIT) {
        Ok(true) => {}
        Ok(false) => return Err(unread("larger than any mount table should be".into())),
        // A task that is about to end has no mount namespace any more (`mounts_open_common`, fs/proc_namespace.c).
        Err(errno) if is_gone(errno) || errno == Errno::INVAL => return Ok(None),
        Err(errno) => return Err(unread(errno.to_string())),
    }
    if !buffer.is_empty() && !buffer.ends_with(b"\n") {
        return Err(unread("the last line of the mount table is cut".into()));
    }
    let viewer = Viewer {
        pid,
        comm: pid
            .and_then(|pid| job.names.get(&pid))
            .cloned()
            .unwrap_or_default(),
        namespace: job.namespace,
    };
    let answer = select(&viewer, &buffer).map_err(unread)?;
    Ok(Some((viewer, answer)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::path::Path;
    use std::process::{Command, Stdio};

    use nodemend_hostfs::mountinfo;

    use super::*;

    /// Whether something is mounted at a path, by each table.
    fn at(census: &Census, path: &'static str) -> Tables<bool> {
        let select = |_: &Viewer, table: &[u8]| {
            let mounts = mountinfo::parse(table).map_err(|error| error.to_string())?;
            Ok(mounts.iter().any(|mount| mount.mountpoint == Path::new(path)))
        };
        mount_tables(&Host::local(), census, select).unwrap()
    }

    #[test]
    fn the_callers_own_table_comes_first_and_that_of_another_namespace_is_read_too() {
        let script = "mount -t tmpfs x /mnt && mkdir /mnt/deep && mount -t tmpfs x /mnt/deep && echo ready && read end";
        let mut shell = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let census = Census::take(&Host::local()).unwrap();
        let tables = at(&census, "/mnt/deep");
        shell.kill().unwrap();
        shell.wait().unwrap();
        let (own, here) = &tables.read[0];
        assert_eq!((own.pid, *here), (None, false));
        let (other, _) = tables.read.iter().find(|(_, there)| *there).unwrap();
        assert_eq!((other.pid, other.comm.as_str()), (Some(shell.id()), "sh"));
        let gone = at(&census, "/mnt/deep");
        assert!(
            gone.read.iter().all(|(_, there)| !there),
            "its namespace has ended"
        );
        assert_eq!(gone.unread, Vec::<String>::new());
    }

    #[test]
    fn a_table_that_is_not_understood_is_unread() {
        let tables = mount_tables(&Host::local(), &Census::default(), |_, _| {
            Err::<(), _>("odd".to_owned())
        });
        let tables = tables.unwrap();
        assert!(tables.read.is_empty());
        assert!(
            tables.unread[0].ends_with("mountinfo: odd"),
            "{:?}",
            tables.unread
        );
    }
}
