//! The limit: a program that knows beforehand what is in the tree, and only unlinks and removes directories. No program that
//! has to look first can be much faster.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::against::Result;

/// The part that removes.
pub(crate) const PART: &str = "limit";

/// Directories of more entries than that are worked on in pieces of that many, where that is faster.
const PIECE: usize = 256;

/// What may work at once.
#[derive(Clone, Copy)]
pub(crate) enum Lanes {
    /// Anything.
    One,
    /// One thread in each allocation group of XFS; the group of an inode is its number shifted.
    Groups { count: u32, shift: u32 },
}

/// Writes what is in a tree, in the order in which the file system lists it: for each directory `D`, its number among the
/// directories, that of its parent, its inode and its path below the root; then `F` and the name of each file. Each ends with
/// a NUL.
pub(crate) fn list(root: &Path, listing: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(listing)?);
    let mut open = vec![(PathBuf::new(), 0, fs::metadata(root)?.ino())];
    let mut count = 0;
    while let Some((path, parent, inode)) = open.pop() {
        let number = count;
        count += 1;
        write!(out, "D{number} {parent} {inode} ")?;
        out.write_all(path.as_os_str().as_bytes())?;
        out.write_all(&[0])?;
        for entry in fs::read_dir(root.join(&path))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push((path.join(entry.file_name()), number, entry.ino()));
            } else {
                out.write_all(b"F")?;
                out.write_all(entry.file_name().as_bytes())?;
                out.write_all(&[0])?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// The arguments of the part.
pub(crate) fn arguments(
    listing: &Path,
    tree: &Path,
    lanes: Lanes,
    threads: usize,
    split: bool,
) -> Vec<String> {
    let lanes = match lanes {
        Lanes::One => "one".to_owned(),
        Lanes::Groups { count, shift } => format!("{count}/{shift}"),
    };
    vec![
        listing.display().to_string(),
        tree.display().to_string(),
        lanes,
        threads.to_string(),
        split.to_string(),
    ]
}

/// The part that removes.
pub(crate) fn remove_here(arguments: &[String]) -> Result<()> {
    let [listing, tree, lanes, threads, split] = arguments else {
        return Err("expected a listing, a tree, lanes, threads and whether to split".into());
    };
    let bytes = fs::read(listing)?;
    let plan = Plan::read(&bytes, split == "true")?;
    let root = nix::fcntl::open(Path::new(tree), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
    let queues = match lanes.split_once('/') {
        None => vec![(Queue::of(plan.tasks.len(), |_| true), threads.parse()?)],
        Some((count, shift)) => {
            let (count, shift): (u64, u32) = (count.parse()?, shift.parse()?);
            let group = |task: usize| plan.directories[plan.tasks[task].directory].inode >> shift;
            (0..count)
                .map(|lane| (Queue::of(plan.tasks.len(), |task| group(task) % count == lane), 1))
                .collect()
        }
    };
    let done = std::thread::scope(|scope| {
        let workers: Vec<_> = queues
            .iter()
            .flat_map(|(queue, threads): &(Queue, usize)| std::iter::repeat_n(queue, *threads))
            .map(|queue| scope.spawn(|| plan.work(queue, &root)))
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(_) => Err(nix::errno::Errno::ECANCELED),
        })
    });
    done?;
    fs::remove_dir(tree)?;
    Ok(())
}

struct Directory<'a> {
    path: &'a OsStr,
    parent: usize,
    inode: u64,
    files: Vec<&'a OsStr>,
    /// Tasks in it and directories below it that are not done.
    pending: AtomicUsize,
}

struct Task {
    directory: usize,
    files: Range<usize>,
}

struct Plan<'a> {
    directories: Vec<Directory<'a>>,
    tasks: Vec<Task>,
}

/// Tasks, last first: what is deepest was listed last, so that each directory can go soon after what is in it.
struct Queue {
    tasks: Vec<usize>,
    next: AtomicUsize,
}

impl Queue {
    fn of(tasks: usize, mut mine: impl FnMut(usize) -> bool) -> Self {
        Self {
            tasks: (0..tasks).rev().filter(|task| mine(*task)).collect(),
            next: AtomicUsize::new(0),
        }
    }
}

impl<'a> Plan<'a> {
    fn read(bytes: &'a [u8], split: bool) -> Result<Self> {
        let mut directories: Vec<Directory<'a>> = Vec::new();
        for line in bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            match (line.split_at(1), directories.last_mut()) {
                ((b"F", name), Some(directory)) => directory.files.push(OsStr::from_bytes(name)),
                ((b"D", rest), _) => directories.push(Directory::read(rest)?),
                _ => return Err("not a listing".into()),
            }
        }
        let mut tasks = Vec::new();
        let mut pending: HashMap<usize, usize> = HashMap::new();
        for (number, directory) in directories.iter().enumerate() {
            let files = directory.files.len();
            let piece = if split && files > 2 * PIECE { PIECE } else { files };
            let starts = (0..files.max(1)).step_by(piece.max(1));
            for start in starts {
                tasks.push(Task {
                    directory: number,
                    files: start..files.min(start + piece),
                });
                *pending.entry(number).or_default() += 1;
            }
            if number > 0 {
                *pending.entry(directory.parent).or_default() += 1;
            }
        }
        for (number, directory) in directories.iter().enumerate() {
            directory
                .pending
                .store(pending.get(&number).copied().unwrap_or(0), Ordering::Relaxed);
        }
        Ok(Self { directories, tasks })
    }

    fn work(&self, queue: &Queue, root: &impl std::os::fd::AsFd) -> nix::Result<()> {
        while let Some(task) = queue.tasks.get(queue.next.fetch_add(1, Ordering::Relaxed)) {
            let task = &self.tasks[*task];
            let directory = &self.directories[task.directory];
            if !task.files.is_empty() {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                let path = if task.directory == 0 {
                    OsStr::new(".")
                } else {
                    directory.path
                };
                let dir = openat(root, path, flags, Mode::empty())?;
                for name in &directory.files[task.files.clone()] {
                    unlinkat(&dir, *name, UnlinkatFlags::NoRemoveDir)?;
                }
            }
            self.finish(task.directory, root)?;
        }
        Ok(())
    }

    /// Whoever finishes the last of a directory removes it, and goes on with its parent.
    fn finish(&self, mut number: usize, root: &impl std::os::fd::AsFd) -> nix::Result<()> {
        while self.directories[number].pending.fetch_sub(1, Ordering::AcqRel) == 1 && number > 0 {
            let directory = &self.directories[number];
            unlinkat(root, directory.path, UnlinkatFlags::RemoveDir)?;
            number = directory.parent;
        }
        Ok(())
    }
}

impl<'a> Directory<'a> {
    fn read(line: &'a [u8]) -> Result<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ').skip(1);
        let mut number = || -> Result<u64> {
            let digits = parts.next().ok_or("a directory without numbers")?;
            Ok(std::str::from_utf8(digits)?.parse()?)
        };
        let (parent, inode) = (usize::try_from(number()?)?, number()?);
        Ok(Self {
            path: OsStr::from_bytes(parts.next().ok_or("a directory without a path")?),
            parent,
            inode,
            files: Vec::new(),
            pending: AtomicUsize::new(0),
        })
    }
}
