//! `mend-containerd`: brings a node back from a containerd crash loop.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use mend_containerd::Arguments;

fn main() -> ExitCode {
    mend_containerd::run(&Arguments::parse()).into()
}
