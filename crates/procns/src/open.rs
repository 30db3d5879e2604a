//! Opening a network namespace through whoever holds it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::census::{Holder, Netns};
use crate::error::OpenError;
use crate::identity::identity;
use crate::procfs::is_gone;

/// What came of the attempt through one holder.
enum Way {
    Open(OwnedFd),
    /// The holder has let go.
    Gone,
    /// It cannot be told.
    Failed(String),
}

impl Netns {
    /// Opens it, through the first holder that lets it, and makes sure that it is this namespace and no other. The
    /// file serves for setns(2), and keeps the namespace alive until it is closed.
    ///
    /// What stands at a path now may be anything: it is opened without touching it (`O_PATH`), compared, and only
    /// then opened for reading.
    ///
    /// # Errors
    /// [`OpenError::Ended`] if every known holder has let go; [`OpenError::Unopened`] if at least one could not be
    /// asked, so that the namespace may be alive.
    pub fn open(&self) -> Result<OwnedFd, OpenError> {
        let mut failures = Vec::new();
        for holder in &self.holders {
            match self.through(holder) {
                Way::Open(file) => return Ok(file),
                Way::Gone => {}
                Way::Failed(reason) => failures.push(reason),
            }
        }
        match failures.is_empty() {
            true => Err(OpenError::Ended { id: self.id }),
            false => Err(OpenError::Unopened {
                id: self.id,
                reason: failures.join("; "),
            }),
        }
    }

    fn through(&self, holder: &Holder) -> Way {
        match holder {
            Holder::Process { pid, .. } => self.follow(&format!("/proc/{pid}/ns/net")),
            Holder::Thread { pid, tid, .. } => self.follow(&format!("/proc/{pid}/task/{tid}/ns/net")),
            Holder::Fd { pid, fd, .. } => self.follow(&format!("/proc/{pid}/fd/{fd}")),
            Holder::Mount { path } => self.enter(
                openat(
                    CWD,
                    path,
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                ),
                &path.display().to_string(),
            ),
            Holder::ForeignMount { pid, path } => self.foreign(*pid, path),
        }
    }

    /// By a link of /proc, which leads to the file itself, not to its name.
    fn follow(&self, link: &str) -> Way {
        self.enter(
            openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
            link,
        )
    }

    /// Below the root of another process. Its files are not to be trusted: no link is followed. That the process
    /// has ended says nothing of the mount, which others may see.
    fn foreign(&self, pid: u32, path: &Path) -> Way {
        let root = format!("/proc/{pid}/root");
        let name = format!("{root}{}", path.display());
        let dir = match openat(
            CWD,
            root.as_str(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Ok(dir) => dir,
            Err(errno) => return Way::Failed(format!("{root}: {errno}")),
        };
        let below = path.strip_prefix("/").unwrap_or(path);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat2(
            &dir,
            below,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        ) {
            Err(Errno::NOSYS) => openat(&dir, below, flags, Mode::empty()),
            opened => opened,
        };
        match self.enter(opened, &name) {
            // The process may have moved on to another mount namespace.
            Way::Gone => Way::Failed(format!("{name}: it is not there any more")),
            way @ (Way::Open(_) | Way::Failed(_)) => way,
        }
    }

    fn enter(&self, opened: Result<OwnedFd, Errno>, name: &str) -> Way {
        let failed = |errno: Errno| Way::Failed(format!("{name}: {errno}"));
        let handle = match opened {
            Ok(handle) => handle,
            Err(errno) if is_gone(errno) || errno == Errno::NOTDIR => return Way::Gone,
            Err(errno) => return failed(errno),
        };
        match identity(&handle, "") {
            Ok(id) if id == self.id => {}
            Ok(_) => return Way::Gone,
            Err(errno) => return failed(errno),
        }
        match reopen(&handle) {
            Ok(file) => Way::Open(file),
            Err(errno) => failed(errno),
        }
    }
}

/// Opens for reading what was opened by `O_PATH`.
fn reopen(handle: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!(
        "/proc/self/fd/{}",
        rustix::path::DecInt::from_fd(handle.as_fd()).as_str()
    );
    openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
