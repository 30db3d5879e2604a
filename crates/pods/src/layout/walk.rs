//! One pod directory: what is in it, by the names that kubelet gives.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodemend_hostfs::FileId;
use nodemend_hostfs::descent::Descent;
use nodemend_hostfs::pool::Pulse;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::class::SUBPATH;
use super::content::{Bounds, Look, lstat, symlink};
use super::root::list;
use super::{csi, name};
use crate::pod::PodName;
use crate::volume::{Class, Content, Part, Volume};

/// How much is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of one volume.
    pub(crate) entries: u64,
    /// Of one volume.
    pub(crate) time: Duration,
    /// Of all of them.
    pub(crate) until: Instant,
}

/// What became of a name in `pods`.
#[derive(Debug)]
pub(crate) enum Walked {
    /// It is a pod directory.
    Pod(Box<Draft>),
    /// It is none, for this reason.
    Stranger(String),
    /// kubelet has removed it.
    Gone,
}

/// What was found in a pod directory. The classes of its volumes are not decided yet.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) dir: FileId,
    pub(crate) changed: i64,
    pub(crate) name: Option<PodName>,
    pub(crate) volumes: Vec<Volume>,
    /// Where the global mounts of CSI volumes would be, with the index of the volume.
    pub(crate) places: Vec<(usize, [PathBuf; 2])>,
    pub(crate) strange: Vec<PathBuf>,
    pub(crate) unread: Vec<String>,
}

/// The way into one pod directory.
pub(crate) struct Way<'a> {
    pub(crate) pods: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
    pub(crate) descent: Descent,
    /// Where something is mounted, relative to the pod directory; empty is the directory itself.
    pub(crate) mountpoints: &'a HashSet<PathBuf>,
    pub(crate) pulse: &'a Pulse,
    pub(crate) limits: Limits,
}

impl Way<'_> {
    /// Looks at it.
    pub(crate) fn walk(&self) -> Walked {
        if self.mountpoints.contains(Path::new("")) {
            return Walked::Stranger("something is mounted on it".to_owned());
        }
        let dir = match self.descent.down(self.pods, self.name) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Walked::Gone,
            Err(Errno::XDEV) => return Walked::Stranger("something is mounted on it".to_owned()),
            Err(Errno::NOTDIR | Errno::LOOP) => return self.no_directory(),
            Err(errno) => return Walked::Pod(Box::new(Draft::unread(format!("open: {errno}")))),
        };
        let look = Look {
            descent: self.descent,
            mountpoints: self.mountpoints,
            pulse: self.pulse,
        };
        let mut walk = Walk {
            look,
            limits: self.limits,
            draft: Draft::default(),
        };
        walk.top(&dir);
        // A directory has its names in no order.
        walk.draft.strange.sort_unstable();
        walk.draft.unread.sort_unstable();
        walk.draft.volumes.shrink_to_fit();
        Walked::Pod(Box::new(walk.draft))
    }

    fn no_directory(&self) -> Walked {
        let what = match lstat(self.pods, self.name) {
            Err(Errno::NOENT) => return Walked::Gone,
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                symlink(self.pods, self.name)
            }
            _ => "something else".to_owned(),
        };
        Walked::Stranger(format!("not a directory but {what}"))
    }
}

impl Draft {
    fn unread(reason: String) -> Self {
        Self {
            unread: vec![reason],
            ..Self::default()
        }
    }
}

type Entries = Vec<(CString, FileType)>;

struct Walk<'a> {
    look: Look<'a>,
    limits: Limits,
    draft: Draft,
}

