//! The same for callers without an async runtime, and for callers inside one: each call owns a thread.

use nodemend_evidence::Orphan;
use nodemend_hostfs::{Host, HostLock};

use crate::apply::{Outcomes, Tools};
use crate::error::Error;
use crate::judge::Policy;
use crate::sandbox::Sandbox;
use crate::survey::{Survey, SurveyOptions};

/// [`crate::survey`], on a thread of its own.
///
/// # Errors
/// As there.
pub fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, Error> {
    on_own_thread(|| runtime()?.block_on(crate::survey(host, options)))
}

/// [`crate::apply`], on a thread of its own.
///
/// # Errors
/// As there.
pub fn apply(
    orphans: Vec<Orphan<Sandbox>>,
    lock: &HostLock,
    again: &Survey,
    policy: &Policy,
    tools: Tools<'_>,
) -> Result<Outcomes, Error> {
    on_own_thread(|| runtime()?.block_on(crate::apply(orphans, lock, again, policy, tools)))
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)
}

/// A tokio runtime must not start inside another one; on a thread of its own it may.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("sandboxes".into())
            .spawn_scoped(scope, work)
            .map_err(Error::Thread)?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
