//! What the container runtimes of a node know of its sandboxes.
#![forbid(unsafe_code)]

mod knowledge;

pub use knowledge::{Answer, Known, Knowledge, NetnsRef, Pod, Record, RecordKind};
