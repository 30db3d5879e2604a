//! The second engine: a CRI server whose containers are plain processes.
//!
//! For an ordinary user, and for a machine without containerd. What the kernel holds is as real as with a runtime: namespaces, mounts, veth
//! pairs, shims and pauses that outlive their server, reservations, cache. What is missing: cgroups, root file systems, and a pid namespace
//! for each sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::error::{Doing, Result};
use crate::image;
use crate::node::Node;
use crate::runtime;
use crate::tools;

mod chain;
mod native;
mod pods;
mod record;
mod server;
pub mod shim;
mod wire;

pub(crate) use server::ONLY_V1ALPHA2;
pub use server::run;

/// The program that every sandbox keeps, inside the node.
pub(crate) const PAUSE: &str = "/run/lab/pause";

pub(crate) fn prepare(node: &Node) -> Result<()> {
    let pause = node.path(PAUSE);
    fs::write(&pause, image::pause_program()?).at("write", &pause)?;
    fs::set_permissions(&pause, fs::Permissions::from_mode(0o755)).at("make executable", &pause)
}

pub(crate) fn start(node: &Node) -> Result<u32> {
    let lab = tools::lab_binary()?;
    let argv = [lab.to_string_lossy(), "cri-server".into()];
    node.detach(&["--log", runtime::LOG], &argv)
}
