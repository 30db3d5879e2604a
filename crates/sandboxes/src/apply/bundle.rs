//! The bundle directory of a container, and its work directory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use nodemend_rmtree::{Options, Tree, Urgency, remove};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::Bundle;

/// The plugins of containerd that keep bundles, by the names of their directories below its state and its root. The second
/// is that of shims of version 1, up to containerd 1.7.
const RUNTIMES: [&str; 2] = ["io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"];

/// The most of a file in a bundle that is read, in bytes.
const LIMIT: usize = 1 << 16;

/// A bundle that is held open.
pub(crate) struct Held<'a> {
    bundle: &'a Bundle,
    path: PathBuf,
    pub(crate) dir: OwnedFd,
}

impl<'a> Held<'a> {
    /// Opens a bundle. None if it is gone, or if another directory has its name.
    pub(crate) fn open(bundle: &'a Bundle) -> Result<Option<Self>, Error> {
        let Some(path) = real(&bundle.path) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::io("open", &path)(errno)),
        };
        let id = FileId::of(&dir).map_err(Error::io("stat", &path))?;
        Ok((id == bundle.dir).then_some(Self { bundle, path, dir }))
    }

    /// The container.
    pub(crate) fn container(&self) -> &'a str {
        &self.bundle.container
    }

    /// Where it is, without symlinks.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A short file in it that containerd wrote. None if it is not there, or is not a regular file.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return None;
        }
        let mut bytes = vec![0; LIMIT];
        let length = rustix::io::read(&file, &mut bytes[..]).ok()?;
        bytes.truncate(length);
        Some(String::from_utf8(bytes).ok()?.trim().to_owned())
    }

    /// The work directory, `<root>/<runtime>/<namespace>/<id>`, if the link `work` names one of that form for this
    /// container.
    pub(crate) fn work(&self) -> Option<PathBuf> {
        let target = rustix::fs::readlinkat(&self.dir, "work", Vec::new()).ok()?;
        let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
        is_work_of(&target, &self.path).then_some(target)
    }
}

/// True if a work directory has the runtime, the namespace and the id of a bundle.
fn is_work_of(work: &Path, bundle: &Path) -> bool {
    let plain = |path: &Path| {
        let parts = path.components();
        path.is_absolute() && parts.into_iter().all(|part| part.as_os_str() != OsStr::new(".."))
    };
    let tail = |path: &Path| -> Vec<_> { path.iter().rev().take(3).map(OsStr::to_owned).collect() };
    let of_runtime = tail(work)
        .get(2)
        .is_some_and(|name| RUNTIMES.iter().any(|known| name == known));
    plain(work) && of_runtime && tail(work) == tail(bundle)
}

/// The path with its directory resolved: a state directory may be a symlink, as /var/run is. None if it is not there. What
/// it leads to is compared by its identity.
pub(crate) fn real(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

/// Removes a bundle that nobody uses any more.
pub(crate) fn remove_bundle(bundle: &Bundle, steps: Steps<'_, '_>) -> Result<bool, Error> {
    let Some(path) = real(&bundle.path) else {
        return Ok(false);
    };
    remove_tree(&path, Some(bundle.dir), steps)
}

/// Removes a work directory. False if there is none.
pub(crate) fn remove_work(path: &Path, steps: Steps<'_, '_>) -> Result<bool, Error> {
    match real(path) {
        Some(path) => remove_tree(&path, None, steps),
        None => Ok(false),
    }
}

/// Removes a directory with all that is in it, but for what is mounted. False if it was gone before. A containerd that runs
/// removes bundles too, so that it may vanish meanwhile.
pub(crate) fn remove_tree(path: &Path, dir: Option<FileId>, steps: Steps<'_, '_>) -> Result<bool, Error> {
    let tree = match Tree::open(path) {
        Ok(tree) => tree,
        Err(nodemend_rmtree::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    if dir.is_some_and(|dir| dir != tree.id()) {
        return Err(Error::not_the_same(path, "another directory has this name now"));
    }
    steps.write(Step::RemoveDirectory { path, dir: tree.id() })?;
    let options = Options {
        urgency: Urgency::Urgent,
        threads: std::num::NonZero::new(1),
        ..Options::default()
    };
    let report = remove(tree, &options, &mut ());
    if report.gone() || is_gone(path) {
        return Ok(true);
    }
    let first = report.problems.first().map(ToString::to_string);
    Err(Error::Left {
        path: path.to_owned(),
        reason: first.unwrap_or_else(|| "something in it could not be removed".to_owned()),
    })
}

fn is_gone(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_directory_has_the_tail_of_its_bundle() {
        let bundle = Path::new("/run/containerd/io.containerd.runtime.v2.task/k8s.io/8f3a");
        let root = "/var/lib/containerd/io.containerd.runtime.v2.task";
        assert!(is_work_of(Path::new(&format!("{root}/k8s.io/8f3a")), bundle));
        for other in [
            format!("{root}/k8s.io/9c"),
            format!("{root}/default/8f3a"),
            format!("{root}/../io.containerd.runtime.v2.task/k8s.io/8f3a"),
            "/home/k8s.io/8f3a".to_owned(),
            "io.containerd.runtime.v2.task/k8s.io/8f3a".to_owned(),
        ] {
            assert!(!is_work_of(Path::new(&other), bundle), "{other}");
        }
    }
}
