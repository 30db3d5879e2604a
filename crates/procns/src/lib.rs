//! Processes and what they hold: every network namespace of a node, and who keeps it alive.
#![forbid(unsafe_code)]

mod census;

pub use census::{Census, CniCall, Holder, Netns, NetnsId, Process};
