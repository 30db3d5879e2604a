//! What the container runtimes of a node know of its sandboxes.
#![forbid(unsafe_code)]

pub mod blocking;
mod endpoint;
mod index;
mod knowledge;
mod ownership;
mod sources;
mod survey;

pub use endpoint::{Discovery, Endpoint, WELL_KNOWN, discover};
pub use index::Index;
pub use knowledge::{Answer, Knowledge, Known, NetnsRef, Pod, Record, RecordKind};
pub use survey::{DEFAULT_DEADLINE, survey};
