//! The removal of a tree takes the tree, and nothing else: whatever leads out of it, and whatever happens meanwhile.
//!
//! Each test builds a tree on a disk of its own, removes it by the library in a process of its own, and compares everything else before
//! and after. It needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

mod meanwhile;
mod rows;
mod size;

rows::each_row!(nodemend_lab::old_kernel::Kernel::Today);
