//! What can go wrong between here and the kernel.

use std::io;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink socket could not be made, or a call on it failed.
    #[error("netlink: {what}: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("netlink: {what}: the kernel says: {source}")]
    Refused {
        /// What was asked.
        what: String,
        /// Its answer.
        source: io::Error,
    },
    /// The answer could not be understood: then nothing of it is used.
    #[error("netlink: {what}: an answer that cannot be understood: {reason}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The list changed while the kernel wrote it, each time it was asked.
    #[error("netlink: {what}: the list kept changing while it was read; try again")]
    Restless {
        /// What was asked.
        what: &'static str,
    },
    /// A worker thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Error {
    pub(crate) fn socket(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { what, source }
    }
}
