//! How much lies in the root, without walking it: it may hold millions of files, which is why containerd is down.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use nodemend_hostfs::descent::Descent;
use rustix::fs::{AtFlags, Dir, FileType, statat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::root::RootFacts;

/// How much lies in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Files and directories.
    pub entries: Amount,
    /// Bytes on the disk.
    pub bytes: Amount,
    /// Directories of snapshots, of all snapshotters.
    pub snapshots: Amount,
    /// Inodes that are in use on its whole file system: the root has no more.
    pub filesystem_inodes: Option<u64>,
    /// Bytes that are in use on its whole file system: the root has no more.
    pub filesystem_bytes: Option<u64>,
}

/// A number, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "known", content = "amount", rename_all = "camelCase")]
pub enum Amount {
    /// Counted to the end.
    Exactly(u64),
    /// Reckoned from a sample, or from the counters of a file system of its own.
    About(u64),
    /// Counted so far.
    AtLeast(u64),
    /// Not known, because …
    Unknown(String),
}

impl Amount {
    /// The number, however it is known.
    pub fn value(&self) -> Option<u64> {
        match self {
            Self::Exactly(amount) | Self::About(amount) | Self::AtLeast(amount) => Some(*amount),
            Self::Unknown(_) => None,
        }
    }
}

impl Estimate {
    /// Nothing is known.
    pub(super) fn unknown(reason: &str) -> Self {
        let unknown = || Amount::Unknown(reason.to_owned());
        Self {
            entries: unknown(),
            bytes: unknown(),
            snapshots: unknown(),
            filesystem_inodes: None,
            filesystem_bytes: None,
        }
    }
}

/// Deeper directories are not entered: each level holds one open.
const DEPTH: usize = 128;
/// After so many entries the clock is looked at.
const BATCH: u64 = 64;
/// A sample of fewer snapshots says nothing about the others, unless it is a quarter of them.
const SAMPLE: usize = 30;
/// The directory of every snapshotter that keeps one (overlayfs, native, btrfs, blockfile).
const SNAPSHOTS: &[u8] = b"snapshots";

