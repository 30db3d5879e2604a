//! CNI's files on disk, and CNI's calls.
//!
//! - [`configurations`]: the networks that this node is configured for, their bridges and their ranges of addresses;
//! - [`cache`]: what libcni remembers of every attachment that it made;
//! - [`flannel_scratch`]: what the flannel plugin remembers of its own;
//! - [`Replay`]: CNI DEL, repeated from that cache for a container that nobody owns any more.
//!
//! Everything that is read is plain data, bounded in size, and judged as written by somebody else: a file that is
//! not understood is a [`Problem`] with a path and a reason, never a silent gap.
//!
//! ```
//! use std::path::Path;
//! use nodemend_hostfs::Host;
//!
//! let root = tempfile::tempdir()?;
//! let dir = root.path().join("etc/cni/net.d");
//! std::fs::create_dir_all(&dir)?;
//! std::fs::write(dir.join("10-pods.conflist"), br#"{
//!     "cniVersion": "0.4.0", "name": "pods",
//!     "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.88.0.0/25"}}]
//! }"#)?;
//!
//! let host = Host::at(root.path());
//! let found = nodemend_cni::configurations(&host, Path::new(nodemend_cni::DEFAULT_CONF_DIR));
//! assert_eq!(found.bridges().collect::<Vec<_>>(), ["cni0"]);
//! assert_eq!(found.networks[0].ipam[0].range_sets[0].capacity(), 125);
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod cached;
mod cachefile;
mod call;
mod conf;
mod conflist;
mod error;
mod files;
mod flannel;
mod ipam;
mod names;
mod plugin;
mod problem;
mod range;
mod replay;

pub use cache::{Cache, CacheEntry, DEFAULT_CACHE_DIRS, cache, cache_in};
pub use conf::{Configurations, DEFAULT_BIN_DIRS, DEFAULT_CONF_DIR, Network, configurations};
pub use error::ReplayError;
pub use flannel::{DEFAULT_SCRATCH_DIR, FlannelEntry, FlannelScratch, flannel_scratch};
pub use ipam::{DEFAULT_DATA_DIR, Ipam};
pub use problem::Problem;
pub use range::{Range, RangeSet, Subnet};
pub use replay::Replay;
