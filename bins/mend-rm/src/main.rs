//! `mend-rm`: removes a directory tree, and never leaves it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use mend_rm::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    mend_rm::raise_open_files();
    mend_rm::run(&arguments).into()
}
