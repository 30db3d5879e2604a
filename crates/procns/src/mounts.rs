//! The mounts of network namespaces in every mount namespace.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nodemend_hostfs::mountinfo;
use rustix::io::Errno;

use crate::census::MountNamespace;
use crate::pool::Pulse;
use crate::procfs::{LinkText, is_gone, read_records};

/// The most of a mount table that is read, in bytes: about half a million mounts.
pub(crate) const LIMIT: usize = 128 << 20;

/// Room for the largest table. Only what is read into it costs memory, and an allocator gives a piece of this size back to the
/// kernel as a whole; what grows by doubling it keeps (`M_MMAP_THRESHOLD` in mallopt(3)).
pub(crate) fn room() -> Vec<u8> {
    let mut buffer = Vec::new();
    // Where memory is not given before it is used, it must grow.
    let _ = buffer.try_reserve_exact(LIMIT + 1);
    buffer
}

/// What a mount table says.
pub(crate) enum Answer {
    /// These network namespaces are mounted in it.
    Read(Tabled),
    /// It could not be read.
    Unread(String),
}

/// The mounts of network namespaces in one mount namespace.
pub(crate) struct Tabled {
    pub(crate) namespace: u64,
    /// Who saw them.
    pub(crate) viewer: u32,
    pub(crate) mounts: Vec<NetnsMount>,
}

/// A mount of a network namespace.
pub(crate) struct NetnsMount {
    pub(crate) id: u64,
    pub(crate) inode: u64,
    pub(crate) path: PathBuf,
}

/// Reads one table through the first viewer that is still there. Says nothing if all have ended: then the mount
/// namespace has too, or another process that entered it meanwhile will be seen by the next census.
///
/// A table leaves out what cannot be reached from the root of its viewer (`show_mountinfo` in
/// fs/proc_namespace.c), so one whose root is the root of the mount namespace is asked first.
pub(crate) fn look(
    proc: BorrowedFd<'_>,
    table: &MountNamespace,
    pulse: &Pulse,
    answer: &mut dyn FnMut(Answer),
) {
    let mut buffer = room();
    for viewer in in_order(proc, &table.viewers) {
        pulse.beat();
        let path = format!("{viewer}/mountinfo");
        match netns_mounts(proc, &path, &mut buffer) {
            Ok(mounts) => {
                return answer(Answer::Read(Tabled {
                    namespace: table.inode,
                    viewer,
                    mounts,
                }));
            }
            Err(Trouble::Gone) => {}
            Err(Trouble::Unread(reason)) => {
                return answer(Answer::Unread(format!(
                    "process {viewer}: /proc/{path}: {reason}"
                )));
            }
        }
    }
}

/// Those that see the whole of it first.
pub(crate) fn in_order(proc: BorrowedFd<'_>, viewers: &[u32]) -> Vec<u32> {
    if viewers.len() < 2 {
        return viewers.to_vec();
    }
    let (mut whole, partial): (Vec<u32>, Vec<u32>) =
        viewers.iter().partition(|viewer| sees_all(proc, **viewer));
    whole.extend(partial);
    whole
}

fn sees_all(proc: BorrowedFd<'_>, viewer: u32) -> bool {
    LinkText::read(proc, format!("{viewer}/root")).is_ok_and(|root| root.text() == b"/")
}

/// Why a table could not be read.
pub(crate) enum Trouble {
    Gone,
    Unread(String),
}

/// The mounts of network namespaces in one table.
pub(crate) fn netns_mounts(
    proc: impl AsFd,
    path: &str,
    buffer: &mut Vec<u8>,
) -> Result<Vec<NetnsMount>, Trouble> {
    match read_records(proc, path, buffer, LIMIT) {
        Ok(true) => select(buffer).map_err(Trouble::Unread),
        Ok(false) => Err(Trouble::Unread("larger than any mount table should be".into())),
        // A task that is about to end has no mount namespace any more (`mounts_open_common`, fs/proc_namespace.c).
        Err(errno) if is_gone(errno) || errno == Errno::INVAL => Err(Trouble::Gone),
        Err(errno) => Err(Trouble::Unread(errno.to_string())),
    }
}

/// Parses the lines that hold `net:[`, which are few, and no other: there may be a million.
fn select(table: &[u8]) -> Result<Vec<NetnsMount>, String> {
    if !table.is_empty() && !table.ends_with(b"\n") {
        return Err("the last line of the mount table is cut".into());
    }
    let mut mounts = Vec::new();
    for line in table
        .split(|&byte| byte == b'\n')
        .filter(|line| may_name_netns(line))
    {
        let parsed = mountinfo::parse(line).map_err(|e| e.to_string())?;
        for mount in parsed {
            if let (Some(inode), "nsfs") = (mount.netns_inode(), &*mount.fstype) {
                mounts.push(NetnsMount {
                    id: mount.id,
                    inode,
                    path: mount.mountpoint,
                });
            }
        }
    }
    Ok(mounts)
}

/// The root, the fourth field, is `net:[…]`: nsfs has one superblock, and its `show_path` names the namespace
/// (fs/nsfs.c, since Linux 3.19).
fn may_name_netns(line: &[u8]) -> bool {
    line.splitn(5, |&byte| byte == b' ')
        .nth(3)
        .is_some_and(|root| root.starts_with(b"net:["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_network_namespaces_are_kept_wherever_they_are() {
        let table = b"26 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            581 26 0:4 net:[4026532321] /run/netns/cni-34d83b59 rw shared:5 - nsfs nsfs rw\n\
            582 26 0:4 net:[4026532400] /var/lib/odd\\012name rw - nsfs nsfs rw\n\
            583 26 0:4 mnt:[4026532401] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw\n\
            584 26 8:1 /net:[4026532402] /srv rw - ext4 /dev/sda1 rw\n";
        let mounts = select(table).unwrap();
        let seen: Vec<_> = mounts
            .iter()
            .map(|m| (m.id, m.inode, m.path.to_str().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                (581, 4_026_532_321, "/run/netns/cni-34d83b59"),
                (582, 4_026_532_400, "/var/lib/odd\nname")
            ]
        );
    }

    #[test]
    fn a_cut_table_is_not_understood_in_part() {
        assert!(
            select(b"581 26 0:4 net:[4026532321] /run/netns/a rw - nsfs nsfs rw\n582 26 0:4 net:[40265")
                .is_err()
        );
        assert!(select(b"581 26 0:4 net:[4026532321] /run/netns/a\n").is_err());
        assert!(select(b"").unwrap().is_empty());
    }
}
