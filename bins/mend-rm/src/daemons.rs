//! How the directories of the daemons that run stand to a tree.

use std::path::Path;

use nodemend_hostfs::FileId;
use nodemend_runtime::daemons::{self, Daemon, Home};
use rustix::io::Errno;

use crate::deadline::answered;
use crate::overlays::below_root;
use crate::position::{lies_in, open_path};
use crate::processes::Process;

/// How the home of a daemon stands to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the tree, or lies in it.
    Inside,
    /// The tree lies in it.
    Around,
    /// Neither.
    Apart,
    /// It cannot be told.
    Unknown(String),
}

/// The daemon that a process is, with where it lives.
pub(crate) fn recognize(process: &Process) -> Option<Daemon> {
    daemons::recognize(process.pid, &process.name, process.program.as_deref())
}

/// How a daemon's directory stands to a tree: by what the directories are, as names may be links.
pub(crate) fn standing(daemon: &Daemon, home: &Home, tree: &Path, id: FileId) -> Standing {
    // An answer is worth something only for a path that the daemon resolves the same way.
    if !home.path.is_absolute() {
        return Standing::Unknown("it is given relative to where the daemon was started".to_owned());
    }
    let (path, tree) = (below_root(daemon.pid, &home.path), tree.to_owned());
    answered(move || by_identity(&path, &tree, id))
        .unwrap_or_else(|| Standing::Unknown("its file system does not answer".to_owned()))
}

fn by_identity(home: &Path, tree: &Path, id: FileId) -> Standing {
    let unknown = |errno: Errno| Standing::Unknown(errno.to_string());
    let dir = match open_path(home) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Standing::Apart,
        Err(errno) => return unknown(errno),
    };
    match lies_in(&dir, id) {
        Ok(true) => return Standing::Inside,
        Ok(false) => {}
        Err(errno) => return unknown(errno),
    }
    let around = FileId::of(&dir)
        .ok()
        .zip(open_path(tree).ok())
        .is_some_and(|(home, tree)| lies_in(tree, home).unwrap_or(false));
    if around { Standing::Around } else { Standing::Apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_a_daemon_is_compared_by_what_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        std::fs::create_dir_all(at("data/containerd/snapshots")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::os::unix::fs::symlink(at("data/containerd"), at("link")).unwrap();
        let stand = |home: &str, tree: &str| {
            let id = FileId::of(open_path(&at(tree)).unwrap()).unwrap();
            by_identity(&at(home), &at(tree), id)
        };
        assert_eq!(stand("link", "data/containerd"), Standing::Inside);
        assert_eq!(stand("link", "data"), Standing::Inside);
        assert_eq!(stand("link", "data/containerd/snapshots"), Standing::Around);
        assert_eq!(stand("link", "other"), Standing::Apart);
        assert_eq!(stand("missing", "data"), Standing::Apart);
    }
}
