//! Where kubelet's root is.

use std::path::{Path, PathBuf};

use nodemend_hostfs::pool::PATIENCE;
use nodemend_hostfs::{FileId, Host};
use nodemend_procns::Census;

use super::error::LayoutError;
use super::root::answered;
use crate::embedded;

/// kubelet's root unless it is told otherwise (`cmd/kubelet/app/options/options.go`).
pub const DEFAULT_KUBELET_ROOT: &str = "/var/lib/kubelet";

/// Where the root is said to be, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRoot {
    /// The path, as it was said.
    pub path: PathBuf,
    /// `--kubelet-root`, `kubelet (pid 812) --root-dir`, `kubelite (pid 812) --root-dir`, `the default`.
    pub known_by: String,
}

/// Where kubelet's root usually is, with whose place that is.
const USUAL: [(&str, &str); 3] = [
    (DEFAULT_KUBELET_ROOT, "the default"),
    (
        "/var/lib/k0s/kubelet",
        "the usual place of k0s, as no kubelet runs",
    ),
    (
        "/var/snap/microk8s/common/var/lib/kubelet",
        "the usual place of MicroK8s, as no kubelet runs",
    ),
];

/// Where kubelet's root is: as given, else as the running kubelet has it among its arguments, else where it usually is. (The
/// file that `--config` names cannot say it: `KubeletConfiguration` has no such field.)
///
/// kubelet may be a part of another program: of `kubelite` in MicroK8s, of k3s.
///
/// # Errors
/// [`LayoutError::TwoRoots`] if two running kubelets disagree; [`LayoutError::SeveralRoots`] if none runs, and several places
/// are one; [`LayoutError::Arguments`]; [`LayoutError::Relative`].
pub fn find_root(host: &Host, census: &Census, given: Option<&Path>) -> Result<FoundRoot, LayoutError> {
    let found = match given {
        Some(path) => FoundRoot {
            path: path.to_owned(),
            known_by: "--kubelet-root".to_owned(),
        },
        None => {
            let running = match host.is_running() {
                true => running(host, census)?,
                false => Vec::new(),
            };
            match agreed(&running)? {
                Some(found) => found,
                None => usual(host)?,
            }
        }
    };
    if found.path.is_absolute() {
        Ok(found)
    } else {
        let FoundRoot { path, known_by } = found;
        Err(LayoutError::Relative { path, known_by })
    }
}

/// A running kubelet, with its `--root-dir`.
#[derive(Clone, Debug)]
struct Kubelet {
    pid: u32,
    comm: String,
    root: Option<PathBuf>,
}

impl Kubelet {
    fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or(Path::new(DEFAULT_KUBELET_ROOT))
    }

    fn known_by(&self) -> String {
        let Self { pid, comm, root } = self;
        match root {
            Some(_) => format!("{comm} (pid {pid}) --root-dir"),
            None if embedded::hides_arguments(comm) => format!(
                "the default, as the configuration of {comm} (pid {pid}) has no root-dir; if its command line has, \
                 which it hides, give it by --kubelet-root"
            ),
            None => format!("the default, as {comm} (pid {pid}) has no --root-dir"),
        }
    }
}

/// A process of a pod's own network is no kubelet of this node, whatever it is called.
fn running(host: &Host, census: &Census) -> Result<Vec<Kubelet>, LayoutError> {
    let kubelets = census.processes.iter().filter(|process| {
        embedded::may_be_kubelet(&process.comm) && process.netns.is_none_or(|netns| netns == census.host)
    });
    let mut running = Vec::new();
    for process in kubelets {
        let (pid, comm) = (process.pid, process.comm.clone());
        let words = embedded::arguments(host, pid, &comm).map_err(|reason| LayoutError::Arguments {
            pid,
            comm: comm.clone(),
            reason,
        })?;
        if let Some(words) = words {
            let root = embedded::flag(&words, "root-dir").map(PathBuf::from);
            running.push(Kubelet { pid, comm, root });
        }
    }
    Ok(running)
}

/// The root of all of these. None if there is none.
fn agreed(kubelets: &[Kubelet]) -> Result<Option<FoundRoot>, LayoutError> {
    let Some(first) = kubelets.first() else {
        return Ok(None);
    };
    // By components: a slash at the end makes no other path.
    if let Some(other) = kubelets.iter().find(|kubelet| kubelet.root() != first.root()) {
        return Err(LayoutError::TwoRoots {
            one: first.root().to_owned(),
            one_pid: first.pid,
            other: other.root().to_owned(),
            other_pid: other.pid,
        });
    }
    Ok(Some(FoundRoot {
        path: first.root().to_owned(),
        known_by: first.known_by(),
    }))
}

