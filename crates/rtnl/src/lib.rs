//! What the kernel says of links, addresses and network namespace ids, in this namespace and in others.
//!
//! Reading is one netlink socket for each namespace, opened on a thread that has entered it (the in-process
//! form of `nsenter`): [`blocking::visit`] looks into every namespace of a census and gives a [`View`] of each.
//! Changing is [`Links`], over rtnetlink.
//!
//! Entering a namespace is enough for both proofs of a veth pair: which namespace the host's end leads to (by
//! namespace id), and which interface of the host the inner end leads to (by peer index).
//!
//! ```
//! use nodemend_hostfs::FileId;
//! use nodemend_procns::{Census, Netns};
//! use nodemend_rtnl::{Seen, blocking};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let here = FileId::of(std::fs::File::open("/proc/self/ns/net")?)?;
//! let census = Census { host: here, namespaces: vec![Netns { id: here, holders: vec![] }], ..Census::default() };
//! let views = blocking::visit(&census)?;
//! let Seen::Inside { links, .. } = &views[0].seen else { panic!("this namespace can always be read") };
//! assert!(links.iter().any(|link| link.name == "lo"));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "what the kernel may say is open-ended"
)]

mod change;
mod decode;
mod error;
mod socket;
mod view;
mod visit;

pub use change::Links;
pub use error::Error;
pub use view::{Address, Link, Seen, View};

/// The functions that need threads of their own: they may be called from anywhere, also inside an async runtime
/// (where they block the caller).
pub mod blocking {
    pub use crate::visit::{host_links, visit};
}
