//! The removal on kernels that lack the calls it would like to have: as safe as on today's, or refused.
//!
//! The same tests as in `rm_safety`, on Linux 3.10 as far as its system calls go, without `openat2`, with an `openat2` that is
//! forbidden, as container runtimes that do not know it do, and without `statx` as well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::use_debug,
    reason = "a failed unwrap in a test's helper is a failed test, and what is printed is seen if it fails"
)]

#[path = "rm_safety/rows.rs"]
mod rows;

mod linux_3_10 {
    super::rows::each_row!(nodemend_lab::old_kernel::Kernel::Linux3_10);
}

mod without_openat2 {
    super::rows::each_row!(nodemend_lab::old_kernel::Kernel::WithoutOpenat2);
}

mod openat2_forbidden {
    super::rows::each_row!(nodemend_lab::old_kernel::Kernel::Openat2Forbidden);
}

mod without_statx {
    super::rows::each_row!(nodemend_lab::old_kernel::Kernel::WithoutStatx);
}
