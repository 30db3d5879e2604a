//! The mount namespaces of the node, and the tables that tasks in them see.

use std::collections::BTreeMap;
use std::path::Path;

use nodemend_hostfs::Host;
use nodemend_hostfs::mountinfo::{self, Mount};
use rustix::io::Errno;

use crate::error::Error;

/// Large enough for half a million mounts, in bytes.
const LIMIT: u64 = 128 << 20;

/// How many processes of a mount namespace are asked at most.
const VIEWERS: usize = 8;

/// The peer groups of a mount: what happens on it happens on its peers too (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) shared: Option<u64>,
    pub(crate) master: Option<u64>,
}

/// A row of a table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) mount: Mount,
    pub(crate) groups: Groups,
}

/// The mount table that a task sees.
pub(crate) fn read(task: &str) -> Result<Vec<Row>, Error> {
    let table = format!("/proc/{task}/mountinfo");
    parse(&Host::local().read(Path::new(&table), LIMIT)?)
}

/// The name of a task.
pub(crate) fn comm(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// The rows of a table.
pub(crate) fn parse(table: &[u8]) -> Result<Vec<Row>, Error> {
    let mounts = mountinfo::parse(table)?;
    let lines = table.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    Ok(mounts
        .into_iter()
        .zip(lines)
        .map(|(mount, line)| Row {
            mount,
            groups: groups(line),
        })
        .collect())
}

/// The optional fields of a line, which stand between the sixth field and a lone dash.
fn groups(line: &[u8]) -> Groups {
    let mut groups = Groups::default();
    let fields = line.split(|&byte| byte == b' ').skip(6);
    for field in fields.take_while(|field| *field != b"-") {
        let text = std::str::from_utf8(field).unwrap_or_default();
        match text.split_once(':') {
            Some(("shared", id)) => groups.shared = id.parse().ok(),
            Some(("master", id)) => groups.master = id.parse().ok(),
            _ => {}
        }
    }
    groups
}

/// Tasks by the mount namespace that they are in.
pub(crate) type Viewers = BTreeMap<u64, Vec<u32>>;

/// Every mount namespace but our own, with tasks that are in it, and tasks that do not tell theirs.
pub(crate) fn namespaces() -> Result<(Viewers, Vec<(u32, String)>), Error> {
    let own = namespace("thread-self").map_err(Error::io("read", "/proc/thread-self/ns/mnt"))?;
    let mut found = Viewers::new();
    let mut unnamed = Vec::new();
    for pid in numbers("/proc").map_err(Error::io("list", "/proc"))? {
        // One that has ended meanwhile has no threads to list.
        for tid in numbers(&format!("/proc/{pid}/task")).unwrap_or_default() {
            match namespace(&format!("{pid}/task/{tid}")) {
                Ok(inode) if inode == own => {}
                Ok(inode) => {
                    let viewers = found.entry(inode).or_default();
                    if viewers.len() < VIEWERS {
                        viewers.push(tid);
                    }
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => unnamed.push((tid, format!("/proc/{pid}/task/{tid}/ns/mnt: {error}"))),
            }
        }
    }
    Ok((found, unnamed))
}

/// True if a table could not be read as its viewer has ended.
pub(crate) fn has_ended(error: &Error) -> bool {
    matches!(error, Error::Host(nodemend_hostfs::Error::Io { source, .. }) if is_gone(source))
}

fn is_gone(error: &std::io::Error) -> bool {
    // EINVAL: a task that has ended and was not reaped yet has no mount table.
    let gone = [Errno::NOENT, Errno::SRCH, Errno::INVAL];
    gone.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn namespace(task: &str) -> std::io::Result<u64> {
    let link = std::fs::read_link(format!("/proc/{task}/ns/mnt"))?;
    let text = link.to_string_lossy();
    let inode = text.strip_prefix("mnt:[").and_then(|text| text.strip_suffix(']'));
    inode
        .and_then(|inode| inode.parse().ok())
        .ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// The numbers among the names in a directory.
pub(crate) fn numbers(dir: &str) -> std::io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t27_what_goes_with_an_unmount_is_told_by_the_peer_groups_of_the_parents() {
        assert_eq!(
            groups(b"30 26 8:1 / / rw,noatime shared:7 master:3 - ext4 /dev/sda1 rw"),
            Groups {
                shared: Some(7),
                master: Some(3)
            }
        );
        assert_eq!(groups(b"30 26 8:1 / / rw - ext4 shared:9 rw"), Groups::default());
    }
}
