//! How long a removal takes at most, from the inodes that the file system has in use.

use std::time::Duration;

use nodemend_rmtree::FileSystem;
use schemars::JsonSchema;
use serde::Serialize;

/// How long the removal takes if every inode that is in use on the file system is in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// With the caches warm, or on a fast local disk.
    pub fast_seconds: u64,
    /// With nothing in the caches, on a cloud disk.
    pub slow_seconds: u64,
    /// Entries a second on which the first is based.
    pub fast_rate: u64,
    /// Entries a second on which the second is based.
    pub slow_rate: u64,
}

/// Entries a second, slowest and fastest, as measured on 2 cores with Linux 6.18 on a tree of 267,500 entries (see
/// docs/benchmarks.md): ext4 in 2.15 s warm, and in 6.94 s cold on a disk of 0.8 ms and 3,000 operations a second; xfs
/// in 5.83 s warm, and in 9.12 s cold on a disk of 0.8 ms. Rotational disks were not measured. btrfs has no number of
/// inodes to reckon with.
fn rates(file_system: FileSystem) -> Option<(u64, u64)> {
    match file_system {
        FileSystem::Ext => Some((38_000, 124_000)),
        FileSystem::Xfs => Some((29_000, 45_000)),
        FileSystem::Btrfs | FileSystem::Other(_) => None,
    }
}

impl Estimate {
    /// None where there is no number of inodes, or nothing was measured.
    pub(crate) fn of(file_system: FileSystem, inodes_used: Option<u64>) -> Option<Self> {
        let (slow_rate, fast_rate) = rates(file_system)?;
        let inodes = inodes_used?;
        Some(Self {
            fast_seconds: inodes.div_ceil(fast_rate),
            slow_seconds: inodes.div_ceil(slow_rate),
            fast_rate,
            slow_rate,
        })
    }
}

/// How long it takes at most to remove what is left, at the rate of the time until now. None before there is a rate.
pub(crate) fn time_left(inodes_left: Option<u64>, removed: u64, elapsed: Duration) -> Option<Duration> {
    let micros = u64::try_from(elapsed.as_micros()).ok()?;
    // A rate of the first moments is none.
    if removed == 0 || micros < 1_000_000 {
        return None;
    }
    let left = u128::from(inodes_left?) * u128::from(micros) / u128::from(removed);
    Some(Duration::from_micros(u64::try_from(left).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_the_used_inodes_by_the_measured_rates() {
        let estimate = Estimate::of(FileSystem::Ext, Some(1_000_000)).unwrap();
        assert_eq!((estimate.fast_seconds, estimate.slow_seconds), (9, 27));
        assert_eq!(Estimate::of(FileSystem::Ext, Some(3)).unwrap().fast_seconds, 1);
    }

    #[test]
    fn there_is_none_where_nothing_was_measured() {
        assert_eq!(Estimate::of(FileSystem::Btrfs, None), None);
        assert_eq!(Estimate::of(FileSystem::Other(0x0102_1994), Some(9)), None);
        assert_eq!(Estimate::of(FileSystem::Xfs, None), None);
    }

    #[test]
    fn the_time_left_follows_the_rate() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(Some(600), 300, seconds(10)), Some(seconds(20)));
        assert_eq!(time_left(Some(0), 300, seconds(10)), Some(seconds(0)));
        assert_eq!(time_left(Some(600), 0, seconds(10)), None);
        assert_eq!(time_left(Some(600), 5, Duration::from_millis(300)), None);
        assert_eq!(time_left(None, 300, seconds(10)), None);
        assert_eq!(
            time_left(Some(u64::MAX), 1, seconds(1000)),
            None,
            "too long to say"
        );
    }
}
