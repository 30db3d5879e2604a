//! Asking kubelet and the API server at the same time.

use std::path::Path;
use std::time::Duration;

use nodemend_hostfs::Host;

use crate::testimony::process::Kubelet;
use crate::testimony::settings::Settings;
use crate::testimony::{Access, Known, apiserver, kubelet};

/// What kubelet says, and what the API server says. Files are read before the clock runs.
pub(crate) fn ask(
    host: &Host,
    access: &Access,
    root: &Path,
    found: Result<Option<Kubelet>, String>,
    settings: &Settings,
) -> (Known, Known) {
    let kubelet = found.and_then(|kubelet| kubelet.ok_or_else(|| "no kubelet runs on this node".to_owned()));
    let kubelet =
        kubelet.and_then(|kubelet| kubelet::Asking::prepare(host, access, root, &kubelet, settings));
    let api = apiserver::Asking::prepare(host, settings);
    let deadline = access.deadline;
    let both = on_a_thread(async {
        let of_kubelet = async {
            match &kubelet {
                Ok(asking) => within(deadline, kubelet::ask(asking)).await,
                Err(reason) => Err(reason.clone()),
            }
        };
        let of_api = async {
            match &api {
                Ok(asking) => within(deadline, apiserver::ask(asking)).await,
                Err(reason) => Err(reason.clone()),
            }
        };
        tokio::join!(of_kubelet, of_api)
    });
    match both {
        Ok((of_kubelet, of_api)) => (Known::of(of_kubelet), Known::of(of_api)),
        Err(error) => {
            let reason = format!("nobody was asked, because no thread could be started: {error}");
            (Known::silent(reason.clone()), Known::silent(reason))
        }
    }
}

pub(crate) async fn within(
    deadline: Duration,
    asking: impl Future<Output = Result<Known, String>>,
) -> Result<Known, String> {
    match tokio::time::timeout(deadline, asking).await {
        Ok(said) => said,
        Err(_elapsed) => Err(format!("did not answer within {} ms", deadline.as_millis())),
    }
}

/// A tokio runtime must not start inside another one; on a thread of its own it may.
pub(crate) fn on_a_thread<T: Send>(work: impl Future<Output = T> + Send) -> std::io::Result<T> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(work))
    };
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("kubelet".to_owned())
            .spawn_scoped(scope, run)?;
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
