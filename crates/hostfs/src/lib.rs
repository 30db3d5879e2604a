//! The host's file system as a repair tool needs it.
//!
//! - [`Host`]: where the host's root is, and reading its files without ever blocking or leaving it;
//! - [`mountinfo`]: the mount table of any process;
//! - [`descent`]: walking down a tree without leaving its mount;
//! - [`pool`]: reading what may never answer;
//! - [`FileId`]: what makes a file or a namespace this one and no other;
//! - [`StateDir`]: the tool's own directory with its lock, its journal and its memory of first sightings;
//! - [`text`]: paths as text, also those that are none;
//! - [`vantage`]: whether this process sees the host at all, or only a container of it.
//!
//! ```
//! use nodemend_hostfs::Host;
//!
//! let host = Host::local();
//! let mounts = nodemend_hostfs::mountinfo::of_process(&host, std::process::id())?;
//! assert!(mounts.iter().any(|mount| mount.mountpoint == std::path::Path::new("/")));
//! # Ok::<(), nodemend_hostfs::Error>(())
//! ```

mod boot;
pub mod descent;
mod error;
mod handle;
mod host;
mod identity;
pub mod mountinfo;
pub mod pool;
mod state;
pub mod text;
pub mod vantage;

pub use boot::{BootClock, Moment, Spoken};
pub use error::Error;
pub use host::Host;
pub use identity::FileId;
pub use state::{HostLock, Journal, Sightings, StateDir};