impl Walk<'_> {
    fn top(&mut self, dir: &OwnedFd) {
        match FileId::of(dir) {
            Ok(id) => self.draft.dir = id,
            Err(error) => self.draft.unread.push(format!("stat: {error}")),
        }
        self.change(dir.as_fd(), c"", Path::new(""));
        let Some(entries) = self.listed(dir, Path::new("")) else {
            return;
        };
        for (name, _) in entries {
            let path = path_of(&name);
            self.change(dir.as_fd(), &name, &path);
            let Some((below, entries)) = self.level(dir.as_fd(), &name, &path) else {
                if name.as_c_str() == c"etc-hosts" {
                    self.hosts(dir.as_fd(), &name, &path);
                } else if name.as_c_str() != c"userns" && !self.draft.strange.contains(&path) {
                    self.draft.strange.push(path);
                }
                continue;
            };
            for (name, _) in &entries {
                self.change(below.as_fd(), name, &join(&path, name));
            }
            match name.to_bytes() {
                b"volumes" => self.plugins(&below, &path, &entries, Part::Volume),
                b"volumeDevices" => self.plugins(&below, &path, &entries, Part::Device),
                b"plugins" => self.plugins(&below, &path, &entries, Part::PluginData),
                b"volume-subpaths" => self.subpaths(&below, &path, &entries),
                b"containers" => {}
                _ => self.draft.strange.push(path),
            }
        }
    }

    /// A directory and what is in it. None if it is no directory (any more), or cannot be read; then that is noted.
    fn level(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) -> Option<(OwnedFd, Entries)> {
        if self.look.is_mountpoint(path) {
            return None;
        }
        self.look.pulse.beat();
        match self.look.descent.down(dir, name) {
            Ok(below) => {
                let entries = self.listed(&below, path)?;
                Some((below, entries))
            }
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NOENT) => None,
            Err(errno) => {
                self.unread(path, &errno.to_string());
                None
            }
        }
    }

    fn listed(&mut self, dir: &OwnedFd, path: &Path) -> Option<Entries> {
        match list(dir.as_fd()) {
            Ok(entries) => Some(entries),
            Err(errno) => {
                self.unread(path, &errno.to_string());
                None
            }
        }
    }

    fn unread(&mut self, path: &Path, reason: &str) {
        self.draft.unread.push(format!("{}: {reason}", path.display()));
    }

    /// `<part>/<plugin, escaped>/<name>`.
    fn plugins(&mut self, dir: &OwnedFd, path: &Path, entries: &Entries, part: Part) {
        for (plugin, _) in entries {
            let path = join(path, plugin);
            let Some((dir, names)) = self.level(dir.as_fd(), plugin, &path) else {
                self.draft.strange.push(path);
                continue;
            };
            // kubelet escapes the slash of a plugin's name (`k8s.io/utils/strings`, `EscapeQualifiedName`).
            let plugin = plugin.to_string_lossy().replace('~', "/");
            for (name, _) in names {
                let path = join(&path, &name);
                if part == Part::Volume && plugin == "kubernetes.io/csi" && !self.look.is_mountpoint(&path) {
                    self.csi(dir.as_fd(), &name, &path);
                } else {
                    let title = name.to_string_lossy().into_owned();
                    self.volume(dir.as_fd(), &name, path, part, &plugin, title);
                }
            }
        }
    }

    /// `volume-subpaths/<volume>/<container>/<index>`.
    fn subpaths(&mut self, dir: &OwnedFd, path: &Path, entries: &Entries) {
        for (volume, _) in entries {
            let path = join(path, volume);
            let Some((dir, containers)) = self.level(dir.as_fd(), volume, &path) else {
                self.draft.strange.push(path);
                continue;
            };
            for (container, _) in containers {
                let path = join(&path, &container);
                let Some((dir, indices)) = self.level(dir.as_fd(), &container, &path) else {
                    self.draft.strange.push(path);
                    continue;
                };
                for (index, _) in indices {
                    let title = [volume, &container, &index].map(|name| name.to_string_lossy());
                    let path = join(&path, &index);
                    self.volume(dir.as_fd(), &index, path, Part::Subpath, SUBPATH, title.join("/"));
                }
            }
        }
    }

    fn volume(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: PathBuf,
        part: Part,
        plugin: &str,
        title: String,
    ) {
        let content = self.look.content(dir, name, &path, self.bounds());
        self.found(path, part, plugin, title, content);
    }

    fn found(&mut self, mut path: PathBuf, part: Part, plugin: &str, title: String, content: Content) {
        if let Content::Unread(reason) = &content {
            let reason = reason.clone();
            self.unread(&path, &reason);
        }
        // Very many are kept.
        path.shrink_to_fit();
        self.draft.volumes.push(Volume {
            plugin: plugin.to_owned(),
            name: title,
            path,
            part,
            class: Class::MaybeOnlyCopy,
            content,
            csi: None,
        });
    }

    /// `volumes/kubernetes.io~csi/<name>/{mount, vol_data.json}`.
    fn csi(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) {
        let title = name.to_string_lossy().into_owned();
        let plugin = "kubernetes.io/csi";
        let Some((dir, entries)) = self.level(dir, name, path) else {
            self.volume(dir, name, path.to_owned(), Part::Volume, plugin, title);
            return;
        };
        let mount = path.join("mount");
        let content = self.look.content(dir.as_fd(), c"mount", &mount, self.bounds());
        self.found(mount, Part::Volume, plugin, title, content);
        let has_record = entries
            .iter()
            .any(|(name, _)| name.as_c_str() == c"vol_data.json");
        let record = has_record
            .then(|| self.record(dir.as_fd(), &path.join("vol_data.json")))
            .flatten();
        let last = self.draft.volumes.len() - 1;
        if let (Some(record), Some(volume)) = (record, self.draft.volumes.get_mut(last)) {
            volume.csi = Some(Box::new(record.csi));
            self.draft.places.push((last, record.places));
        }
        let others = entries.into_iter().map(|(name, _)| name);
        let others = others.filter(|name| name.as_c_str() != c"mount" && name.as_c_str() != c"vol_data.json");
        self.draft.strange.extend(others.map(|name| join(path, &name)));
    }

    /// What `vol_data.json` says. One that says nothing is not kubelet's.
    fn record(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Option<csi::Record> {
        let bytes = self.small(dir, c"vol_data.json", path, csi::LARGEST);
        let record = bytes.and_then(|bytes| csi::parse(&bytes));
        if record.is_none() {
            self.draft.strange.push(path.to_owned());
        }
        record
    }

    fn hosts(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) {
        let bytes = self.small(dir, name, path, name::LARGEST);
        self.draft.name = bytes.and_then(|bytes| name::from_hosts(&bytes));
    }

    /// A small regular file. None if it is none, or too large, or cannot be read; the last is noted.
    fn small(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path, largest: usize) -> Option<Vec<u8>> {
        if self.look.is_mountpoint(path) {
            return None;
        }
        match read_small(dir, name, largest) {
            Ok(bytes) => bytes,
            Err(Errno::NOENT | Errno::LOOP) => None,
            Err(errno) => {
                self.unread(path, &errno.to_string());
                None
            }
        }
    }

    fn bounds(&self) -> Bounds {
        let own = Instant::now().checked_add(self.limits.time);
        let until = own.map_or(self.limits.until, |own| own.min(self.limits.until));
        Bounds {
            entries: self.limits.entries,
            until,
        }
    }

    /// Takes the newest of the times of an entry into account.
    fn change(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) {
        if self.look.is_mountpoint(path) {
            return;
        }
        match newest(dir, name) {
            Ok(newest) => self.draft.changed = self.draft.changed.max(newest),
            Err(Errno::NOENT) => {}
            Err(errno) => self.unread(path, &errno.to_string()),
        }
    }
}

