//! The same for callers without an async runtime, and for callers inside one: the call owns a thread.

use nodemend_hostfs::Host;
use nodemend_runtime::blocking::run;

use crate::error::Error;
use crate::survey::{Survey, SurveyOptions};

/// [`crate::survey`], on a thread of its own.
///
/// # Errors
/// As there.
pub fn survey(host: &Host, options: &SurveyOptions) -> Result<Survey, Error> {
    run(|runtime| runtime.block_on(crate::survey(host, options))).map_err(Error::Thread)?
}
