//! CNI's files as nodes have them, and DEL with plugins that are shell scripts, and with the real ones.
// A failed unwrap is a failed test; clippy.toml says so for unit tests, and does not know these files for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod configurations;
mod netns;
mod node;
mod plugins;
mod replay;
mod replay_refused;
