//! The same for callers without an async runtime, and for callers inside one: each call owns a thread.

use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_procns::Census;

use crate::endpoint::Endpoint;
use crate::knowledge::{Answer, Knowledge, Known};
use crate::sources;

/// [`crate::survey`], on a thread of its own. If there is no thread to be had, nobody was asked, and the only answer
/// says so.
pub fn survey(host: &Host, endpoints: &[Endpoint], census: &Census, deadline: Duration) -> Knowledge {
    std::thread::scope(|scope| {
        let ask = || run(host, endpoints, census, deadline);
        match std::thread::Builder::new()
            .name("runtimes".to_owned())
            .spawn_scoped(scope, ask)
        {
            Ok(worker) => worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => nobody(&error),
        }
    })
}

fn run(host: &Host, endpoints: &[Endpoint], census: &Census, deadline: Duration) -> Knowledge {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(crate::survey(host, endpoints, census, deadline)),
        Err(error) => nobody(&error),
    }
}

fn nobody(error: &std::io::Error) -> Knowledge {
    let reason = format!("nobody was asked, because no thread could be started: {error}");
    Knowledge {
        answers: vec![Answer {
            source: sources::no_cri(),
            known: Known::Unknown(reason),
        }],
    }
}
