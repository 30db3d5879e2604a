//! What a census finds on the running kernel. Needs root; works in mount namespaces of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod holders;
mod processes;
mod room;
