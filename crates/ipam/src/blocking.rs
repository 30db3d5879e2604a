//! The same for callers without an async runtime, and for callers inside one: the call owns a thread.

use nodemend_hostfs::Host;

use crate::error::Error;
use crate::survey::{Survey, SurveyOptions};

/// [`crate::survey`], on a thread of its own.
///
/// # Errors
/// As there.
pub fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, Error> {
    // A tokio runtime must not start inside another one; on a thread of its own it may.
    std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::Thread)?;
            runtime.block_on(crate::survey(host, options))
        };
        let worker = std::thread::Builder::new()
            .name("ipam".into())
            .spawn_scoped(scope, work)
            .map_err(Error::Thread)?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
