//! Stopping and starting containerd and kubelet.

use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::options::Options;
use crate::healthz::Healthz;
use crate::ready::{wait_for_cri, wait_for_kubelet};
use crate::service::Service;
use crate::state::Run;

/// bbolt holds a lock on it for as long as containerd runs (`flock`, bolt_unix.go).
const METADATA: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// Stops kubelet, then containerd: kubelet would start containerd's pods again. What is stopped already is left alone.
pub(crate) fn stop(run: &Run, options: &Options) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for service in run.kubelet.iter().chain([&run.containerd]) {
        if service.state()?.is_up() {
            service.stop(options.stop_within)?;
            said.push(format!("stopped {}", service.name));
        } else {
            said.push(format!("{} does not run", service.name));
        }
    }
    nobody_works_in(&run.root.path)?;
    Ok(said)
}

/// A containerd of which no service knows would go on writing into the directory that is set aside.
fn nobody_works_in(root: &Path) -> Result<(), Error> {
    let path = root.join(METADATA);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(Error::io("open", path)(errno)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Err(Error::Unfit(format!(
            "{}: is still locked, so a containerd works with it although its service has stopped; end that one",
            path.display()
        ))),
        // A file system without locks does not tell.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Starts containerd and waits for its CRI, then kubelet and waits for its health.
pub(crate) fn start(run: &Run, options: &Options) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    up(&run.containerd, options)?;
    let ready = wait_for_cri(&run.settings.socket, options.ready_within)?;
    said.push(format!(
        "{} {} answers on {} (CRI {})",
        ready.runtime,
        ready.version,
        run.settings.socket.display(),
        ready.api
    ));
    let Some(kubelet) = &run.kubelet else {
        return Ok(said);
    };
    up(kubelet, options)?;
    match &run.healthz {
        Healthz::Off => said.push(format!("{} runs; its healthz is off, so no more is known", kubelet.name)),
        Healthz::At(_) => {
            wait_for_kubelet(&run.healthz, options.ready_within)?;
            said.push(format!("{} is healthy", kubelet.name));
        }
    }
    Ok(said)
}

fn up(service: &Service, options: &Options) -> Result<(), Error> {
    if service.state()?.main_pid.is_some() {
        return Ok(());
    }
    service.reset_failed()?;
    service.start(options.start_within)
}

/// Brings the services to what they were before the run, as far as they let themselves. Says what came of it.
pub(crate) fn restore(run: &Run, options: &Options) -> Vec<String> {
    let mut said = Vec::new();
    let kubelet = run.kubelet.as_ref().map(|kubelet| (kubelet, run.before.kubelet));
    for (service, ran) in [(&run.containerd, run.before.containerd)].into_iter().chain(kubelet) {
        if !ran {
            said.push(format!("{} is stopped, as it was", service.name));
            continue;
        }
        said.push(match up(service, options) {
            Ok(()) => format!("{} is started again", service.name),
            // A containerd in a crash loop does not get better by being stopped.
            Err(error) => format!("{} was started again, but: {error}", service.name),
        });
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_database_is_somebodys() {
        let root = tempfile::tempdir().unwrap();
        nobody_works_in(root.path()).unwrap();
        let path = root.path().join(METADATA);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        nobody_works_in(root.path()).unwrap();
        file.lock().unwrap();
        let error = nobody_works_in(root.path()).unwrap_err().to_string();
        assert!(error.contains("still locked"), "{error}");
    }
}
