//! Sandboxes that no runtime answers for: found with everything that belongs to them, and judged.
//!
//! After containerd's directory is wiped, shims, pause and application processes, overlay mounts, network namespaces,
//! cgroups and cache files live on, and nobody knows them. [`survey`] reads every trace of a sandbox on a node and joins
//! them to one [`Sandbox`]; [`plan`] judges two surveys.
//!
//! A sandbox that still runs something is not garbage: without [`Policy::reap`] no plan ends it.
//!
//! ```no_run
//! use nodemend_hostfs::Host;
//! use nodemend_sandboxes::{Policy, SurveyOptions, blocking, plan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::local();
//! let options = SurveyOptions::default();
//! let first = blocking::survey(&host, &options)?;
//! std::thread::sleep(std::time::Duration::from_secs(2));
//! let second = blocking::survey(&host, &options)?;
//! for orphan in plan(&first, &second, &Policy::default()).orphans() {
//!     println!("{} may go: nobody answers for it", orphan.subject().id);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod apply;
mod assemble;
pub mod blocking;
mod claims;
mod describe;
mod details;
mod error;
mod foreign;
mod ids;
mod join;
mod judge;
mod lost;
mod places;
mod sandbox;
mod scene;
mod survey;

pub use apply::{Outcomes, Tools, apply};
pub use details::{Details, Forgotten};
pub use error::Error;
pub use judge::{Policy, live_sandboxes, plan, silent};
pub use nodemend_runtime::Discovery;
pub use places::{ContainerCgroup, Places};
pub use sandbox::{
    Bundle, Cgroup, Container, Network, Process, RuncState, Sandbox, SandboxIdentity, SandboxMount, Shim,
    Task,
};
pub use survey::{SURVEY_VERSION, Survey, SurveyOptions, remember, survey};
