//! The removal of a tree takes the tree, and nothing else: whatever leads out of it, and whatever happens meanwhile.
//!
//! Each test builds a tree on a disk of its own, removes it by the library in a process of its own, and compares everything else before
//! and after. It needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::use_debug,
    reason = "a failed unwrap in a test's helper is a failed test, and what is printed is seen if it fails"
)]

mod meanwhile;
mod rows;
mod size;

rows::each_row!(nodemend_lab::old_kernel::Kernel::Today);
