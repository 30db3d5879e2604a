//! What stayed, gathered from all threads.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::report::{Problem, Reason, Step};
use crate::{flags, subvolume, tree};

/// Problems, counted; the first of them kept whole.
#[derive(Debug)]
pub(crate) struct Problems {
    most: usize,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    first: VecDeque<Problem>,
    counts: Vec<(Reason, u64)>,
}

impl Problems {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            met: Mutex::default(),
        }
    }

    /// Adds one. The path and the detail are made only if it is kept.
    pub(crate) fn add(
        &self,
        step: Step,
        error: Option<Errno>,
        reason: Reason,
        path: impl FnOnce() -> PathBuf,
    ) {
        let kept = {
            let mut met = self.met();
            match met.counts.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => met.counts.push((reason, 1)),
            }
            met.first.len() < self.most
        };
        if !kept {
            return;
        }
        let path = path();
        let detail = (reason == Reason::Mount).then(|| mounted_at(&path)).flatten();
        let mut met = self.met();
        if met.first.len() < self.most {
            met.first.push_back(Problem {
                path,
                step,
                error,
                reason,
                detail,
            });
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.met().counts.iter().map(|(_, count)| count).sum()
    }

    /// The kept ones, and the counts.
    pub(crate) fn into_parts(self) -> (Vec<Problem>, Vec<(Reason, u64)>) {
        let met = self.met.into_inner().unwrap_or_else(PoisonError::into_inner);
        (met.first.into(), met.counts)
    }

    fn met(&self) -> std::sync::MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error means for an entry of a directory.
pub(crate) fn reason(error: Errno, dir: BorrowedFd<'_>, name: &CStr) -> Reason {
    match error {
        Errno::BUSY | Errno::XDEV => Reason::Mount,
        Errno::PERM => flags::protecting(dir, name).map_or(Reason::Denied, flags::Protection::reason),
        Errno::ACCESS => Reason::Denied,
        // The one place where a part of a file system is read-only. Its flags do not tell of the whole: ext4 after an error
        // and XFS on its way to read-only do not show it yet.
        Errno::ROFS if subvolume::is_read_only(dir) => Reason::ReadOnlySnapshot,
        Errno::ROFS => Reason::ReadOnly,
        Errno::NOSPC | Errno::DQUOT => Reason::Full,
        Errno::NOTEMPTY | Errno::EXIST => Reason::WrittenTo,
        Errno::STALE => Reason::Moved,
        _ => Reason::Other,
    }
}

/// The topmost mount at a path, in words.
fn mounted_at(path: &Path) -> Option<String> {
    let mounts = tree::mounts().ok()?;
    let mount = mounts.iter().rev().find(|mount| mount.mountpoint == path)?;
    Some(format!("{} {}", mount.fstype, mount.source.to_string_lossy()))
}
