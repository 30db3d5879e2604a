//! kubelet's root: resolved once, judged by the mount table, then opened and held.

use std::ffi::{CStr, CString};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nodemend_hostfs::descent::{Descent, MountId, mount_id, reopened};
use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_hostfs::pool::{self, PATIENCE};
use nodemend_hostfs::{FileId, Host};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};

use super::content::is_dots;
use super::error::LayoutError;
use super::find::FoundRoot;
use super::tie::{Place, is_remote};

/// kubelet's root, open.
#[derive(Debug)]
pub(crate) struct Root {
    /// Without symlinks.
    pub(crate) path: PathBuf,
    pub(crate) id: FileId,
    pub(crate) pods: OwnedFd,
    pub(crate) descent: Descent,
    /// The id of the mount that `pods` lies on.
    pub(crate) mount: u64,
    /// Where both are on their file systems. None for a tree on a disk.
    pub(crate) places: Option<(Place, Place)>,
    /// What lies in `pods`, sorted by name.
    pub(crate) entries: Vec<(CString, FileType)>,
}

/// The root, or why it is left alone.
pub(crate) type Opened = Result<Root, (PathBuf, String)>;

impl Root {
    /// Opens the root. It is held by its descriptor from then on, whatever is renamed.
    pub(crate) fn open(host: &Host, found: &FoundRoot) -> Result<Opened, LayoutError> {
        let (host, said) = (host.clone(), found.clone());
        let silent = || LayoutError::Silent {
            path: found.path.clone(),
            seconds: PATIENCE,
        };
        answered(move || open(&host, &said))?.ok_or_else(silent)?
    }
}

/// The answer of work that may never end; None if it does not.
pub(crate) fn answered<A: Send + 'static>(
    work: impl Fn() -> A + Send + Sync + 'static,
) -> Result<Option<A>, LayoutError> {
    let done = pool::run(vec![()], Box::new(move |(), _, answer| answer(work())));
    Ok(done.map_err(LayoutError::Thread)?.answers.into_iter().next())
}

fn open(host: &Host, found: &FoundRoot) -> Result<Opened, LayoutError> {
    let said = &found.path;
    let opened = if host.is_running() {
        // `O_PATH` asks nothing of what is mounted there.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, said, flags, Mode::empty()).map_err(LayoutError::io("open", said))
    } else {
        host.open_dir(said).map_err(LayoutError::from)
    };
    let dir = match opened {
        Err(
            LayoutError::Io { source, .. } | LayoutError::Host(nodemend_hostfs::Error::Io { source, .. }),
        ) if source.kind() == std::io::ErrorKind::NotFound => {
            let (path, known_by) = (said.clone(), found.known_by.clone());
            return Err(LayoutError::NoRoot { path, known_by });
        }
        opened => opened?,
    };
    let path = if host.is_running() {
        real_path(&dir)?
    } else {
        said.clone()
    };
    let place_of = |dir: &OwnedFd, path: &Path| match host.is_running() {
        true => place(dir, path).map(|place| place.map(Some)),
        false => Ok(Ok(None)),
    };
    // Before anything is looked up in it.
    let place = match place_of(&dir, &path)? {
        Ok(place) => place,
        Err(reason) => return Ok(Err((path, reason))),
    };
    let pods_path = path.join("pods");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(pods) = rustix::fs::openat(&dir, c"pods", flags, Mode::empty()) else {
        let known_by = found.known_by.clone();
        return Err(LayoutError::NoPods {
            path: pods_path,
            known_by,
        });
    };
    let pods_place = match place_of(&pods, &pods_path)? {
        Ok(place) => place,
        Err(reason) => return Ok(Err((path, reason))),
    };
    let places = place.zip(pods_place);
    held(&dir, pods, path, places).map(Ok)
}

/// From here on the file systems are asked.
fn held(
    dir: &OwnedFd,
    pods: OwnedFd,
    path: PathBuf,
    places: Option<(Place, Place)>,
) -> Result<Root, LayoutError> {
    let pods_path = path.join("pods");
    let pods = reopened(pods.as_fd()).map_err(LayoutError::io("open", &pods_path))?;
    let unknown = || LayoutError::NoMountIdentity {
        path: pods_path.clone(),
    };
    let descent = Descent::from(pods.as_fd()).ok_or_else(unknown)?;
    let mount = mount_id(pods.as_fd()).ok_or_else(unknown)?;
    let stat = rustix::fs::fstat(dir).map_err(LayoutError::io("stat", &path))?;
    let mut entries = list(pods.as_fd()).map_err(LayoutError::io("list", &pods_path))?;
    entries.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(Root {
        id: FileId::from(&stat),
        path,
        pods,
        descent,
        mount,
        places,
        entries,
    })
}

/// Where an open directory really is.
fn real_path(dir: &OwnedFd) -> Result<PathBuf, LayoutError> {
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    std::fs::read_link(&link).map_err(|source| LayoutError::Io {
        what: "read",
        path: link.into(),
        source,
    })
}

/// The place of an open directory, or why it is left alone.
fn place(dir: &OwnedFd, path: &Path) -> Result<Result<Place, String>, LayoutError> {
    let id = MountId::Fdinfo
        .of(dir.as_fd())
        .ok()
        .or_else(|| mount_id(dir.as_fd()));
    let Some(id) = id else {
        return Err(LayoutError::NoMountIdentity {
            path: path.to_owned(),
        });
    };
    let on = row(id)?;
    let place = match on.as_ref().and_then(|on| Place::of(path, on)) {
        Some(place) => place,
        None => {
            return Ok(Err(format!(
                "{}: the mount table does not show what it lies on",
                path.display()
            )));
        }
    };
    Ok(match on {
        Some(on) if is_remote(&on.fstype) => Err(format!(
            "{}: it lies on {} ({}), which may not answer; pod directories are not looked for there",
            path.display(),
            on.fstype,
            on.source.display(),
        )),
        _ => Ok(place),
    })
}

/// The row of a mount in the table of the calling thread. Reads no further than it.
fn row(id: u64) -> Result<Option<Mount>, LayoutError> {
    let path = ["/proc/thread-self/mountinfo", "/proc/self/mountinfo"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/proc/self/mountinfo");
    let failed = |source| LayoutError::Io {
        what: "read",
        path: path.into(),
        source,
    };
    let start = format!("{id} ");
    for line in BufReader::new(std::fs::File::open(path).map_err(failed)?).split(b'\n') {
        let line = line.map_err(failed)?;
        if line.starts_with(start.as_bytes()) {
            return Ok(mountinfo::parse(&line)?.pop());
        }
    }
    Ok(None)
}

/// The names in a directory, with their types as far as the listing tells them.
pub(crate) fn list(dir: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, rustix::io::Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if !is_dots(name) {
            entries.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(entries)
}
