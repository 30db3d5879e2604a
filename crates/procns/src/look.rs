//! One look at one process.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::census::CniCall;
use crate::files::{self, OpenFile};
use crate::pool::Pulse;
use crate::procfs::{LinkText, is_gone, numbers, open_dir, read};
use crate::stat::{Stat, cni_call, container_ids};

/// The most of a small file of /proc that is read, in bytes.
const SMALL: usize = 1 << 20;
/// The most of an environment that is read, in bytes: more than execve(2) lets through by default.
const ENVIRON: usize = 16 << 20;

/// What one job says of its process.
pub(crate) enum Answer {
    /// Everything but its environment.
    Looked(Box<Look>),
    /// It is a CNI plugin at work.
    Cni(u32, CniCall),
    /// Something of it could not be read.
    Unread(String),
}

/// One process as it was found. Namespaces are told by their inodes.
pub(crate) struct Look {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) start_time: u64,
    pub(crate) is_kernel_thread: bool,
    pub(crate) container_ids: Vec<String>,
    pub(crate) netns: Option<u64>,
    /// Mount namespaces, with the thread to ask for the table of each.
    pub(crate) mount_namespaces: Vec<(u64, u32)>,
    /// The threads in another network namespace than the main thread.
    pub(crate) threads: Vec<ThreadElsewhere>,
    pub(crate) files: Vec<OpenFile>,
}

/// A thread that is not in the network namespace of its main thread.
pub(crate) struct ThreadElsewhere {
    pub(crate) tid: u32,
    pub(crate) comm: String,
    pub(crate) netns: u64,
}

/// Looks at a process. Says nothing of one that has ended.
///
/// The directory of the process is opened once: it stays that of this process when the pid is used again
/// (`proc_pid_make_inode` in fs/proc/base.c keeps the `struct pid`, and reads give ESRCH after the end).
pub(crate) fn look(proc: BorrowedFd<'_>, pid: u32, pulse: &Pulse, answer: &mut dyn FnMut(Answer)) {
    let mut reader = Reader {
        pid,
        buffer: Vec::new(),
        pulse,
        answer,
    };
    if let Err(Trouble { file, reason }) = reader.process(proc) {
        reader.unread(&file, &reason);
    }
}

/// Why a look was cut short. Not made for a process that has ended.
struct Trouble {
    file: String,
    reason: String,
}

/// Who of a process lives. When the main thread has ended before others, only they have namespaces, files and an
/// environment.
enum Living {
    Nobody,
    Main,
    /// This one, by its directory.
    Thread(OwnedFd),
}

impl Living {
    fn directory<'a>(&'a self, main: &'a OwnedFd) -> BorrowedFd<'a> {
        match self {
            Self::Nobody | Self::Main => main.as_fd(),
            Self::Thread(dir) => dir.as_fd(),
        }
    }
}

struct Reader<'a> {
    pid: u32,
    buffer: Vec<u8>,
    pulse: &'a Pulse,
    answer: &'a mut dyn FnMut(Answer),
}

