//! Tests that need more than a user's rights say so when they cannot run, and fail where all must run.

use std::io::Write;
use std::path::Path;

/// True if this is root and the programs are there.
pub(crate) fn root_and(programs: &[&str]) -> bool {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
    let is_there = |program: &&&str| dirs.iter().any(|dir| Path::new(dir).join(**program).exists());
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !is_there(program))
        .copied()
        .collect();
    let is_root = rustix::process::geteuid().is_root();
    if is_root && missing.is_empty() {
        return true;
    }
    let text = format!("\nNOT TESTED: this needs root (is: {is_root}) and these programs: {missing:?}\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(std::env::var_os("CI").is_none(), "{text}");
    false
}
