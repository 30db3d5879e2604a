//! What each source of truth said of an object, and the verdict that follows.
//!
//! A thing is removed only when **every required source answered and none of them knows it**. A source that
//! could not answer is never a source that said no. This crate holds that rule and nothing else: no I/O, no
//! unsafe code, nothing of networks or Kubernetes.
//!
//! The way of an object through a repair:
//!
//! 1. a survey asks each [`Source`] and writes down its [`Claim`]s;
//! 2. [`judge`] turns the claims into a [`Verdict`]; only it can make an [`Orphan`];
//! 3. under a [`Lock`], a second survey looks again, and [`Orphan::confirm`] compares identity and claims;
//! 4. removal functions accept the resulting [`Confirmed`] by value: one proof, one removal.
//!
//! ```
//! use nodemend_evidence::{Claim, Evidence, Source, Subject, Verdict, judge};
//!
//! #[derive(Debug)]
//! struct Lamp(u32);
//! impl Subject for Lamp {
//!     type Identity = u32;
//!     fn identity(&self) -> u32 { self.0 }
//!     fn title(&self) -> String { format!("lamp {}", self.0) }
//!     fn action(&self) -> String { "switch it off".into() }
//! }
//!
//! let hall = Source::new("people in the hall");
//! let nobody = vec![Evidence::new(&hall, Claim::absent("nobody reads here"))];
//! assert!(matches!(judge(Lamp(1), &[hall.clone()], nobody), Verdict::Orphan(_)));
//!
//! // The source could not answer: that is never a reason to act.
//! let silent = vec![Evidence::new(&hall, Claim::unknown("the hall is locked"))];
//! assert!(matches!(judge(Lamp(1), &[hall.clone()], silent), Verdict::Undecided(_)));
//!
//! // Nobody was asked at all: the same.
//! assert!(matches!(judge(Lamp(1), &[], vec![]), Verdict::Undecided(_)));
//! ```
#![forbid(unsafe_code)]

mod claim;
mod plan;
mod proof;
mod report;
mod verdict;

pub use claim::{Claim, Evidence, Source};
pub use plan::{Plan, Refusal, Summary};
pub use proof::{Confirmed, Lock, Look, Orphan};
pub use report::{API_VERSION, Item, Outcome, Report};
pub use verdict::{Kept, Subject, Verdict, VerdictKind, judge};