impl Reader<'_> {
    fn process(&mut self, proc: BorrowedFd<'_>) -> Result<(), Trouble> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(proc, DecInt::new(self.pid), flags, Mode::empty());
        let Some(dir) = there("", opened)? else {
            return Ok(());
        };
        let Some(stat) = self.stat(&dir)? else {
            return Ok(());
        };
        let mut look = Look {
            pid: self.pid,
            comm: stat.comm.clone(),
            start_time: stat.start_time,
            is_kernel_thread: stat.is_kernel_thread,
            container_ids: Vec::new(),
            netns: None,
            mount_namespaces: Vec::new(),
            threads: Vec::new(),
            files: Vec::new(),
        };
        let living = self.holdings(&dir, &stat, &mut look);
        (self.answer)(Answer::Looked(Box::new(look)));
        match living? {
            Living::Nobody => Ok(()),
            living @ (Living::Main | Living::Thread(_)) => self.environ(living.directory(&dir)),
        }
    }

    /// What it holds, and whom to ask for its environment.
    fn holdings(&mut self, dir: &OwnedFd, stat: &Stat, look: &mut Look) -> Result<Living, Trouble> {
        look.container_ids = self.container_ids(dir)?;
        look.netns = namespace(dir, "ns/net", b"net")?;
        if stat.is_kernel_thread {
            return Ok(Living::Nobody);
        }
        let mount_namespace = namespace(dir, "ns/mnt", b"mnt")?;
        look.mount_namespaces
            .extend(mount_namespace.map(|inode| (inode, self.pid)));
        let mut living = if stat.is_dead() {
            Living::Nobody
        } else {
            Living::Main
        };
        if stat.threads > 1 {
            self.threads(dir, &mut living, look)?;
        }
        if !matches!(living, Living::Nobody) {
            self.files(living.directory(dir), look);
        }
        Ok(living)
    }

    fn stat(&mut self, dir: &OwnedFd) -> Result<Option<Stat>, Trouble> {
        let complete = there("stat", read(dir, c"stat", &mut self.buffer, SMALL))?;
        match complete {
            None => Ok(None),
            Some(_) => Stat::parse(&self.buffer).map(Some).ok_or_else(|| Trouble {
                file: "stat".into(),
                reason: "not of the form that proc(5) describes".into(),
            }),
        }
    }

    fn container_ids(&mut self, dir: &OwnedFd) -> Result<Vec<String>, Trouble> {
        Ok(
            match there("cgroup", read(dir, c"cgroup", &mut self.buffer, SMALL))? {
                Some(_) => container_ids(&self.buffer),
                None => Vec::new(),
            },
        )
    }

    /// The namespaces of every thread but the main one, and a thread that lives if that has ended.
    fn threads(&mut self, dir: &OwnedFd, living: &mut Living, look: &mut Look) -> Result<(), Trouble> {
        let Some(task) = there("task", open_dir(dir, c"task"))? else {
            return Ok(());
        };
        let mut tids = Vec::new();
        let listed = numbers(&task, |tid, _| {
            tids.push(tid);
            Ok::<(), Errno>(())
        });
        there("task", listed)?;
        tids.retain(|tid| *tid != self.pid);
        for tid in tids {
            self.pulse.beat();
            if self.thread(&task, tid, look)? && matches!(living, Living::Nobody) {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let opened = there("task", openat(&task, DecInt::new(tid), flags, Mode::empty()))?;
                *living = opened.map_or(Living::Nobody, Living::Thread);
            }
        }
        Ok(())
    }

    /// The namespaces of one thread. False if it has ended.
    fn thread(&mut self, task: &OwnedFd, tid: u32, look: &mut Look) -> Result<bool, Trouble> {
        let mut name = format!("{tid}/ns/net");
        let Some(netns) = namespace(task, &name, b"net").map_err(Trouble::below_task)? else {
            return Ok(false);
        };
        name.truncate(name.len() - "net".len());
        let _ = name.write_str("mnt");
        if let Some(mnt) = namespace(task, &name, b"mnt").map_err(Trouble::below_task)?
            && look.mount_namespaces.iter().all(|(inode, _)| *inode != mnt)
        {
            look.mount_namespaces.push((mnt, tid));
        }
        if Some(netns) != look.netns {
            let comm = read(task, format!("{tid}/comm"), &mut self.buffer, SMALL);
            let comm = there("task", comm)?.map(|_| {
                String::from_utf8_lossy(&self.buffer)
                    .trim_end_matches('\n')
                    .to_owned()
            });
            look.threads.push(ThreadElsewhere {
                tid,
                comm: comm.unwrap_or_default(),
                netns,
            });
        }
        Ok(true)
    }

    fn files(&mut self, dir: BorrowedFd<'_>, look: &mut Look) {
        match files::of_process(dir, self.pulse, &mut self.buffer) {
            Ok(files) => look.files = files,
            Err(errno) if is_gone(errno) => {}
            Err(errno) => self.unread("fd", &errno.to_string()),
        }
    }

    /// Read last: only this can wait for the process.
    fn environ(&mut self, dir: BorrowedFd<'_>) -> Result<(), Trouble> {
        let environ = match read(dir, c"environ", &mut self.buffer, ENVIRON) {
            // The process has unmapped the stack that it was started with, as the stubs of gVisor do. A plugin does not.
            Err(Errno::IO) => return Ok(()),
            environ => there("environ", environ)?,
        };
        match environ {
            None => {}
            Some(true) => {
                if let Some(call) = cni_call(&self.buffer) {
                    (self.answer)(Answer::Cni(self.pid, call));
                }
            }
            Some(false) => self.unread("environ", "larger than any environment should be"),
        }
        Ok(())
    }

    fn unread(&mut self, file: &str, reason: &str) {
        (self.answer)(Answer::Unread(unread(self.pid, file, reason)));
    }
}

impl Trouble {
    fn below_task(mut self) -> Self {
        self.file.insert_str(0, "task/");
        self
    }
}

/// The sentence for what could not be read of a process.
pub(crate) fn unread(pid: u32, file: &str, reason: &str) -> String {
    let slash = if file.is_empty() { "" } else { "/" };
    format!("process {pid}: /proc/{pid}{slash}{file}: {reason}")
}

/// None if the process has ended.
fn there<T>(file: &str, result: Result<T, Errno>) -> Result<Option<T>, Trouble> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(errno) if is_gone(errno) => Ok(None),
        Err(errno) => Err(Trouble {
            file: file.to_owned(),
            reason: errno.to_string(),
        }),
    }
}

/// The inode of a namespace link. None for a zombie: a task gives up its namespaces before it is reaped
/// (`exit_task_namespaces` in kernel/exit.c), and the link then reads ENOENT. In between, a task that has given up its
/// memory may be refused to everybody (`__ptrace_may_access` in kernel/ptrace.c): it is on its way out, too.
fn namespace(at: &OwnedFd, link: &str, kind: &[u8]) -> Result<Option<u64>, Trouble> {
    let text = match LinkText::read(at, link) {
        Err(Errno::ACCESS | Errno::PERM) if is_exiting(at, link) => return Ok(None),
        text => there(link, text)?,
    };
    match text {
        None => Ok(None),
        Some(text) => text.namespace(kind).map(Some).ok_or_else(|| Trouble {
            file: link.to_owned(),
            reason: "the link does not name a namespace".into(),
        }),
    }
}

/// True if the task of a namespace link is ending, or has ended.
fn is_exiting(at: &OwnedFd, link: &str) -> bool {
    let task = link.split("ns/").next().unwrap_or_default();
    let mut buffer = Vec::new();
    match read(at, format!("{task}stat"), &mut buffer, SMALL) {
        Ok(_) => Stat::parse(&buffer).is_some_and(|stat| stat.is_exiting),
        Err(errno) => is_gone(errno),
    }
}
