//! The tool `mend-containerd`: what it asks and says around the runbook of the crate `nodemend-containerd`.
//!
//! [`ContainerdReport`] is what `--output json` prints; the rest is glue.
#![forbid(unsafe_code)]

mod arguments;
mod document;
mod going;
mod remover;
mod render;
mod run;

pub use arguments::{Arguments, Command};
pub use document::{ContainerdReport, State, StepItem, Summary};
pub use run::run;
