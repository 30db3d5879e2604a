//! containerd's root set aside and made anew, and the runbook around it.
#![forbid(unsafe_code)]

mod error;

pub use error::Error;
