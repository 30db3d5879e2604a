//! Taking a census: the walk, the mount tables, and putting both together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nodemend_hostfs::{FileId, Host};
use rustix::fs::{AtFlags, CWD, statat};

use crate::census::{Census, Holder, MountNamespace, Netns, NetnsId, Process};
use crate::error::Error;
use crate::look::{self, Look, unread};
use crate::mounts::{self, NetnsMount, Tabled};
use crate::pool::{self, PATIENCE};
use crate::procfs::{LinkText, numbers, open_proc};
use crate::settle;

/// How often /proc is listed again for processes that were started meanwhile.
const ROUNDS: usize = 3;
/// How many processes that live in the host's namespace are named.
const HOST_PROCESSES: usize = 3;
/// How many tasks of a mount namespace are kept, in case some of them end.
const VIEWERS: usize = 8;
/// How many mounts in other mount namespaces are named for one network namespace.
const FOREIGN_MOUNTS: usize = 8;

impl Census {
    /// Looks at every process of the running host, and at every mount table.
    ///
    /// It is one walk, not one moment: a process that ends meanwhile is left out, one that starts meanwhile is
    /// looked for at the end. Whoever acts on a census takes a second one before.
    ///
    /// Run it as root: what others' processes hold is not shown to other users, and is then in
    /// [`Census::unread`]. A read that the kernel does not answer within two seconds is given up, and is there too.
    ///
    /// The holders of the host's own namespace are cut: of the processes in it three are named. Of mounts in other
    /// mount namespaces eight are named for each network namespace.
    ///
    /// # Errors
    /// [`Error::NotRunning`] for a tree on a disk; [`Error::Proc`] if /proc itself cannot be read.
    pub fn take(host: &Host) -> Result<Self, Error> {
        if !host.is_running() {
            return Err(Error::NotRunning {
                root: host.root().to_owned(),
            });
        }
        let proc = Arc::new(open_proc().map_err(Error::proc("open", "/proc"))?);
        let here = Here::find(&proc)?;
        let mut walk = Walk::default();
        walk.run(&proc)?;
        let tabled = tables(&proc, &here, &mut walk)?;
        let mut sum = Sum {
            here,
            holders: BTreeMap::new(),
        };
        sum.processes(&walk.looks);
        let mounted = sum.mounts(&tabled);
        let opened = settle::open_files(&proc, sum.here.netns, &walk, &mounted, |inode| {
            sum.holders.contains_key(&inode)
        })?;
        walk.unread.extend(opened.unread);
        for (inode, holder) in opened.holders {
            sum.add(inode, holder);
        }
        Ok(sum.census(walk))
    }
}

/// Where the caller is.
pub(crate) struct Here {
    pub(crate) netns: NetnsId,
    mount_namespace: u64,
    mounts: Vec<NetnsMount>,
    unread: Vec<String>,
}

impl Here {
    /// By the links of the calling thread: they decide what a path means to it. A kernel before 3.17 has no
    /// `thread-self`; there the main thread stands for it.
    fn find(proc: &OwnedFd) -> Result<Self, Error> {
        let own = own(proc);
        let path = format!("/proc/{own}/ns/net");
        let stat = statat(CWD, &path, AtFlags::empty()).map_err(Error::proc("stat", &path))?;
        let netns = FileId::from(&stat);
        let mut here = Self {
            netns,
            mount_namespace: own_mount_namespace(proc)?,
            mounts: Vec::new(),
            unread: Vec::new(),
        };
        let table = format!("{own}/mountinfo");
        match mounts::netns_mounts(proc, &table, &mut mounts::room()) {
            Ok(mounts) => here.mounts = mounts,
            Err(mounts::Trouble::Gone) => here.unread.push(format!("/proc/{table}: it is not there")),
            Err(mounts::Trouble::Unread(reason)) => here.unread.push(format!("/proc/{table}: {reason}")),
        }
        here.mistrust_old_kernels(proc)?;
        Ok(here)
    }

