//! Veth pairs that no sandbox answers for: found, proven twice, removed.
//!
//! A pair never lacks an end: it dies with either of its namespaces. An "orphan veth" is a pair whose inner
//! namespace still lives, kept by a mount, a process, an open file or a socket, while no sandbox owns it. So the
//! namespace is judged, and releasing it is the repair; the pair goes with it.
//!
//! [`survey`] reads, [`plan`] judges two surveys, [`apply`] looks a third time under the lock and removes.
//!
//! ```no_run
//! use nodemend_hostfs::Host;
//! use nodemend_veth::{Policy, SurveyOptions, blocking, plan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::local();
//! let options = SurveyOptions::default();
//! let first = blocking::survey(&host, &options)?;
//! std::thread::sleep(std::time::Duration::from_secs(2));
//! let second = blocking::survey(&host, &options)?;
//! for orphan in plan(&first, &second, &Policy::default()).orphans() {
//!     println!("{} may go: nobody answers for it", orphan.subject().name);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod apply;
pub mod blocking;
mod claims;
mod error;
mod judge;
mod pair;
mod release;
mod scene;
mod signs;
mod survey;
mod unplug;

pub use apply::{Outcomes, Tools, apply};
pub use error::Error;
pub use judge::{Policy, plan};
pub use nodemend_runtime::Discovery;
pub use pair::{VethIdentity, VethPair, is_cni_name};
pub use scene::{live_sandboxes, silent};
pub use survey::{SURVEY_VERSION, Survey, SurveyOptions, remember, survey};