/// Looks for as long as `within`: everything that is no snapshot first, then snapshots from all over their list.
///
/// If the root is the whole of a file system, its counters tell; then only the snapshots are counted.
pub(super) fn estimate(root: &OwnedFd, facts: &RootFacts, is_whole: bool, within: Duration) -> Estimate {
    let end = Instant::now() + within;
    let Some(descent) = Descent::from(root.as_fd()) else {
        return Estimate::unknown("this kernel does not tell mounts apart");
    };
    let walk = Walk { descent, end };
    let mut tally = Tally::default();
    let snapshots = walk.apart(root.as_fd(), &mut tally, is_whole);
    let count = snapshots.names.len() as u64;
    let inodes = facts.total_inodes.zip(facts.free_inodes);
    let inodes = inodes.map(|(all, free)| all.saturating_sub(free));
    let bytes = facts.total_bytes.saturating_sub(facts.free_bytes);
    let (entries, size) = match inodes.filter(|_| is_whole) {
        Some(inodes) => (Amount::About(inodes), Amount::About(bytes)),
        None => walk.sample(snapshots.names, &tally),
    };
    Estimate {
        entries,
        bytes: size,
        snapshots: match snapshots.cut {
            false => Amount::Exactly(count),
            true => Amount::AtLeast(count),
        },
        filesystem_inodes: inodes,
        filesystem_bytes: Some(bytes),
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    entries: u64,
    bytes: u64,
    /// True if something was not counted.
    cut: bool,
}

/// The snapshots, each with the directory it lies in.
struct Snapshots {
    names: Vec<(std::rc::Rc<OwnedFd>, OsString)>,
    cut: bool,
}

struct Walk {
    descent: Descent,
    end: Instant,
}

impl Walk {
    /// Lists the snapshots, and counts everything else, unless only the snapshots matter.
    fn apart(&self, root: BorrowedFd<'_>, tally: &mut Tally, only_snapshots: bool) -> Snapshots {
        let mut found = Snapshots {
            names: Vec::new(),
            cut: false,
        };
        let mut rest = Vec::new();
        for (plugin, is_dir) in self.list(root, tally) {
            let Some(dir) = is_dir.then(|| self.down(root, &plugin, tally)).flatten() else {
                continue;
            };
            for (name, is_dir) in self.list(dir.as_fd(), tally) {
                let Some(below) = is_dir.then(|| self.down(dir.as_fd(), &name, tally)).flatten() else {
                    continue;
                };
                if name.as_bytes() != SNAPSHOTS {
                    rest.push(below);
                    continue;
                }
                let before = tally.cut;
                let below = std::rc::Rc::new(below);
                let names = self.list(below.as_fd(), tally).into_iter();
                let dirs = names.filter(|(_, is_dir)| *is_dir);
                found
                    .names
                    .extend(dirs.map(|(name, _)| (std::rc::Rc::clone(&below), name)));
                found.cut |= tally.cut && !before;
            }
        }
        if !only_snapshots {
            for dir in rest {
                self.count(dir, tally);
            }
        }
        found
    }

    /// The names in a directory, counted.
    fn list(&self, dir: BorrowedFd<'_>, tally: &mut Tally) -> Vec<(OsString, bool)> {
        let mut names = Vec::new();
        let Ok(mut entries) = Dir::read_from(dir) else {
            tally.cut = true;
            return names;
        };
        while let Some(entry) = entries.read() {
            let Ok(entry) = entry else {
                tally.cut = true;
                break;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_dir = tally.enter(dir, name, entry.file_type());
            names.push((OsString::from_vec(name.to_bytes().to_vec()), is_dir));
            if (names.len() as u64).is_multiple_of(BATCH) && Instant::now() > self.end {
                tally.cut = true;
                break;
            }
        }
        names
    }

    fn down(&self, dir: BorrowedFd<'_>, name: &OsString, tally: &mut Tally) -> Option<OwnedFd> {
        let name = CString::new(name.as_bytes()).ok()?;
        match self.descent.down(dir, &name) {
            Ok(dir) => Some(dir),
            // Another mount is no part of the root.
            Err(Errno::XDEV) => None,
            Err(_) => {
                tally.cut = true;
                None
            }
        }
    }

    /// Counts what is below a directory, as far as the time goes.
    fn count(&self, top: OwnedFd, tally: &mut Tally) {
        let mut open = vec![(top, None::<Vec<OsString>>)];
        while let Some((dir, todo)) = open.last_mut() {
            if Instant::now() > self.end {
                tally.cut = true;
                return;
            }
            let todo = todo.get_or_insert_with(|| {
                let names = self.list(dir.as_fd(), tally).into_iter();
                names
                    .filter_map(|(name, is_dir)| is_dir.then_some(name))
                    .collect()
            });
            let Some(name) = todo.pop() else {
                open.pop();
                continue;
            };
            let below = self.down(dir.as_fd(), &name, tally);
            match below {
                Some(below) if open.len() < DEPTH => open.push((below, None)),
                Some(_) => tally.cut = true,
                None => {}
            }
        }
    }

    /// Counts snapshots in an order that takes from all over the list, and reckons the others from them.
    fn sample(&self, mut snapshots: Vec<(std::rc::Rc<OwnedFd>, OsString)>, rest: &Tally) -> (Amount, Amount) {
        let all = snapshots.len();
        // By age: names are numbers that grow.
        snapshots.sort_by(|one, other| one.1.len().cmp(&other.1.len()).then_with(|| one.1.cmp(&other.1)));
        let (mut whole, mut sum) = (0, Tally::default());
        for at in spread(all) {
            let Some((dir, name)) = snapshots.get(at) else {
                continue;
            };
            if Instant::now() > self.end {
                break;
            }
            let mut one = Tally::default();
            if let Some(top) = self.down(dir.as_fd(), name, &mut one) {
                self.count(top, &mut one);
            }
            sum.entries += one.entries;
            sum.bytes += one.bytes;
            sum.cut |= one.cut;
            whole += usize::from(!one.cut);
        }
        let enough = whole >= SAMPLE || (whole > 0 && whole * 4 >= all);
        let amount = |rest_is: u64, sum_is: u64| {
            if whole == all && !rest.cut {
                Amount::Exactly(rest_is + sum_is)
            } else if enough && !rest.cut {
                let others = u128::from(sum_is) * (all as u128) / (whole as u128);
                Amount::About(rest_is.saturating_add(u64::try_from(others).unwrap_or(u64::MAX)))
            } else {
                Amount::AtLeast(rest_is + sum_is)
            }
        };
        (amount(rest.entries, sum.entries), amount(rest.bytes, sum.bytes))
    }
}

impl Tally {
    /// Counts one entry, and says whether it is a directory.
    fn enter(&mut self, dir: BorrowedFd<'_>, name: &std::ffi::CStr, kind: FileType) -> bool {
        self.entries += 1;
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
            Ok(stat) => {
                self.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            // It went meanwhile.
            Err(_) => kind == FileType::Directory,
        }
    }
}

/// Every number below `count` once, neighbours far apart: steps of the golden section.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let mut step = (count * 618 / 1000).max(1);
    while gcd(step, count) > 1 {
        step += 1;
    }
    (0..count).map(move |turn| turn * step % count.max(1))
}

fn gcd(one: usize, other: usize) -> usize {
    if other == 0 { one } else { gcd(other, one % other) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nodemend_hostfs::{FileId, Host};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn facts() -> RootFacts {
        RootFacts {
            path: "/d".into(),
            id: FileId::default(),
            mount_id: 1,
            is_mount_point: false,
            filesystem: "ext4".into(),
            owner: (0, 0),
            mode: 0o711,
            selinux: None,
            free_bytes: 1_000,
            total_bytes: 9_000,
            free_inodes: Some(10),
            total_inodes: Some(50),
        }
    }

    /// Snapshots with three entries each below them, and two files that are no snapshots in three directories.
    fn root(snapshots: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("io.containerd.content.v1.content/blobs")).unwrap();
        std::fs::write(at("io.containerd.content.v1.content/blobs/x"), [7; 5000]).unwrap();
        let plugin = at("io.containerd.snapshotter.v1.overlayfs");
        for number in 1..=snapshots {
            std::fs::create_dir_all(plugin.join(format!("snapshots/{number}/fs"))).unwrap();
            std::fs::create_dir_all(plugin.join(format!("snapshots/{number}/work"))).unwrap();
            std::fs::write(plugin.join(format!("snapshots/{number}/fs/file")), "x").unwrap();
        }
        std::os::unix::fs::symlink("/", plugin.join("metadata.db")).unwrap();
        dir
    }

    fn look(path: &Path, is_whole: bool, within: Duration) -> Estimate {
        let dir = Host::local().open_dir(path).unwrap();
        estimate(&dir, &facts(), is_whole, within)
    }

    #[test]
    fn a_small_root_is_counted_to_the_end_and_links_are_not_followed() {
        let root = root(5);
        let found = look(root.path(), false, LONG);
        assert_eq!(found.snapshots, Amount::Exactly(5));
        // Two plugins, blobs, x, snapshots, metadata.db, and four for each snapshot.
        assert_eq!(found.entries, Amount::Exactly(6 + 5 * 4));
        assert!(
            matches!(found.bytes, Amount::Exactly(bytes) if bytes >= 5000),
            "{found:?}"
        );
        assert_eq!(
            (found.filesystem_inodes, found.filesystem_bytes),
            (Some(40), Some(8_000))
        );
    }

    #[test]
    fn without_time_the_words_are_at_least() {
        let root = root(300);
        let found = look(root.path(), false, Duration::ZERO);
        assert!(matches!(found.entries, Amount::AtLeast(_)), "{found:?}");
    }

    #[test]
    fn a_file_system_of_its_own_tells_by_its_counters() {
        let root = root(3);
        let found = look(root.path(), true, LONG);
        assert_eq!(
            (found.entries, found.bytes),
            (Amount::About(40), Amount::About(8_000))
        );
        assert_eq!(found.snapshots, Amount::Exactly(3));
    }

    #[test]
    fn a_sample_is_taken_from_everywhere() {
        for count in [0, 1, 2, 3, 10, 618, 1000] {
            let mut order: Vec<_> = spread(count).collect();
            let first: Vec<_> = order.iter().take(4).copied().collect();
            order.sort_unstable();
            assert!(order.into_iter().eq(0..count), "{count}");
            if count == 1000 {
                assert!(
                    first.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 200),
                    "{first:?}"
                );
            }
        }
    }

    #[test]
    fn a_part_of_the_snapshots_stands_for_all() {
        let root = root(40);
        let dir = Host::local().open_dir(root.path()).unwrap();
        let descent = Descent::from(dir.as_fd()).unwrap();
        let walk = Walk {
            descent,
            end: Instant::now() + LONG,
        };
        let mut snapshots = walk.apart(dir.as_fd(), &mut Tally::default(), true).names;
        // As many more as were not looked at: their directory is gone.
        let rest = Tally {
            entries: 100,
            ..Tally::default()
        };
        let gone: Vec<_> = snapshots
            .iter()
            .map(|(dir, _)| (std::rc::Rc::clone(dir), "gone".into()))
            .collect();
        snapshots.extend(gone);
        let (entries, _) = walk.sample(snapshots, &rest);
        assert_eq!(entries, Amount::About(100 + 40 * 3 * 2));
    }
}
