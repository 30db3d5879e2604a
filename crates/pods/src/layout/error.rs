//! Why nothing can be said of what lies on the disk.

use std::io;
use std::path::PathBuf;

/// Why nothing can be said of what lies on the disk.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A call of the kernel failed.
    #[error("{path}: {what}: {source}", path = .path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// At which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no kubelet root where it should be.
    #[error("{path}: no kubelet root there (as {known_by} has it); give it by --kubelet-root", path = .path.display())]
    NoRoot {
        /// Where it should be.
        path: PathBuf,
        /// Who says so.
        known_by: String,
    },
    /// The root holds no `pods`.
    #[error("{path}: no directory; what holds no pods/ is no kubelet root (as {known_by} has it)", path = .path.display())]
    NoPods {
        /// `pods` in the root.
        path: PathBuf,
        /// Who says that it is the root.
        known_by: String,
    },
    /// Two running kubelets have other roots.
    #[error(
        "two kubelets run with other roots: {one} (pid {one_pid}) and {other} (pid {other_pid}); say which is meant by \
         --kubelet-root", one = .one.display(), other = .other.display()
    )]
    TwoRoots {
        /// The root of the first.
        one: PathBuf,
        /// The first.
        one_pid: u32,
        /// The root of the other.
        other: PathBuf,
        /// The other.
        other_pid: u32,
    },
    /// No kubelet runs, and there are several roots.
    #[error("no kubelet runs, and there are several roots: {roots}; say which is meant by --kubelet-root",
        roots = .roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", "))]
    SeveralRoots {
        /// The roots.
        roots: Vec<PathBuf>,
    },
    /// The arguments of a running kubelet are not known.
    #[error(
        "{comm} (pid {pid}): its arguments for kubelet are not known: {reason}; say where kubelet's root is by --kubelet-root"
    )]
    Arguments {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// What could not be read.
        reason: String,
    },
    /// The root is a relative path, and so depends on somebody's working directory.
    #[error("{path}: the kubelet root must be an absolute path (as {known_by} has it)", path = .path.display())]
    Relative {
        /// The path.
        path: PathBuf,
        /// Who says so.
        known_by: String,
    },
    /// Something below the root did not answer.
    #[error("{path}: no answer within {seconds} s; the file system may be dead", path = .path.display())]
    Silent {
        /// Where.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The kernel cannot tell mounts apart.
    #[error("{path}: this kernel tells no mount ids, so that mounts cannot be told apart", path = .path.display())]
    NoMountIdentity {
        /// Where it was asked.
        path: PathBuf,
    },
    /// The host's files.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// The processes.
    #[error(transparent)]
    Processes(#[from] nodemend_procns::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl LayoutError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io {
            what,
            path,
            source: errno.into(),
        }
    }
}
