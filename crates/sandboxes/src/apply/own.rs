//! What belongs to one container of a sandbox: its cgroups, and the processes in them.

use std::collections::HashSet;

use nodemend_procns::cgroup::Cgroup;

use super::process::Target;
use crate::error::Error;
use crate::sandbox::{self, Sandbox};

/// Which processes of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of the containers of the application.
    Application,
    /// The sandbox's own.
    Pause,
}

impl Whose {
    fn is(self, pause: bool) -> bool {
        pause == (self == Self::Pause)
    }
}

/// Every process that is there now: those of the survey, and those born since in the containers' own cgroups. Never a
/// shim.
pub(crate) fn processes(sandbox: &Sandbox, whose: Whose) -> Result<Vec<Target>, Error> {
    let mut known: HashSet<u32> = sandbox.shims.iter().map(|shim| shim.pid).collect();
    let mut found = Vec::new();
    for process in sandbox.processes.iter().filter(|process| whose.is(process.pause)) {
        if let Some(target) = Target::open(process.pid, process.start_time)? {
            known.insert(target.pid());
            found.push(target);
        }
    }
    for cgroup in cgroups(sandbox, whose)? {
        for target in Target::in_cgroup(&cgroup, &known)? {
            known.insert(target.pid());
            found.push(target);
        }
    }
    Ok(found)
}

/// The cgroups of its containers, in every controller. Not that of the pod, which a sandbox that was started in its
/// place shares.
pub(crate) fn cgroups(sandbox: &Sandbox, whose: Whose) -> Result<Vec<Cgroup>, Error> {
    let containers = sandbox.containers.iter();
    let ids: Vec<&str> = containers
        .filter(|container| whose.is(container.pause))
        .map(|container| container.id.as_str())
        .collect();
    let own = sandbox.cgroups.iter().filter(|cgroup| is_own(cgroup, &ids));
    let opened = own.map(open).collect::<Result<Vec<_>, _>>()?;
    Ok(opened.into_iter().flatten().collect())
}

/// True if the cgroup is that of one of these containers. It is named by the id alone, `…-ID.scope` with systemd, or
/// `…:ID` where runtime and kubelet have different cgroup drivers.
pub(crate) fn is_own(cgroup: &sandbox::Cgroup, ids: &[&str]) -> bool {
    let name = cgroup.path.file_name().unwrap_or_default().to_string_lossy();
    ids.iter().any(|id| {
        let before = name.strip_suffix(".scope").unwrap_or(&name).strip_suffix(id);
        before.is_some_and(|before| before.is_empty() || before.ends_with(['-', ':']))
    })
}

/// Opens a cgroup, if it is still the one of the survey.
pub(crate) fn open(cgroup: &sandbox::Cgroup) -> Result<Option<Cgroup>, Error> {
    let opened = Cgroup::open(&cgroup.path)?;
    Ok(match opened {
        Some(opened) if opened.id()? == cgroup.dir => Some(opened),
        Some(_) | None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_own_cgroup_is_told_from_the_pods() {
        let id = "8f3a5c9e".repeat(8);
        let cgroup = |path: String| sandbox::Cgroup {
            path: path.into(),
            dir: nodemend_hostfs::FileId::default(),
        };
        for own in [
            format!("/sys/fs/cgroup/memory/kubepods/burstable/podx/{id}"),
            format!("/sys/fs/cgroup/kubepods.slice/kubepods-podx.slice/cri-containerd-{id}.scope"),
            format!("/sys/fs/cgroup/kubepods-podx.slice:cri-containerd:{id}"),
        ] {
            assert!(is_own(&cgroup(own.clone()), &["web", &id]), "{own}");
        }
        for other in [
            "/sys/fs/cgroup/memory/kubepods/burstable/podx".to_owned(),
            format!("/sys/fs/cgroup/{id}/inner"),
            "/sys/fs/cgroup/otherweb".to_owned(),
        ] {
            assert!(!is_own(&cgroup(other.clone()), &["web", &id]), "{other}");
        }
    }
}
