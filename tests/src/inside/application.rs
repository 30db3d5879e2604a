//! An application of a pod: it listens, and ends when it is asked to, or not.

use std::net::TcpListener;

use nix::sys::signal::{SigSet, Signal};

use crate::error::{Doing, Result};

/// Listens on a port of its network until it ends.
///
/// As the first process of its container it does not even get a SIGTERM that it does not wait for (pid_namespaces(7)): that
/// is how most applications ignore it.
///
/// # Errors
///
/// When the port is taken.
pub fn run(port: u16, stubborn: bool) -> Result<()> {
    let _listener = TcpListener::bind(("0.0.0.0", port)).doing(|| format!("listen on {port}"))?;
    if stubborn {
        loop {
            std::thread::park();
        }
    }
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked.thread_block().doing(|| "block SIGTERM".to_owned())?;
    asked.wait().doing(|| "wait for SIGTERM".to_owned()).map(drop)
}
