//! Where kubelet's root is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;
use nodemend_procns::Census;

use super::error::LayoutError;

/// kubelet's root unless it is told otherwise (`cmd/kubelet/app/options/options.go`).
pub const DEFAULT_KUBELET_ROOT: &str = "/var/lib/kubelet";

/// Where the root is said to be, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRoot {
    /// The path, as it was said.
    pub path: PathBuf,
    /// `--kubelet-root`, `kubelet (pid 812) --root-dir`, `the default`.
    pub known_by: String,
}

/// Where kubelet's root is: as given, else as the running kubelet has it on its command line, else the default. (The file that
/// `--config` names cannot say it: `KubeletConfiguration` has no such field.)
///
/// # Errors
/// [`LayoutError::TwoRoots`] if two running kubelets disagree; [`LayoutError::Relative`]; and if a command line of a kubelet
/// cannot be read.
pub fn find_root(host: &Host, census: &Census, given: Option<&Path>) -> Result<FoundRoot, LayoutError> {
    let found = match given {
        Some(path) => FoundRoot {
            path: path.to_owned(),
            known_by: "--kubelet-root".to_owned(),
        },
        None if host.is_running() => agreed(&running(host, census)?)?,
        None => agreed(&[])?,
    };
    if found.path.is_absolute() {
        Ok(found)
    } else {
        let FoundRoot { path, known_by } = found;
        Err(LayoutError::Relative { path, known_by })
    }
}

/// A running kubelet, with its `--root-dir`.
type Kubelet = (u32, Option<PathBuf>);

fn running(host: &Host, census: &Census) -> Result<Vec<Kubelet>, LayoutError> {
    let kubelets = census
        .processes
        .iter()
        .filter(|process| process.comm == "kubelet");
    let mut roots = Vec::new();
    for process in kubelets {
        let words = nodemend_procns::cmdline(host, process.pid)?;
        // A zombie, or it has ended meanwhile.
        if !words.is_empty() {
            roots.push((process.pid, root_dir(&words)));
        }
    }
    Ok(roots)
}

fn agreed(kubelets: &[Kubelet]) -> Result<FoundRoot, LayoutError> {
    let root = |kubelet: &Kubelet| {
        kubelet
            .1
            .clone()
            .unwrap_or_else(|| PathBuf::from(DEFAULT_KUBELET_ROOT))
    };
    let Some(first) = kubelets.first() else {
        return Ok(FoundRoot {
            path: DEFAULT_KUBELET_ROOT.into(),
            known_by: "the default".to_owned(),
        });
    };
    // By components: a slash at the end makes no other path.
    if let Some(other) = kubelets.iter().find(|kubelet| root(kubelet) != root(first)) {
        return Err(LayoutError::TwoRoots {
            one: root(first),
            one_pid: first.0,
            other: root(other),
            other_pid: other.0,
        });
    }
    let known_by = match first {
        (pid, Some(_)) => format!("kubelet (pid {pid}) --root-dir"),
        (pid, None) => format!("the default, as kubelet (pid {pid}) has no --root-dir"),
    };
    Ok(FoundRoot {
        path: root(first),
        known_by,
    })
}

/// The last `--root-dir`, as `pflag` takes it: with a space or with `=`.
fn root_dir(words: &[OsString]) -> Option<PathBuf> {
    let mut found = None;
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.as_bytes();
        if word == b"--" {
            break;
        } else if word == b"--root-dir" {
            found = words.next().map(PathBuf::from).or(found);
        } else if let Some(value) = word.strip_prefix(b"--root-dir=") {
            found = Some(PathBuf::from(OsStr::from_bytes(value)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn of(line: &str) -> Option<PathBuf> {
        root_dir(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn t18_a_custom_root_is_taken_from_either_spelling_of_the_flag() {
        assert_eq!(
            of("kubelet --root-dir /data/kubelet --v=2"),
            Some("/data/kubelet".into())
        );
        assert_eq!(
            of("kubelet --root-dir=/data/kubelet"),
            Some("/data/kubelet".into())
        );
        assert_eq!(
            of("kubelet --root-dir=/a --root-dir /b"),
            Some("/b".into()),
            "the last one counts"
        );
        assert_eq!(of("kubelet --config=/etc/k.yaml --root-directory=/a"), None);
        assert_eq!(of("kubelet -- --root-dir=/a"), None);
        assert_eq!(of("kubelet --root-dir"), None);
    }

    #[test]
    fn two_kubelets_that_disagree_are_refused_and_two_that_agree_are_not() {
        let at = |pid, path: Option<&str>| (pid, path.map(PathBuf::from));
        let agree = [at(7, Some("/var/lib/kubelet/")), at(9, None)];
        assert_eq!(agreed(&agree).unwrap().path, Path::new(DEFAULT_KUBELET_ROOT));
        let error = agreed(&[at(7, Some("/data")), at(9, None)]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/data (pid 7)") && text.contains("(pid 9)"),
            "{text}"
        );
        assert_eq!(agreed(&[]).unwrap().known_by, "the default");
    }

    #[test]
    fn a_relative_root_is_refused() {
        let none = Census::default();
        let error = find_root(&Host::local(), &none, Some(Path::new("kubelet"))).unwrap_err();
        assert!(matches!(error, LayoutError::Relative { .. }), "{error}");
    }
}