    /// Before Linux 3.19 namespaces were files of proc itself, and a mount table did not say which of them a
    /// mount held.
    fn mistrust_old_kernels(&mut self, proc: &OwnedFd) -> Result<(), Error> {
        let stat = rustix::fs::fstat(proc).map_err(Error::proc("stat", "/proc"))?;
        if FileId::from(&stat).dev == self.netns.dev {
            self.unread.push(
                "this kernel does not tell which network namespace a mount holds (that came with Linux 3.19)"
                    .into(),
            );
        }
        Ok(())
    }
}

/// The directory of the calling thread in /proc.
pub(crate) fn own(proc: &OwnedFd) -> &'static str {
    ["thread-self", "self"]
        .into_iter()
        .find(|own| LinkText::read(proc, format!("{own}/ns/net")).is_ok())
        .unwrap_or("self")
}

/// The inode of the mount namespace of the calling thread.
pub(crate) fn own_mount_namespace(proc: &OwnedFd) -> Result<u64, Error> {
    let path = format!("{}/ns/mnt", own(proc));
    let link = LinkText::read(proc, &path).map_err(Error::proc("read", format!("/proc/{path}")))?;
    Ok(link.namespace(b"mnt").unwrap_or_default())
}

/// What the walk over the processes gave.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) looks: Vec<Look>,
    calls: HashMap<u32, crate::census::CniCall>,
    mount_namespaces: Vec<MountNamespace>,
    unread: Vec<String>,
}

impl Walk {
    fn run(&mut self, proc: &Arc<OwnedFd>) -> Result<(), Error> {
        let mut known = HashSet::new();
        for _ in 0..ROUNDS {
            let mut pids = list(proc)?;
            pids.retain(|pid| known.insert(*pid));
            if pids.is_empty() {
                break;
            }
            self.round(proc, pids)?;
        }
        if !known.contains(&1) {
            self.unread.push(
                "/proc does not show process 1: it is mounted with hidepid, or does not show this host"
                    .to_owned(),
            );
        }
        self.looks.sort_unstable_by_key(|look| look.pid);
        Ok(())
    }

    fn round(&mut self, proc: &Arc<OwnedFd>, pids: Vec<u32>) -> Result<(), Error> {
        let (dir, copy) = (Arc::clone(proc), pids.clone());
        let done = pool::run(
            pids,
            Box::new(move |pid, pulse, answer| look::look(dir.as_fd(), *pid, pulse, answer)),
        )
        .map_err(Error::Thread)?;
        for answer in done.answers {
            match answer {
                look::Answer::Looked(look) => self.looks.push(*look),
                look::Answer::Cni(pid, call) => drop(self.calls.insert(pid, call)),
                look::Answer::Unread(reason) => self.unread.push(reason),
            }
        }
        let silent = format!("the kernel did not answer within {PATIENCE} s");
        let pids = done.given_up.iter().filter_map(|at| copy.get(*at));
        self.unread.extend(pids.map(|pid| unread(*pid, "", &silent)));
        Ok(())
    }
}

fn list(proc: &OwnedFd) -> Result<Vec<u32>, Error> {
    // Opened anew: the position in a directory belongs to the open file.
    let dir = crate::procfs::open_dir(proc, c".").map_err(Error::proc("open", "/proc"))?;
    let mut pids = Vec::new();
    numbers(dir, |pid, _| {
        pids.push(pid);
        Ok::<(), rustix::io::Errno>(())
    })
    .map_err(Error::proc("list", "/proc"))?;
    Ok(pids)
}

/// The table of every mount namespace but the caller's, which is known.
fn tables(proc: &Arc<OwnedFd>, here: &Here, walk: &mut Walk) -> Result<Vec<Tabled>, Error> {
    walk.mount_namespaces = mount_namespaces(&walk.looks);
    let others = |namespace: &&MountNamespace| namespace.inode != here.mount_namespace;
    let jobs: Vec<MountNamespace> = walk.mount_namespaces.iter().filter(others).cloned().collect();
    let names: Vec<u64> = jobs.iter().map(|table| table.inode).collect();
    let dir = Arc::clone(proc);
    let done = pool::run(
        jobs,
        Box::new(move |table, pulse, answer| mounts::look(dir.as_fd(), table, pulse, answer)),
    )
    .map_err(Error::Thread)?;
    let mut tabled = Vec::new();
    for answer in done.answers {
        match answer {
            mounts::Answer::Read(table) => tabled.push(table),
            mounts::Answer::Unread(reason) => walk.unread.push(reason),
        }
    }
    for namespace in done.given_up.iter().filter_map(|at| names.get(*at)) {
        walk.unread.push(format!(
            "mount namespace {namespace}: the kernel did not give its table within {PATIENCE} s"
        ));
    }
    tabled.sort_unstable_by_key(|table| table.namespace);
    Ok(tabled)
}