/// The newest of birth, change and modification.
fn newest(dir: BorrowedFd<'_>, name: &CStr) -> Result<i64, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let times = StatxFlags::BTIME | StatxFlags::CTIME | StatxFlags::MTIME;
    match rustix::fs::statx(dir, name, flags, times) {
        Ok(stat) => {
            let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
            let birth = has_birth.then_some(stat.stx_btime.tv_sec);
            Ok(birth
                .unwrap_or(i64::MIN)
                .max(stat.stx_ctime.tv_sec)
                .max(stat.stx_mtime.tv_sec))
        }
        // Linux 4.11; or a filter that does not know it.
        Err(Errno::NOSYS | Errno::PERM) => {
            let stat = rustix::fs::statat(dir, name, flags)?;
            Ok(stat.st_ctime.max(stat.st_mtime))
        }
        Err(errno) => Err(errno),
    }
}

fn read_small(dir: BorrowedFd<'_>, name: &CStr, largest: usize) -> Result<Option<Vec<u8>>, Errno> {
    // Opening a device or a FIFO may do something: only a regular file is opened.
    if FileType::from_raw_mode(lstat(dir, name)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut bytes = vec![0; largest + 1];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(length);
    Ok((length <= largest).then_some(bytes))
}

fn path_of(name: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
}

fn join(path: &Path, name: &CStr) -> PathBuf {
    path.join(OsStr::from_bytes(name.to_bytes()))
}
