//! Which open files of a process may be network namespaces, without touching any of them.
//!
//! A stat of a file on a dead network or FUSE file system hangs, and so can a statfs, so no file is asked.
//! What the kernel tells without asking the file is:
//!
//! - the text of `/proc/PID/fd/N`. A namespace opened below `/proc/PID/ns` reads `net:[inode]`; no other file
//!   can, for the text of every file that has a path starts with `/`. One opened through a bind mount reads as the
//!   path of the mount, perhaps in another mount namespace; after a lazy unmount as `/` (`d_path` and `prepend_path` in
//!   fs/d_path.c: the root of a detached mount). So a path says nothing;
//! - `/proc/PID/fdinfo/N`, which gives the mount (`mnt_id`, since Linux 3.15) and the inode (`ino`, since 5.14)
//!   from memory (`seq_show` in fs/proc/fd.c).
//!
//! The inodes of namespaces come from one counter that starts at 0xf0000000, those of the first namespaces lie
//! just below (`PROC_DYNAMIC_FIRST` in fs/proc/generic.c, `NET_NS_INIT_INO` in include/uapi/linux/nsfs.h). A path with an
//! inode outside of that range is thus no namespace. What is left is kept as [`OpenFile`] and settled when every mount
//! table has been read: see the module `settle`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::path::DecInt;

use crate::pool::Pulse;
use crate::procfs::{LinkText, is_gone, numbers, open_dir, read};

/// The inodes that a namespace can have.
const NAMESPACE_INODES: std::ops::RangeInclusive<u64> = 0xefff_ff00..=0xffff_ffff;

/// An open file that is, or may be, a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFile {
    pub(crate) fd: u32,
    pub(crate) what: What,
}

/// What the kernel says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A network namespace with this inode.
    Netns(u64),
    /// A file with a path.
    Path {
        /// The mount that it was opened through.
        mount: Option<u64>,
        /// Its inode; None on kernels that do not say.
        inode: Option<u64>,
        /// Its path reads `/`, or nothing at all.
        bare: bool,
    },
}

/// The open files of the process with this directory.
pub(crate) fn of_process(
    dir: BorrowedFd<'_>,
    pulse: &Pulse,
    buffer: &mut Vec<u8>,
) -> Result<Vec<OpenFile>, Errno> {
    let fds = open_dir(dir, c"fd")?;
    let mut infos: Option<OwnedFd> = None;
    let mut found = Vec::new();
    numbers(&fds, |fd, name| {
        pulse.beat();
        let what = match LinkText::read(&fds, name) {
            Ok(text) => classify(text, || info(dir, &mut infos, fd, buffer)),
            // The path is longer than the kernel writes: it has one, then.
            Err(Errno::NAMETOOLONG) => info(dir, &mut infos, fd, buffer).map(|info| info.path(false)),
            Err(errno) => Err(errno),
        };
        match what {
            Ok(Some(what)) => found.push(OpenFile { fd, what }),
            Ok(None) => {}
            Err(errno) if is_gone(errno) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    })?;
    Ok(found)
}

fn classify(text: LinkText, info: impl FnOnce() -> Result<Info, Errno>) -> Result<Option<What>, Errno> {
    if let Some(inode) = text.namespace(b"net") {
        return Ok(Some(What::Netns(inode)));
    }
    match text.text() {
        b"" | b"/" => Ok(info()?.path(true)),
        [b'/', ..] => Ok(info()?.path(false)),
        // Sockets, pipes, and namespaces of other kinds.
        _ => Ok(None),
    }
}

/// What is needed of `/proc/PID/fdinfo/N`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    mount: Option<u64>,
    inode: Option<u64>,
}

impl Info {
    fn parse(text: &[u8]) -> Self {
        let mut info = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            let number = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse().ok();
            if let Some(value) = line.strip_prefix(b"mnt_id:") {
                info.mount = number(value);
            } else if let Some(value) = line.strip_prefix(b"ino:") {
                info.inode = number(value);
            }
        }
        info
    }

    fn path(self, bare: bool) -> Option<What> {
        match self.inode {
            Some(inode) if !NAMESPACE_INODES.contains(&inode) => None,
            inode => Some(What::Path {
                mount: self.mount,
                inode,
                bare,
            }),
        }
    }
}

fn info(
    dir: BorrowedFd<'_>,
    infos: &mut Option<OwnedFd>,
    fd: u32,
    buffer: &mut Vec<u8>,
) -> Result<Info, Errno> {
    let infos = match infos {
        Some(infos) => infos,
        None => infos.insert(open_dir(dir, c"fdinfo")?),
    };
    read(infos.as_fd(), DecInt::new(fd), buffer, 1 << 20)?;
    Ok(Info::parse(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Info {
        Info::parse(text.as_bytes())
    }

    #[test]
    fn what_a_new_kernel_says_of_a_file() {
        let said = info("pos:\t0\nflags:\t0100000\nmnt_id:\t581\nino:\t4026532321\n");
        assert_eq!(
            said.path(false),
            Some(What::Path {
                mount: Some(581),
                inode: Some(4_026_532_321),
                bare: false
            })
        );
    }

    #[test]
    fn an_inode_that_no_namespace_has_rules_it_out() {
        assert_eq!(info("mnt_id:\t25\nino:\t1057\n").path(true), None);
        assert_eq!(info("mnt_id:\t25\nino:\t18446744073709551615\n").path(true), None);
    }

    #[test]
    fn without_an_inode_nothing_is_ruled_out() {
        assert_eq!(
            info("pos:\t0\nflags:\t0100000\nmnt_id:\t25\n").path(true),
            Some(What::Path {
                mount: Some(25),
                inode: None,
                bare: true
            })
        );
        assert_eq!(
            info("pos:\t0\nflags:\t0100000\n").path(true),
            Some(What::Path {
                mount: None,
                inode: None,
                bare: true
            })
        );
    }
}
