//! Which of the open files with a path are network namespaces.
//!
//! In this order, and without touching the file until the last step:
//!
//! 1. its mount is a mount of a network namespace in some mount table: it is that namespace;
//! 2. its inode is that of a network namespace which is known otherwise: it is taken for that namespace. Another
//!    file may have the same number; then a namespace is thought to be in use that is not, which does no harm;
//! 3. its path reads `/`, as that of a namespace whose mount was lazily detached: it is asked, by a statx that
//!    uses what the kernel has in memory (`AT_STATX_DONT_SYNC`; honoured by NFS and FUSE, and a file that is asked is the
//!    root of a detached mount with an inode that only a namespace, or chance, gives it). If it is on nsfs, a thread
//!    that ends right after tries to enter it as a network namespace: setns(2) refuses one of another kind.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nodemend_hostfs::FileId;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::census::{Holder, NetnsId};
use crate::error::Error;
use crate::files::{OpenFile, What};
use crate::identity::identity;
use crate::look::{Look, unread};
use crate::pool::{self, PATIENCE};
use crate::procfs::is_gone;
use crate::take::Walk;

/// Who has which network namespace open.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) holders: Vec<(u64, Holder)>,
    pub(crate) unread: Vec<String>,
}

/// A file that must be asked.
#[derive(Clone)]
struct Question {
    pid: u32,
    fd: u32,
    comm: String,
}

/// Settles every open file. `mounted` gives the namespace of a mount by its id.
pub(crate) fn open_files(
    proc: &Arc<OwnedFd>,
    host: NetnsId,
    walk: &Walk,
    mounted: &HashMap<u64, u64>,
    is_known: impl Fn(u64) -> bool,
) -> Result<Opened, Error> {
    let mut opened = Opened::default();
    let mut questions = Vec::new();
    for look in &walk.looks {
        for file in &look.files {
            match settle(*file, mounted, &is_known) {
                Settled::Is(inode) => opened.holders.push((inode, holder(look, file.fd))),
                Settled::Ask => questions.push(Question {
                    pid: look.pid,
                    fd: file.fd,
                    comm: look.comm.clone(),
                }),
                Settled::Not => {}
            }
        }
    }
    ask(proc, host, questions, &mut opened)?;
    Ok(opened)
}

#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Is(u64),
    Ask,
    Not,
}

fn settle(file: OpenFile, mounted: &HashMap<u64, u64>, is_known: impl Fn(u64) -> bool) -> Settled {
    let (mount, inode, bare) = match file.what {
        What::Netns(inode) => return Settled::Is(inode),
        What::Path { mount, inode, bare } => (mount, inode, bare),
    };
    let by_mount = mount.and_then(|mount| mounted.get(&mount)).copied();
    match (by_mount, inode) {
        (Some(namespace), None) => Settled::Is(namespace),
        // The id of a mount is used again after an unmount.
        (Some(namespace), Some(inode)) if namespace == inode => Settled::Is(namespace),
        (_, Some(inode)) if is_known(inode) => Settled::Is(inode),
        _ if bare => Settled::Ask,
        _ => Settled::Not,
    }
}

fn holder(look: &Look, fd: u32) -> Holder {
    Holder::Fd {
        pid: look.pid,
        fd,
        comm: look.comm.clone(),
    }
}

/// What a file answered.
enum Answer {
    Netns(u64, Holder),
    Unread(String),
}

fn ask(
    proc: &Arc<OwnedFd>,
    host: NetnsId,
    questions: Vec<Question>,
    opened: &mut Opened,
) -> Result<(), Error> {
    let (dir, copy) = (Arc::clone(proc), questions.clone());
    let done = pool::run(
        questions,
        Box::new(move |question, _, answer| {
            let Question { pid, fd, comm } = question;
            match netns_of(dir.as_fd(), host, *pid, *fd) {
                Ok(Some(inode)) => answer(Answer::Netns(
                    inode,
                    Holder::Fd {
                        pid: *pid,
                        fd: *fd,
                        comm: comm.clone(),
                    },
                )),
                Ok(None) => {}
                Err(errno) if is_gone(errno) => {}
                Err(errno) => answer(Answer::Unread(unread(
                    *pid,
                    &format!("fd/{fd}"),
                    &errno.to_string(),
                ))),
            }
        }),
    )
    .map_err(Error::Thread)?;
    for answer in done.answers {
        match answer {
            Answer::Netns(inode, holder) => opened.holders.push((inode, holder)),
            Answer::Unread(reason) => opened.unread.push(reason),
        }
    }
    let silent = format!("the kernel did not answer within {PATIENCE} s");
    for question in done.given_up.iter().filter_map(|at| copy.get(*at)) {
        opened
            .unread
            .push(unread(question.pid, &format!("fd/{}", question.fd), &silent));
    }
    Ok(())
}

/// The inode, if the file is a network namespace.
fn netns_of(proc: BorrowedFd<'_>, host: NetnsId, pid: u32, fd: u32) -> Result<Option<u64>, Errno> {
    let path = format!("{pid}/fd/{fd}");
    if identity(proc, &path)?.dev != host.dev {
        return Ok(None);
    }
    let file = openat(
        proc,
        &path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let id = FileId::of(&file).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok((id.dev == host.dev && is_network(file)).then_some(id.ino))
}

/// Asks the kernel for the kind of a namespace, in a thread of its own, which is inside it until it ends. (The
/// ioctl for it, `NS_GET_NSTYPE`, cannot be called without unsafe code.) When in doubt it is one.
fn is_network(namespace: OwnedFd) -> bool {
    let enter = move || {
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        entered != Err(Errno::INVAL)
    };
    match std::thread::Builder::new()
        .name("census".into())
        .stack_size(64 << 10)
        .spawn(enter)
    {
        Ok(thread) => thread.join().unwrap_or(true),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETNS: u64 = 4_026_532_321;

    fn settled(mount: Option<u64>, inode: Option<u64>, bare: bool) -> Settled {
        let mounted = HashMap::from([(581, NETNS)]);
        settle(
            OpenFile {
                fd: 3,
                what: What::Path { mount, inode, bare },
            },
            &mounted,
            |inode| inode == NETNS,
        )
    }

    #[test]
    fn a_file_on_a_mount_of_a_namespace_is_that_namespace() {
        assert_eq!(settled(Some(581), Some(NETNS), false), Settled::Is(NETNS));
        assert_eq!(settled(Some(581), None, false), Settled::Is(NETNS));
    }

    #[test]
    fn the_id_of_a_mount_that_was_used_again_proves_nothing() {
        assert_eq!(settled(Some(581), Some(NETNS + 1), false), Settled::Not);
        assert_eq!(settled(Some(581), Some(NETNS + 1), true), Settled::Ask);
    }

    #[test]
    fn a_known_inode_counts_as_the_namespace() {
        assert_eq!(settled(Some(9), Some(NETNS), false), Settled::Is(NETNS));
    }

    #[test]
    fn only_a_file_without_a_path_is_asked() {
        assert_eq!(settled(Some(9), None, true), Settled::Ask);
        assert_eq!(settled(Some(9), None, false), Settled::Not);
    }
}
