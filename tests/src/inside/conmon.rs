//! What watches over a container of podman's: here it only lives.

use std::process::ExitCode;

/// The name under which this program is it.
pub const NAME: &str = "conmon";

/// Lives until it is killed.
pub fn run() -> ExitCode {
    loop {
        std::thread::park();
    }
}
