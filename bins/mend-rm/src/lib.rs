//! The tool `mend-rm`: what it asks before it removes a tree, and what it says. The removal itself is the crate
//! `nodemend-rmtree`, which knows nothing of nodes.
//!
//! [`RemovalReport`] is what `--output json` prints; the rest is glue.
#![forbid(unsafe_code)]

mod act;
mod arguments;
mod brake;
mod daemons;
mod deadline;
mod document;
mod estimate;
mod inspect;
mod journal;
mod limits;
mod overlays;
mod position;
mod processes;
mod progress;
mod refusals;
mod render;
mod run;
mod sight;
mod words;

pub use arguments::{Arguments, ProgressForm};
pub use document::RemovalReport;
pub use limits::raise_open_files;
pub use run::run;
