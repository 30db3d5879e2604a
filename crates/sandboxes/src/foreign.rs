//! Sandboxes that containerd did not make for itself: whoever made them keeps its own records, and looks after them.

use std::path::Path;

use nodemend_runtime::Keeper;

use crate::assemble::Subject;
use crate::ids::is_cni_mount;
use crate::scene::Scene;

/// Docker's containers in containerd (moby, `daemon/config`, `ContainerdNamespace`).
const DOCKER: [&str; 2] = ["moby", "plugins.moby"];

/// What others call the cgroup of a container: Docker, podman, CRI-O, LXC, systemd-nspawn.
const OTHERS: [(&str, &str); 6] = [
    ("docker", "Docker"),
    ("libpod", "podman"),
    ("crio", "CRI-O"),
    ("lxc", "LXC"),
    ("machine.slice", "systemd-nspawn or podman"),
    ("buildah", "buildah"),
];

/// Why a sandbox is not this tool's to judge, if it is not.
pub(crate) fn foreign(scene: &Scene<'_>, subject: &Subject<'_>) -> Option<String> {
    let traces = &subject.traces;
    if let Some(pid) = traces.outer {
        return Some(format!(
            "process {pid}, which started it, is in a pid namespace of its own: it is of a node in a container"
        ));
    }
    if let Some(shim) = traces
        .shims
        .iter()
        .find(|shim| !matches!(shim.keeper, Keeper::Containerd { .. }))
    {
        let of = match shim.keeper {
            Keeper::Crio => "CRI-O's",
            Keeper::Containerd { .. } | Keeper::Other => "podman's, or of another program that uses conmon",
        };
        return Some(format!("conmon (pid {}) watches over it: it is {of}", shim.pid));
    }
    if let Some(name) = traces.namespaces.iter().find(|name| DOCKER.contains(name)) {
        return Some(format!(
            "it is in containerd's namespace {name}: it is Docker's, which keeps its own records"
        ));
    }
    if let Some(bundle) = traces.bundles.iter().find(|bundle| bundle.namespace.is_none()) {
        return Some(format!(
            "its bundle lies in {}: it is CRI-O's or podman's",
            bundle.path.display()
        ));
    }
    let own = !traces.shims.is_empty()
        || !traces.bundles.is_empty()
        || !traces.runc_states.is_empty()
        || !traces.tasks.is_empty()
        || !traces.state_dirs.is_empty();
    if own || traces.processes.is_empty() {
        return None;
    }
    by_cgroup(scene, subject)
}

/// Of a process without a shim, a bundle and a task only its cgroup says who made it.
fn by_cgroup(scene: &Scene<'_>, subject: &Subject<'_>) -> Option<String> {
    let paths = subject
        .traces
        .processes
        .iter()
        .flat_map(|(process, _)| scene.cgroups_of(process.pid));
    let mut of_containerd = false;
    for path in paths {
        if let Some(name) = maker(path) {
            return Some(format!("its cgroup {} is of {name}", path.display()));
        }
        of_containerd |= is_of_kubernetes(path);
    }
    let netns = subject.sandbox.network.iter().flat_map(|network| &network.paths);
    of_containerd |= netns.into_iter().any(|path| is_cni_mount(path));
    (!of_containerd).then(|| "nothing of it says that a containerd made it".to_owned())
}

fn maker(path: &Path) -> Option<&'static str> {
    let mut parts = path.iter().rev().filter_map(|part| part.to_str());
    parts.find_map(|part| {
        let of = |name: &str| {
            part == name
                || part
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['-', '_', '.', ':']))
        };
        OTHERS.iter().find(|(name, _)| of(name)).map(|(_, maker)| *maker)
    })
}

/// kubelet's cgroups are named for its pods; containerd's own prefix in systemd is `cri-containerd`.
fn is_of_kubernetes(path: &Path) -> bool {
    let mut parts = path.iter().filter_map(|part| part.to_str());
    parts.any(|part| part.starts_with("kubepods") || part.contains("cri-containerd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_names_its_maker() {
        let id = "8f3a";
        for (path, wanted) in [
            (format!("/docker/{id}"), Some("Docker")),
            (format!("/system.slice/docker-{id}.scope"), Some("Docker")),
            (format!("/machine.slice/libpod-{id}.scope"), Some("podman")),
            (format!("/libpod_parent/libpod-{id}"), Some("podman")),
            (format!("/kubepods/burstable/pod1/crio-{id}"), Some("CRI-O")),
            (format!("/lxc.payload.web/{id}"), Some("LXC")),
            (format!("/kubepods/burstable/pod1/{id}"), None),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                None,
            ),
        ] {
            assert_eq!(maker(Path::new(&path)), wanted, "{path}");
        }
    }
}
