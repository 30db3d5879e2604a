//! The same for callers without an async runtime, and for callers inside one: each call owns a thread.

use nodemend_evidence::Orphan;
use nodemend_hostfs::{Host, HostLock};
use nodemend_runtime::blocking::run;

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
    run(|runtime| runtime.block_on(crate::survey(host, options))).map_err(Error::Thread)?
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
    run(|runtime| runtime.block_on(crate::apply(orphans, lock, again, policy, tools)))
        .map_err(Error::Thread)?
}
