//! What can go wrong in a look or a repair.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's files or the state directory.
    #[error(transparent)]
    Host(#[from] nodemend_hostfs::Error),
    /// The walk over the processes.
    #[error(transparent)]
    Census(#[from] nodemend_procns::Error),
    /// The kernel's links.
    #[error(transparent)]
    Links(#[from] nodemend_rtnl::Error),
    /// A namespace file that is not what was judged, or that cannot be released.
    #[error(transparent)]
    Release(#[from] nodemend_procns::ReleaseError),
    /// A thread or an async runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}