/// The one place of the usual ones that has pod directories; the default if none has. Two names of one directory are one.
fn usual(host: &Host) -> Result<FoundRoot, LayoutError> {
    let host = host.clone();
    let look = move || {
        let id = |path: &str| FileId::of(host.open_dir(&Path::new(path).join("pods")).ok()?).ok();
        USUAL.map(|(path, _)| id(path))
    };
    let path = Path::new(DEFAULT_KUBELET_ROOT);
    let silent = || LayoutError::Silent {
        path: path.to_owned(),
        seconds: PATIENCE,
    };
    let ids = answered(look)?.ok_or_else(silent)?;
    let mut there: Vec<(usize, FileId)> = Vec::new();
    for (at, id) in ids.into_iter().enumerate() {
        if let Some(id) = id.filter(|id| there.iter().all(|(_, known)| known != id)) {
            there.push((at, id));
        }
    }
    let place = |at: usize| USUAL.get(at).copied().unwrap_or(USUAL[0]);
    match there[..] {
        [] => Ok(0),
        [(at, _)] => Ok(at),
        _ => Err(LayoutError::SeveralRoots {
            roots: there.iter().map(|(at, _)| place(*at).0.into()).collect(),
        }),
    }
    .map(|at| {
        let (path, known_by) = place(at);
        FoundRoot {
            path: path.into(),
            known_by: known_by.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn at(pid: u32, comm: &str, root: Option<&str>) -> Kubelet {
        Kubelet {
            pid,
            comm: comm.to_owned(),
            root: root.map(PathBuf::from),
        }
    }

    #[test]
    fn two_kubelets_that_disagree_are_refused_and_two_that_agree_are_not() {
        let agree = [
            at(7, "kubelet", Some("/var/lib/kubelet/")),
            at(9, "kubelet", None),
        ];
        assert_eq!(
            agreed(&agree).unwrap().unwrap().path,
            Path::new(DEFAULT_KUBELET_ROOT)
        );
        let error = agreed(&[at(7, "kubelet", Some("/data")), at(9, "kubelite", None)]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/data (pid 7)") && text.contains("(pid 9)"),
            "{text}"
        );
        assert_eq!(agreed(&[]).unwrap(), None);
    }

    #[test]
    fn it_is_said_who_says_it() {
        for (kubelet, said) in [
            (at(7, "kubelet", Some("/data")), "kubelet (pid 7) --root-dir"),
            (
                at(7, "kubelet", None),
                "the default, as kubelet (pid 7) has no --root-dir",
            ),
            (at(7, "kubelite", Some("/data")), "kubelite (pid 7) --root-dir"),
        ] {
            assert_eq!(agreed(&[kubelet]).unwrap().unwrap().known_by, said);
        }
        let hidden = agreed(&[at(7, "k3s-server", None)]).unwrap().unwrap();
        assert!(
            hidden.known_by.contains("give it by --kubelet-root"),
            "{hidden:?}"
        );
    }

    #[test]
    fn t18_without_a_kubelet_the_one_usual_place_with_pods_is_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        let found = || find_root(&host, &Census::default(), None);
        assert_eq!(found().unwrap().known_by, "the default", "there is none at all");
        let microk8s = "var/snap/microk8s/common/var/lib/kubelet";
        std::fs::create_dir_all(dir.path().join(microk8s).join("pods")).unwrap();
        assert_eq!(found().unwrap().path, Path::new("/").join(microk8s));
        // As MicroK8s makes it, for drivers that know one place only.
        std::fs::create_dir_all(dir.path().join("var/lib")).unwrap();
        std::os::unix::fs::symlink(format!("/{microk8s}"), dir.path().join("var/lib/kubelet")).unwrap();
        assert_eq!(found().unwrap().path, Path::new(DEFAULT_KUBELET_ROOT));
        std::fs::create_dir_all(dir.path().join("var/lib/k0s/kubelet/pods")).unwrap();
        let error = found().unwrap_err().to_string();
        assert!(
            error.contains("/var/lib/k0s/kubelet") && error.contains("--kubelet-root"),
            "{error}"
        );
    }

    #[test]
    fn a_relative_root_is_refused() {
        let none = Census::default();
        let error = find_root(&Host::local(), &none, Some(Path::new("kubelet"))).unwrap_err();
        assert!(matches!(error, LayoutError::Relative { .. }), "{error}");
    }
}