/// Every mount namespace, with some that live in it.
fn mount_namespaces(looks: &[Look]) -> Vec<MountNamespace> {
    let mut viewers: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (namespace, tid) in looks.iter().flat_map(|look| &look.mount_namespaces) {
        let viewers = viewers.entry(*namespace).or_default();
        if viewers.len() < VIEWERS {
            viewers.push(*tid);
        }
    }
    let namespaces = viewers.into_iter();
    namespaces
        .map(|(inode, viewers)| MountNamespace { inode, viewers })
        .collect()
}

/// The sum of it all: who holds which network namespace, by inode.
struct Sum {
    here: Here,
    holders: BTreeMap<u64, Vec<Holder>>,
}

impl Sum {
    fn add(&mut self, inode: u64, holder: Holder) {
        self.holders.entry(inode).or_default().push(holder);
    }

    /// Kernel threads come last: they are named only where hardly anyone else lives.
    fn processes(&mut self, looks: &[Look]) {
        let (kernel, user): (Vec<&Look>, Vec<&Look>) = looks.iter().partition(|look| look.is_kernel_thread);
        let mut in_host = 0;
        for look in user.into_iter().chain(kernel) {
            if let Some(inode) = look.netns {
                in_host += usize::from(inode == self.here.netns.ino);
                if inode != self.here.netns.ino || in_host <= HOST_PROCESSES {
                    self.add(
                        inode,
                        Holder::Process {
                            pid: look.pid,
                            comm: look.comm.clone(),
                        },
                    );
                }
            }
            for thread in &look.threads {
                let (pid, tid, comm) = (look.pid, thread.tid, thread.comm.clone());
                self.add(thread.netns, Holder::Thread { pid, tid, comm });
            }
        }
    }

    /// Adds the holders, and gives the namespace of each mount by the id of the mount.
    fn mounts(&mut self, tabled: &[Tabled]) -> HashMap<u64, u64> {
        let mut mounted = HashMap::new();
        let mut ours = HashSet::new();
        for mount in std::mem::take(&mut self.here.mounts) {
            mounted.insert(mount.id, mount.inode);
            ours.insert(mount.inode);
            self.add(mount.inode, Holder::Mount { path: mount.path });
        }
        let mut named: HashMap<u64, usize> = HashMap::new();
        for table in tabled {
            for mount in &table.mounts {
                mounted.insert(mount.id, mount.inode);
                let named = named.entry(mount.inode).or_default();
                if !ours.contains(&mount.inode) && *named < FOREIGN_MOUNTS {
                    *named += 1;
                    self.add(
                        mount.inode,
                        Holder::ForeignMount {
                            pid: table.viewer,
                            path: mount.path.clone(),
                        },
                    );
                }
            }
        }
        mounted
    }

    fn census(self, mut walk: Walk) -> Census {
        let host = self.here.netns;
        let id = |ino| NetnsId { dev: host.dev, ino };
        walk.unread.extend(self.here.unread);
        walk.unread.sort_unstable();
        walk.unread.dedup();
        let namespaces = self.holders.into_iter().map(|(inode, mut holders)| {
            holders.sort_unstable();
            Netns {
                id: id(inode),
                holders,
            }
        });
        let process = |look: Look| Process {
            cni: walk.calls.remove(&look.pid),
            pid: look.pid,
            comm: look.comm,
            start_time: look.start_time,
            netns: look.netns.map(id),
            container_ids: look.container_ids,
        };
        Census {
            host,
            namespaces: namespaces.collect(),
            processes: walk.looks.into_iter().map(process).collect(),
            mount_namespaces: walk.mount_namespaces,
            unread: walk.unread,
        }
    }
}
