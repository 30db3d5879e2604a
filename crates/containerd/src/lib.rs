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
mod identity;
mod look;
mod options;
mod plan;
mod ready;
mod run;
mod service;
mod settings;
mod state;
mod status;
mod steps;

pub use error::Error;
pub use healthz::Healthz;
pub use identity::RootId;
pub use look::{
    Amount, Database, Estimate, Finding, Health, ImageChoice, Images, Lock, Look, LookOptions, MetaPage,
    MountOfRoot, RootFacts, RunningPod, Severity, StoredImage, images, look,
};
pub use options::Options;
pub use plan::{Needed, Order, PlannedStep, Reason, Refusal, RunPlan, plan};
pub use ready::{Ready, wait_for_cri, wait_for_kubelet};
pub use run::{End, Ended, Tools, begin, forward, resume, roll_back};
pub use service::{Manager, Service, ServiceState};
pub use settings::{Elsewhere, Origin, Settings};
pub use state::{Before, Course, Entry, OldRoot, PodChoice, RUN_VERSION, Run, RunFile, StepRecord};
pub use status::{Next, Status, status};
pub use steps::Step;
pub use steps::removal::{Removal, RemovalFiles, is_set_aside, removal};
