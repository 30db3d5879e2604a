//! What the layout finds on the running kernel, over real mounts. Needs root; works in mount namespaces of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::use_debug,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub
)]

mod many;
mod mounted;
mod room;
mod root;
mod volumes;
