//! The lab: a real Kubernetes node in private namespaces, to be broken on request.
//!
//! A node has its own pid, mount, network, ipc and uts namespaces (and a user namespace when made by an ordinary user), and everything in it
//! is at its default path: the runtime's socket, the CNI configuration, the reservations, the namespace mounts. A tool that runs inside
//! needs no flag and finds a node. Nothing of the machine is touched, and nothing stays behind, however the owner ends.
//!
//! ```no_run
//! use nodemend_lab::{Node, Options};
//!
//! # fn main() -> nodemend_lab::Result<()> {
//! let node = Node::start(Options::default())?;
//! let pods = node.run_sandboxes(3)?;
//! assert!(node.pings(pods[0].ips[0]));
//! # Ok(())
//! # }
//! ```

mod application;
mod breakage;
pub mod cgroups;
mod cri;
pub mod disk;
mod error;
pub mod hostile;
mod image;
pub mod inside;
pub mod kubelet;
mod links;
mod loops;
pub mod machine;
pub mod network;
mod node;
pub mod old_kernel;
mod options;
pub mod pods;
mod process;
mod remains;
pub mod runtime;
mod sandbox;
mod second;
pub mod standin;
pub mod tool;
pub mod tools;
mod watch;

pub use application::Application;
pub use breakage::{Crowd, InFlight, Reservation, random_id};
pub use error::{LabError, Result};
pub use inside::hold::Hold;
pub use links::Link;
pub use node::Node;
pub use options::{Engine, Options};
pub use process::Process;
pub use remains::{POD_CGROUP, Remains};
pub use sandbox::{CNI_CACHE, Sandbox};
pub use second::Second;
pub use watch::{Seen, Watch};

/// The example of docs/embedding.md, which must compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;
