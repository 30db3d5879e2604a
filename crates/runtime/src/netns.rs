//! What stands at the paths of network namespaces.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Error, FileId, Host};
use nodemend_procns::NetnsId;

use crate::knowledge::{Answer, Known, Record};

/// NSFS_MAGIC (linux/magic.h).
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// What was found at each path, or why it could not be looked at.
pub(crate) type Found = HashMap<PathBuf, Result<Option<NetnsId>, String>>;

/// The paths in the answers, each once.
pub(crate) fn paths(answers: &[Answer]) -> HashSet<PathBuf> {
    let records = answers.iter().flat_map(|answer| match &answer.known {
        Known::Records(records) => records.as_slice(),
        Known::Unknown(_) | Known::Doubted(_) | Known::NotOffered(_) => &[],
    });
    records
        .filter_map(|record| Some(record.netns.as_ref()?.path.clone()))
        .collect()
}

/// Looks at each path, following links.
pub(crate) fn look(host: &Host, paths: HashSet<PathBuf>) -> Found {
    paths
        .into_iter()
        .map(|path| (path.clone(), at(host, &path)))
        .collect()
}

/// The namespace at a path; none if nothing is there, or something else. Opening is what tells: stat(2) does not say
/// which kind of file system it is.
fn at(host: &Host, path: &Path) -> Result<Option<NetnsId>, String> {
    let fd = match host.open(path) {
        Ok(fd) => fd,
        Err(error) if is_no_namespace(&error) || path.starts_with("/proc") => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let kind = rustix::fs::fstatfs(&fd).map_err(|errno| failed(errno.into()))?;
    if kind.f_type != NSFS_MAGIC {
        return Ok(None);
    }
    FileId::of(&fd).map(Some).map_err(failed)
}

/// ENXIO is what opening a socket gives.
fn is_no_namespace(error: &Error) -> bool {
    use rustix::io::Errno;
    let told = |source: &std::io::Error| {
        let errno = Errno::from_io_error(source);
        matches!(
            errno,
            Some(Errno::NOTDIR | Errno::NXIO | Errno::NODEV | Errno::LOOP | Errno::NAMETOOLONG)
        )
    };
    error.is_not_found() || matches!(error, Error::Io { source, .. } if told(source))
}

/// Enters what was found. An answer with a path that could not be looked at is none: the namespace behind it may be
/// any.
pub(crate) fn enter(answers: &mut [Answer], found: &Result<Found, String>) {
    for answer in answers {
        let Known::Records(records) = &mut answer.known else {
            continue;
        };
        if let Err(reason) = records.iter_mut().try_for_each(|record| enter_one(record, found)) {
            answer.known = Known::Unknown(format!(
                "the path of a network namespace cannot be looked up: {reason}"
            ));
        }
    }
}

fn enter_one(record: &mut Record, found: &Result<Found, String>) -> Result<(), String> {
    let Some(netns) = &mut record.netns else {
        return Ok(());
    };
    let found = found.as_ref().map_err(Clone::clone)?;
    netns.id = found.get(&netns.path).cloned().unwrap_or(Ok(None))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> Option<NetnsId> {
        at(&Host::local(), Path::new(path)).unwrap()
    }

    #[test]
    fn only_a_namespace_has_an_identity() {
        let own = id("/proc/self/ns/net").unwrap();
        assert_eq!(own.ino, rustix::fs::stat("/proc/self/ns/net").unwrap().st_ino);
        assert_eq!(id("/proc/1/no/such"), None);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cni-1");
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            id(file.to_str().unwrap()),
            None,
            "unmounted, and the file was left"
        );
        assert_eq!(id(file.join("below").to_str().unwrap()), None);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
        assert_eq!(id(link.to_str().unwrap()), Some(own));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(id(socket.to_str().unwrap()), None);
    }
}
