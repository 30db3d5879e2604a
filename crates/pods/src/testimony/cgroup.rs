//! The pod that a process belongs to by its cgroups.

use crate::uid::Uid;

/// The pod whose UID stands in a line of `/proc/PID/cgroup`, in either spelling: `…/pod<uid>` of the cgroupfs driver,
/// `…-pod<uid>.slice` of the systemd driver, which writes `_` for `-`
/// (`pkg/kubelet/cm/cgroup_manager_linux.go`). Whatever stands before: kubelet's `cgroupRoot` can be anything.
pub(crate) fn pod(cgroup: &[u8]) -> Option<Uid> {
    let text = String::from_utf8_lossy(cgroup);
    text.split(['/', '\n', ':']).find_map(level)
}

fn level(name: &str) -> Option<Uid> {
    // The kernel adds this to the path of a cgroup that was removed.
    let name = name.trim_end_matches(" (deleted)");
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let (_, uid) = name.rsplit_once("pod")?;
    uid.replace('_', "-").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

    #[test]
    fn a_pod_is_found_in_both_spellings_and_below_any_root() {
        let slice = UID.replace('-', "_");
        for path in [
            format!("0::/kubepods/burstable/pod{UID}/8f3a\n"),
            format!("0::/kubepods/pod{UID}\n"),
            format!("11:memory:/a/b/kubepods/besteffort/pod{UID}/8f3a\n1:name=systemd:/\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-8f.scope"
            ),
            format!("0::/my.slice/my-kubepods.slice/my-kubepods-pod{slice}.slice"),
            format!("1:name=systemd:/system.slice/kubepods-pod{slice}.slice:cri-containerd:8f3a"),
            format!("0::/kubepods/pod{UID} (deleted)\n"),
        ] {
            assert_eq!(
                pod(path.as_bytes()).map(|uid| uid.to_string()).as_deref(),
                Some(UID),
                "{path}"
            );
        }
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        let path = format!("0::/kubepods/burstable/pod{hash}/8f3a\n");
        assert_eq!(
            pod(path.as_bytes()).map(|uid| uid.to_string()).as_deref(),
            Some(hash)
        );
    }

    #[test]
    fn what_only_looks_like_a_pod_is_none() {
        for path in [
            "0::/user.slice/user-0.slice",
            "0::/kubepods.slice/kubepods-burstable.slice",
            "0::/system.slice/podman.service",
            "0::/kubepods/pod0c9a8c4e",
        ] {
            assert_eq!(pod(path.as_bytes()), None, "{path}");
        }
    }
}
