//! Names that say what a thing is.

use std::path::{Path, PathBuf};

/// True for the ids that the CRI gives: 64 hex digits. People's own ids are shorter.
pub(crate) fn is_long(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What the path of one of containerd's directories says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// containerd's state directory.
    pub(crate) state: &'a Path,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) id: &'a str,
}

impl<'a> Place<'a> {
    /// Of `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/…` (core/runtime/v2/bundle.go), and of
    /// `<state>/io.containerd.grpc.v1.cri/sandboxes/<id>/…` (internal/cri/server, `getVolatileSandboxDir`).
    pub(crate) fn of(path: &'a Path) -> Option<Self> {
        for dir in path.ancestors() {
            let state = dir.parent()?;
            let below = || path.strip_prefix(dir).ok()?.to_str();
            match dir.file_name()?.to_str()? {
                "io.containerd.runtime.v2.task" | "io.containerd.runtime.v1.linux" => {
                    let mut parts = below()?.split('/');
                    let (namespace, id) = (Some(parts.next()?), parts.next()?);
                    return Some(Self { state, namespace, id });
                }
                "io.containerd.grpc.v1.cri" => {
                    let mut parts = below()?.split('/');
                    let id = parts
                        .next()
                        .filter(|kind| *kind == "sandboxes")
                        .and(parts.next())?;
                    let namespace = Some("k8s.io");
                    return is_long(id).then_some(Self { state, namespace, id });
                }
                _ => {}
            }
        }
        None
    }
}

/// True for the name that containerd's CRI plugin gives to a namespace: `/run/netns/cni-<uuid>` (pkg/netns/netns_linux.go;
/// podman before 4.0 gave the same).
pub(crate) fn is_cni_mount(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let in_netns = path.parent().is_some_and(|dir| dir.ends_with("netns"));
    in_netns && name.strip_prefix("cni-").is_some_and(is_uuid)
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let digits = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    digits && lengths.eq([8, 4, 4, 4, 12])
}

/// The pod's UID in a cgroup's path: `pod<uid>`, or `…-pod<uid>.slice` with `_` for `-` (kubelet,
/// pkg/kubelet/cm/cgroup_manager_linux.go). A static pod's is a hash without dashes.
pub(crate) fn pod_of_cgroup(path: &Path) -> Option<String> {
    let uid_of = |part: &std::ffi::OsStr| {
        let name = part.to_str()?;
        let name = name.split(':').next()?;
        let name = name.strip_suffix(".slice").unwrap_or(name);
        let uid = name.rsplit_once("pod")?.1.replace('_', "-");
        let is_hash = uid.len() == 32 && uid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_hash || is_uuid(&uid)).then_some(uid)
    };
    path.iter().find_map(uid_of)
}

/// /var/run is a link to /run; runtimes write either.
pub(crate) fn in_run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}

pub(crate) fn same_path(a: &Path, b: &Path) -> bool {
    a == b || in_run(a) == in_run(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_s_paths_name_the_container() {
        let of = |path: &'static str| Place::of(Path::new(path));
        let place = of("/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/8f3a/rootfs").unwrap();
        assert_eq!(
            (place.state, place.namespace, place.id),
            (Path::new("/run/k3s/containerd"), Some("k8s.io"), "8f3a")
        );
        let id = "a".repeat(64);
        let shm = PathBuf::from(format!(
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{id}/shm"
        ));
        assert_eq!(Place::of(&shm).unwrap().id, id);
        for other in [
            "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/x/shm",
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io",
            "/",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn only_containerd_s_form_of_a_namespace_is_a_sandbox_s() {
        assert!(is_cni_mount(Path::new(
            "/run/netns/cni-70988231-108f-dcda-bbdf-bc1ee609dc48"
        )));
        for other in [
            "/run/netns/probe",
            "/run/netns/cni-1",
            "/run/docker/netns/0123456789ab",
            "/tmp/cni-70988231-108f-dcda-bbdf-bc1ee609dc48",
        ] {
            assert!(!is_cni_mount(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn a_pod_is_found_in_both_spellings_of_its_cgroup() {
        let uid = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
        for path in [
            format!("/kubepods/burstable/pod{uid}/8f3a"),
            format!(
                "/kubepods.slice/kubepods-pod{}.slice/x.scope",
                uid.replace('-', "_")
            ),
            format!(
                "/system.slice/kubepods-pod{}.slice:cri-containerd:8f3a",
                uid.replace('-', "_")
            ),
        ] {
            assert_eq!(pod_of_cgroup(Path::new(&path)).as_deref(), Some(uid), "{path}");
        }
        assert_eq!(pod_of_cgroup(Path::new("/system.slice/podman.service")), None);
    }
}
