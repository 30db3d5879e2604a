//! The repairs on a real kernel: scratch roots of kubelet on disks of their own, with real mounts. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a failed unwrap is a failed test, and so is any other outcome"
)]

mod archive;
mod block;
mod killed;
mod leftovers;
mod mounts;
mod node;
mod purge;
mod quarantine;
mod unblock;
