//! The same for callers without an async runtime, and for callers inside one: each call owns a thread.

use std::path::Path;
use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_procns::Census;
use tokio::runtime::Runtime;

use crate::cni::CniDirectories;
use crate::endpoint::Endpoint;
use crate::greeting::{Greeting, Mute};
use crate::images::ImageStore;
use crate::knowledge::{Answer, Knowledge, Known};
use crate::sources;
use crate::tasks::TaskEnd;

/// [`crate::survey`], on a thread of its own. If there is no thread to be had, nobody was asked, and the only answer
/// says so.
pub fn survey(host: &Host, endpoints: &[Endpoint], census: &Census, deadline: Duration) -> Knowledge {
    run(|runtime| runtime.block_on(crate::survey(host, endpoints, census, deadline)))
        .unwrap_or_else(|error| nobody(&error))
}

/// [`crate::cni_directories`], on a thread of its own. Empty if there is no thread to be had.
pub fn cni_directories(host: &Host, endpoints: &[Endpoint], deadline: Duration) -> Vec<CniDirectories> {
    run(|runtime| runtime.block_on(crate::cni_directories(host, endpoints, deadline))).unwrap_or_default()
}

/// [`crate::greet`], on a thread of its own.
///
/// # Errors
/// As there, and if there is no thread to be had.
pub fn greet(host: &Host, endpoint: &Endpoint, deadline: Duration) -> Result<Greeting, Mute> {
    run(|runtime| runtime.block_on(crate::greet(host, endpoint, deadline)))
        .unwrap_or_else(|error| Err(Mute::Silent(format!("no thread could be started: {error}"))))
}

/// [`crate::delete_task`], on a thread of its own.
///
/// # Errors
/// As there, or if there is no thread to be had.
pub fn delete_task(
    host: &Host,
    socket: &Path,
    namespace: &str,
    id: &str,
    deadline: Duration,
) -> Result<TaskEnd, String> {
    run(|runtime| runtime.block_on(crate::delete_task(host, socket, namespace, id, deadline)))
        .map_err(|error| format!("no thread could be started: {error}"))?
}

/// Has images brought into a containerd, on a thread of its own. The lease `lease` holds them until the work is done.
/// Each answer of containerd may take as long as `deadline`.
///
/// # Errors
/// In words, if containerd cannot be asked, the work fails, or there is no thread to be had.
pub fn with_images<T: Send>(
    host: &Host,
    socket: &Path,
    lease: &str,
    deadline: Duration,
    work: impl FnOnce(&ImageStore<'_>) -> Result<T, String> + Send,
) -> Result<T, String> {
    let bring = |runtime: &Runtime| {
        let store = ImageStore::open(runtime, host, socket, lease, deadline)?;
        let done = work(&store)?;
        store.close()?;
        Ok(done)
    };
    run(bring).map_err(|error| format!("no thread could be started: {error}"))?
}

/// Does async work on a thread of its own, with a tokio runtime of its own: none may start inside another one, but on a
/// thread of its own it may.
///
/// # Errors
/// If there is no thread or no runtime to be had; then nothing was done.
pub fn run<T: Send>(ask: impl FnOnce(&Runtime) -> T + Send) -> std::io::Result<T> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(ask(&runtime))
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("runtimes".to_owned())
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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
