//! What every `mend-*` binary shares: its flags, its exit codes, the run from survey to report, and how the
//! report looks. The only crate that prints, reads the environment, installs a subscriber or asks a question.
//!
//! A binary implements [`Repair`] and calls [`run`]:
//!
//! ```no_run
//! use clap::Parser;
//! use nodemend_cli::{Flags, Repair, run};
//!
//! #[derive(Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     flags: Flags,
//! }
//!
//! fn main_with(repair: &mut impl Repair) -> std::process::ExitCode {
//!     run(repair, &Arguments::parse().flags).into()
//! }
//! ```
#![forbid(unsafe_code)]

mod ask;
mod escape;
mod exit;
mod flags;
mod progress;
mod recording;
mod render;
mod repair;
mod run;
mod signals;

pub use ask::agreed;
pub use escape::escaped;
pub use exit::{EXIT_CODES, Exit, UsageError};
pub use flags::{Color, Flags, Output, environment_endpoint};
pub use progress::StatusLine;
pub use recording::Recording;
pub use render::{Document, Paint, render, say, say_json, say_safe};
pub use repair::{NoDetails, Repair, Working};
pub use run::{fail, remark, run, start};
pub use signals::Signals;
