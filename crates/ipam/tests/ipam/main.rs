//! Reservations as nodes have them: what is found, what is left alone, what is freed, and what comes back.
// A failed unwrap is a failed test; clippy.toml says so for unit tests, and does not know these files for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod attachments;
mod forms;
mod moves;
mod node;
mod others;
mod owners;
mod property;
mod repair;
mod roots;
mod undo;
mod usage;
