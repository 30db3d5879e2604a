//! Processes and what they hold: every network namespace of a node, and who keeps it alive.
//!
//! A pod's network namespace, and with it the veth pair that leads into it, lives for as long as anything holds
//! it: a process, a thread, a mount in any mount namespace, an open file. [`Census::take`] finds them all in one walk
//! over /proc, without ever waiting for a process that is stuck, and without touching a file of a process.
//!
//! ```
//! use nodemend_hostfs::Host;
//! use nodemend_procns::Census;
//!
//! let census = Census::take(&Host::local())?;
//! let here = census.namespace(census.host).expect("this process lives in it");
//! assert!(here.open().is_ok());
//! for netns in census.namespaces.iter().filter(|netns| netns.is_mount_only()) {
//!     println!("network namespace {}: only {:?} keeps it", netns.id, netns.holders);
//! }
//! # Ok::<(), nodemend_procns::Error>(())
//! ```
//!
//! # What it cannot see
//!
//! The kernel does not tell of these holders, and a namespace that only they keep is not listed:
//!
//! - a socket, which stays in the namespace that it was made in;
//! - a file on its way through a socket (`SCM_RIGHTS`), or registered with io_uring;
//! - a mount that no process of its mount namespace can reach from its root, and one in a mount namespace that
//!   itself is held by an open file or a mount only;
//! - an open file of a thread that does not share the files of its process (`CLONE_FILES`).
//!
//! So a namespace that is not in a census may be alive. A census that could not read something says so in
//! [`Census::unread`]: then the absence of a holder is no evidence.
#![forbid(unsafe_code)]

mod census;
pub mod cgroup;
mod details;
mod error;
mod files;
mod identity;
mod listeners;
mod look;
mod lookup;
mod mounts;
mod open;
mod procfs;
pub mod release;
mod settle;
mod stat;
mod tables;
mod take;

use nodemend_hostfs::pool;

pub use census::{Census, CniCall, Holder, MountNamespace, Netns, NetnsId, Process};
pub use details::{Detail, Details, Membership};
pub use error::{Error, OpenError, ReleaseError};
pub use listeners::{Listener, Protocol, listeners};
pub use lookup::{Standing, children, cmdline, residents, standing, start_time};
pub use tables::{Tables, Viewer, mount_tables};
