//! kubelet, as a process of this host.

use std::path::Path;
use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_procns::Census;
use rustix::fs::{AtFlags, CWD, statat};

use crate::embedded;
use crate::testimony::KubeletProcess;
use crate::testimony::processes::Found;

/// USER_HZ: the unit of the times in /proc/PID/stat, 100 on every architecture that Rust's std runs on (proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kubelet {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    /// For how long it has been running.
    pub(crate) since: Duration,
    /// Its command line, the name of the program included.
    pub(crate) arguments: Vec<String>,
}

/// Finds kubelet: a process of root with its name, in the host's network, that belongs to no pod. Anything can call itself
/// kubelet in a pod. Two of them are one too many to believe either.
pub(crate) fn find(host: &Host, census: &Census, found: Option<&Found>) -> Result<Option<Kubelet>, String> {
    if let Some(unread) = census.unread.first() {
        return Err(unread.clone());
    }
    let Some(found) = found else {
        return Err("the processes of pods could not be told from those of the host".to_owned());
    };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let now = u64::try_from(now).unwrap_or_default();
    let mut kubelets = Vec::new();
    for process in &census.processes {
        let named = embedded::may_be_kubelet(&process.comm);
        let outside =
            process.netns.is_some_and(|netns| netns != census.host) || found.is_in_a_pod(process.pid);
        if !named || outside || !is_roots(process.pid)? {
            continue;
        }
        let Some(arguments) = embedded::arguments(host, process.pid, &process.comm)? else {
            continue;
        };
        kubelets.push(Kubelet {
            pid: process.pid,
            comm: process.comm.clone(),
            since: Duration::from_secs(now.saturating_sub(process.start_time / TICKS_PER_SECOND)),
            arguments: arguments
                .into_iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        });
    }
    match &kubelets[..] {
        [first, second, ..] => Err(format!(
            "two processes are kubelet: pid {} and pid {}",
            first.pid, second.pid
        )),
        _ => Ok(kubelets.pop()),
    }
}

fn is_roots(pid: u32) -> Result<bool, String> {
    let path = format!("/proc/{pid}");
    match statat(CWD, Path::new(&path), AtFlags::empty()) {
        Ok(stat) => Ok(stat.st_uid == 0),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Ok(false),
        Err(errno) => Err(format!("{path}: {errno}")),
    }
}

/// For the record.
pub(crate) fn told(found: &Result<Option<Kubelet>, String>) -> KubeletProcess {
    match found {
        Ok(Some(kubelet)) => KubeletProcess::Running {
            pid: kubelet.pid,
            comm: kubelet.comm.clone(),
            since: kubelet.since.as_secs(),
        },
        Ok(None) => KubeletProcess::NotRunning,
        Err(reason) => KubeletProcess::Unknown(reason.clone()),
    }
}
