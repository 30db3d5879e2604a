//! containerd's root set aside and made anew, and the runbook around it.
//!
//! [`look`] says what containerd runs, how it is and what lies in its root, without changing anything.
//!
//! ```no_run
//! use nodemend_containerd::{Health, LookOptions, look};
//! use nodemend_hostfs::Host;
//!
//! # fn main() -> Result<(), nodemend_containerd::Error> {
//! let look = look(&Host::local(), &LookOptions::default())?;
//! if let Health::Broken { why } = &look.health {
//!     println!("{} is broken: {}", look.settings.root.display(), why.join("; "));
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod deadline;
mod error;
mod healthz;
mod look;
mod ready;
mod service;
mod settings;

pub use error::Error;
pub use healthz::Healthz;
pub use look::{
    Amount, Database, Estimate, Finding, Health, Lock, Look, LookOptions, MetaPage, MountOfRoot, RootFacts,
    RunningPod, Severity, look,
};
pub use ready::{Ready, wait_for_cri, wait_for_kubelet};
pub use service::{Manager, Service, ServiceState};
pub use settings::{Elsewhere, Origin, Settings};
