//! How much is in a directory, by lstat alone.

use std::time::{Duration, Instant};

use rustix::fs::FileType;

use crate::error::Error;
use crate::held::Held;
use crate::volume::Content;

/// How deep directories may lie in each other: each level is held open.
pub(crate) const LEVELS: usize = 200;

/// Where counting ends.
const ENTRIES: u64 = 5_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) entries: u64,
    /// Sizes of regular files.
    pub(crate) bytes: u64,
    pub(crate) newest: i64,
    /// Counting was ended before the end.
    pub(crate) more: bool,
}

impl Sum {
    pub(crate) fn content(self) -> Content {
        match self.entries {
            0 => Content::Empty,
            entries => Content::Files {
                entries,
                bytes: self.bytes,
                newest: self.newest,
                more: self.more,
            },
        }
    }
}

/// Counts what is in a directory and on its mount.
pub(crate) fn measure(dir: &Held) -> Result<Sum, Error> {
    let mut sum = Sum::default();
    count(dir, 0, Instant::now() + PATIENCE, &mut sum)?;
    Ok(sum)
}

fn count(dir: &Held, level: usize, until: Instant, sum: &mut Sum) -> Result<(), Error> {
    for name in dir.names()? {
        if sum.entries >= ENTRIES || Instant::now() > until {
            sum.more = true;
            return Ok(());
        }
        let stat = match dir.stat_here(&name) {
            Ok(Some(stat)) => stat,
            Ok(None) => continue,
            // It is there, and what is mounted on it is not asked.
            Err(Error::Mounted { .. }) => {
                sum.entries += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        sum.entries += 1;
        sum.newest = sum.newest.max(stat.st_mtime);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => sum.bytes += u64::try_from(stat.st_size).unwrap_or_default(),
            FileType::Directory if level >= LEVELS => sum.more = true,
            FileType::Directory => match dir.down(&name) {
                Ok(Some(below)) => count(&below, level + 1, until, sum)?,
                Ok(None) | Err(Error::Mounted { .. } | Error::NotADirectory { .. }) => {}
                Err(error) => return Err(error),
            },
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {}
        }
    }
    Ok(())
}
