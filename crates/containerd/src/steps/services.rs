//! Stopping and starting containerd and kubelet.

use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::healthz::Healthz;
use crate::options::Options;
use crate::ready::{wait_for_cri, wait_for_kubelet};
use crate::service::{Manager, Service};
use crate::state::Run;

/// bbolt holds a lock on it for as long as containerd runs (`flock`, bolt_unix.go).
const METADATA: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// Stops kubelet, then containerd: kubelet would start containerd's pods again. What is stopped already is left alone, as
/// far as anybody tells: a command that stops must do no harm where nothing runs.
pub(crate) fn stop(run: &Run, options: &Options) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for service in run.kubelet.iter().chain([&run.containerd]) {
        if by_command(service) || service.state()?.is_up() {
            service.stop(options.stop_within)?;
            said.push(format!("stopped {}", service.name));
        } else {
            said.push(format!("{} does not run", service.name));
        }
    }
    match worked_in(&run.root.path)? {
        None => Ok(said),
        Some(path) => Err(Error::Unfit(format!(
            "{}: is still locked, so a containerd works with it although its service has stopped; end that one",
            path.display()
        ))),
    }
}

fn by_command(service: &Service) -> bool {
    matches!(service.manager, Manager::Commands { .. })
}

/// The database of a root, if a containerd has it open. One of which no service knows would go on writing into a directory
/// that is set aside.
fn worked_in(root: &Path) -> Result<Option<PathBuf>, Error> {
    let path = root.join(METADATA);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(Error::io("open", path)(errno)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Ok(Some(path)),
        // A file system without locks does not tell.
        Ok(()) | Err(_) => Ok(None),
    }
}

/// Starts containerd, and waits for its CRI.
pub(crate) fn start_containerd(run: &Run, options: &Options) -> Result<Vec<String>, Error> {
    up(&run.containerd, run, options)?;
    let ready = wait_for_cri(&run.settings.socket, options.ready_within)?;
    Ok(vec![format!(
        "{} {} answers on {} (CRI {})",
        ready.runtime,
        ready.version,
        run.settings.socket.display(),
        ready.api
    )])
}

/// Starts kubelet, and waits for its health.
pub(crate) fn start_kubelet(run: &Run, options: &Options) -> Result<Vec<String>, Error> {
    let Some(kubelet) = &run.kubelet else {
        return Ok(Vec::new());
    };
    up(kubelet, run, options)?;
    if run.healthz == Healthz::Off {
        return Ok(vec![format!(
            "{} runs; its healthz is off, so no more is known",
            kubelet.name
        )]);
    }
    wait_for_kubelet(&run.healthz, options.ready_within)?;
    Ok(vec![format!("{} is healthy", kubelet.name)])
}

fn up(service: &Service, run: &Run, options: &Options) -> Result<(), Error> {
    let runs = match by_command(service) {
        true => worked_in(&run.root.path)?.is_some(),
        false => service.state()?.main_pid.is_some(),
    };
    if runs {
        return Ok(());
    }
    service.reset_failed()?;
    service.start(options.start_within)
}

/// Brings the services to what they were before the run, as far as they let themselves. Says what came of it.
pub(crate) fn restore(run: &Run, options: &Options) -> Vec<String> {
    let mut said = Vec::new();
    let kubelet = run.kubelet.as_ref().map(|kubelet| (kubelet, run.before.kubelet));
    for (service, ran) in [(&run.containerd, run.before.containerd)]
        .into_iter()
        .chain(kubelet)
    {
        if !ran {
            said.push(format!("{} is stopped, as it was", service.name));
            continue;
        }
        said.push(match up(service, run, options) {
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
        assert_eq!(worked_in(root.path()).unwrap(), None);
        let path = root.path().join(METADATA);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(worked_in(root.path()).unwrap(), None);
        file.lock().unwrap();
        assert_eq!(worked_in(root.path()).unwrap(), Some(path));
    }
}
