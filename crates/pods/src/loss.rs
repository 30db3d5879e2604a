//! What would be lost with a pod directory, in words.

use std::fmt;

use nodemend_hostfs::Spoken;

use crate::mount::Tie;
use crate::pod::PodDir;
use crate::volume::{Class, Content};

/// File systems whose content ends with their last mount.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "hugetlbfs"];

/// The data in a pod directory that has no other copy, or perhaps none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// What ends with the pod by contract.
    pub ephemeral: Sum,
    /// What may be the only copy.
    pub only_copy: Sum,
    /// How many emptyDir volumes are in memory, where nobody looked.
    pub in_memory: usize,
    /// How many volumes could not be read.
    pub unread: usize,
    now: i64,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Entries.
    pub entries: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// The newest change, in seconds since 1970.
    pub newest: i64,
    /// There is more than was counted.
    pub more: bool,
}

impl Sum {
    fn add(&mut self, content: &Content) {
        if let Content::Files {
            entries,
            bytes,
            newest,
            more,
        } = content
        {
            self.entries += entries;
            self.bytes = self.bytes.saturating_add(*bytes);
            self.newest = self.newest.max(*newest);
            self.more |= more;
        }
    }
}

impl Loss {
    /// Of a directory as it was seen at that time, in seconds since 1970.
    pub fn of(pod: &PodDir, now: i64) -> Self {
        let mut loss = Self {
            now,
            ..Self::default()
        };
        for volume in &pod.volumes {
            match volume.class {
                Class::Ephemeral => loss.ephemeral.add(&volume.content),
                Class::MaybeOnlyCopy => loss.only_copy.add(&volume.content),
                Class::NothingLost | Class::DurableElsewhere => {}
            }
            loss.unread += usize::from(matches!(volume.content, Content::Unread(_)));
            let path = pod.path.join(&volume.path);
            let is_in_memory = volume.plugin == "kubernetes.io/empty-dir"
                && pod.mounts.iter().any(|mount| {
                    let fstype = &*mount.mount.fstype;
                    mount.seen_by.is_none()
                        && mount.tie == Tie::In
                        && mount.mount.mountpoint == path
                        && IN_MEMORY.contains(&fstype)
                });
            loss.in_memory += usize::from(is_in_memory);
        }
        loss
    }

    /// True if nothing would be.
    pub fn is_nothing(&self) -> bool {
        self.ephemeral.entries + self.only_copy.entries == 0 && self.in_memory + self.unread == 0
    }

    fn words(&self, sum: Sum) -> String {
        let entries = match (sum.entries, sum.more) {
            (1, false) => "1 file".to_owned(),
            (n, false) => format!("{n} files"),
            (n, true) => format!("more than {n} files"),
        };
        let age = self
            .now
            .checked_sub(sum.newest)
            .and_then(|age| u64::try_from(age).ok());
        let age = age.map_or("in the future".to_owned(), |age| format!("{} ago", Spoken(age)));
        format!("{entries}, {}, newest change {age}", Bytes(sum.bytes))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.only_copy.entries > 0 {
            parts.push(format!("perhaps the only copy of {}", self.words(self.only_copy)));
        }
        if self.ephemeral.entries > 0 {
            parts.push(format!("of emptyDir and its like {}", self.words(self.ephemeral)));
        }
        if self.in_memory > 0 {
            parts.push(format!("what {} emptyDir in memory hold", self.in_memory));
        }
        if self.unread > 0 {
            parts.push(format!(
                "nobody knows what of {} volumes that cannot be read",
                self.unread
            ));
        }
        match parts.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}

/// A size as people say it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let (mut tenths, mut unit) = (u128::from(self.0) * 10 / 1024, 0);
        while tenths >= 10_240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_in_words() {
        let nothing = Loss::default();
        assert!(nothing.is_nothing());
        assert_eq!(nothing.to_string(), "nothing");
        let loss = Loss {
            ephemeral: Sum {
                entries: 31,
                bytes: 1_258_291,
                newest: 1_000,
                more: false,
            },
            only_copy: Sum {
                entries: 1,
                bytes: 5,
                newest: 100,
                more: true,
            },
            in_memory: 1,
            unread: 2,
            now: 1_060,
        };
        assert_eq!(
            loss.to_string(),
            "perhaps the only copy of more than 1 files, 5 bytes, newest change 16 min ago; of emptyDir and its like 31 \
             files, 1.1 MiB, newest change 1 min ago; what 1 emptyDir in memory hold; nobody knows what of 2 volumes that \
             cannot be read"
        );
    }
}
