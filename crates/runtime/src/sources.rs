//! The names of the sources, and which of them hold a runtime's own records.

use std::path::Path;

use nodemend_evidence::Source;

pub(crate) const SHIM_PROCESSES: &str = "shim processes";
pub(crate) const SHIM_BUNDLES: &str = "shim bundles";
pub(crate) const CGROUP_IDS: &str = "container ids in cgroups";

/// What is asked of containerd's own API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Containers,
    Tasks,
    Sandboxes,
}

impl Asked {
    pub(crate) const ALL: [Self; 3] = [Self::Containers, Self::Tasks, Self::Sandboxes];

    fn word(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Tasks => "tasks",
            Self::Sandboxes => "sandboxes",
        }
    }
}

/// The CRI as such, where no endpoint was found.
pub(crate) fn no_cri() -> Source {
    Source::new("cri")
}

pub(crate) fn cri(address: &str) -> Source {
    Source::new(format!("cri {}", place(address)))
}

pub(crate) fn containerd(address: &str, asked: Asked) -> Source {
    Source::new(format!("containerd {} {}", place(address), asked.word()))
}

/// The socket that a source of a runtime was asked at. None for all others.
pub(crate) fn socket(source: &Source) -> Option<&Path> {
    let name = source.name();
    let asked = || {
        let (socket, word) = name.strip_prefix("containerd ")?.rsplit_once(' ')?;
        Asked::ALL
            .iter()
            .any(|asked| asked.word() == word)
            .then_some(socket)
    };
    name.strip_prefix("cri ").or_else(asked).map(Path::new)
}

/// True for the sources that only containerd has.
pub(crate) fn is_of_containerd(source: &Source) -> bool {
    source.name().starts_with("containerd ") && socket(source).is_some()
}

/// A socket is told by its path alone.
fn place(address: &str) -> &str {
    address.strip_prefix("unix://").unwrap_or(address)
}

/// True for what a runtime wrote down, false for what merely still runs or lies about.
pub(crate) fn is_record(source: &Source) -> bool {
    let name = source.name();
    let of_containerd = || {
        let asked = name
            .strip_prefix("containerd ")
            .and_then(|rest| rest.rsplit_once(' '));
        asked.is_some_and(|(_, word)| word == Asked::Containers.word() || word == Asked::Sandboxes.word())
    };
    name == "cri" || name.starts_with("cri ") || of_containerd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_a_runtime_names_its_socket() {
        let path = "/run/my dir/c.sock";
        for source in [cri(path), containerd(path, Asked::Tasks)] {
            assert_eq!(socket(&source), Some(Path::new(path)), "{source}");
        }
        assert!(is_of_containerd(&containerd(path, Asked::Containers)));
        assert!(!is_of_containerd(&cri(path)));
        assert_eq!(socket(&no_cri()), None);
        assert_eq!(socket(&Source::new(SHIM_BUNDLES)), None);
    }

    #[test]
    fn only_what_a_runtime_wrote_down_is_a_record() {
        let address = "unix:///run/containerd/containerd.sock";
        assert!(is_record(&no_cri()));
        assert!(is_record(&cri(address)));
        assert!(is_record(&containerd(address, Asked::Containers)));
        assert!(is_record(&containerd(address, Asked::Sandboxes)));
        assert!(!is_record(&containerd(address, Asked::Tasks)));
        for name in [
            SHIM_PROCESSES,
            SHIM_BUNDLES,
            CGROUP_IDS,
            "criminal",
            "containerd containers",
        ] {
            assert!(!is_record(&Source::new(name)), "{name}");
        }
    }
}
