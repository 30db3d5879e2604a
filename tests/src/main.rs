//! `nodemend-lab`: a broken node for a person, and the parts of a node that the library re-executes.

use std::path::Path;
use std::process::ExitCode;

mod cli;

use nodemend_lab::kubelet::serve;
use nodemend_lab::{inside, standin};

fn main() -> ExitCode {
    // A plugin is called by its name, which is a link to this program; a shim is known by its own.
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some(inside::bridge::NAME) => inside::bridge::run(),
        Some(inside::hook::NAME) => inside::hook::run(),
        Some(inside::conmon::NAME) => inside::conmon::run(),
        Some(standin::shim::NAME) => standin::shim::run(),
        Some(name @ (serve::KUBELET | serve::API_SERVER)) => serve::run(name),
        _ => cli::run(),
    }
}
