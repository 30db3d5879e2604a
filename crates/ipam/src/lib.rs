//! host-local address reservations that no sandbox holds: found, proven twice, freed.
//!
//! host-local keeps one file for each address that it gave out, in a directory for each network. The file goes when
//! the DEL of its container succeeds; if the runtime forgot the container, or a DEL failed unseen, it stays, and the
//! network runs out of addresses. Nothing else on a node collects these files.
//!
//! A reservation goes only if no runtime knows its id, no CNI plugin works for it, its address is configured in no
//! network namespace, it is older than the grace, and two looks say so. The address is never freed while anything
//! still has it configured: that would give it out twice.
//!
//! [`survey`] reads, [`plan`] judges two surveys, [`apply`] looks a third time under the lock, copies and frees, and
//! [`undo`] puts back what still is free. [`usage`] counts, and [`findings`] names what no removal mends.
//!
//! ```no_run
//! use nodemend_hostfs::Host;
//! use nodemend_ipam::{Policy, SurveyOptions, blocking, plan, usage};
//!
//! # fn main() -> Result<(), nodemend_ipam::Error> {
//! let host = Host::local();
//! let options = SurveyOptions::default();
//! let first = blocking::survey(&host, &options)?;
//! std::thread::sleep(std::time::Duration::from_secs(2));
//! let second = blocking::survey(&host, &options)?;
//! let plan = plan(&first, &second, &Policy::default());
//! for network in usage(&second, &plan) {
//!     println!("{network}");
//! }
//! for orphan in plan.orphans() {
//!     println!("{} may go: nobody holds it", orphan.subject().file);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod addresses;
mod apply;
pub mod blocking;
mod claims;
mod details;
mod error;
mod findings;
mod form;
mod judge;
mod netdir;
mod networks;
mod others;
mod outcome;
mod read;
mod reservation;
mod scene;
mod survey;
mod undo;
mod undodir;
mod usage;

pub use apply::{Outcomes, Tools, apply};
pub use details::Details;
pub use error::Error;
pub use findings::{Finding, findings};
pub use form::Form;
pub use judge::{Policy, plan};
pub use networks::NetworkDir;
pub use nodemend_runtime::Discovery;
pub use reservation::{Repair, Reservation, ReservationIdentity};
pub use scene::{live_sandboxes, silent};
pub use survey::{SURVEY_VERSION, Survey, SurveyOptions, survey};
pub use undo::{UndoReport, undo};
pub use undodir::runs;
pub use usage::{NetworkUsage, usage};
