//! A cgroup's directory: who is in it, ending them, and removing it when nobody is.
//!
//! Everything goes through the open directory, so what happens happens to the cgroup that was compared, and no name is
//! resolved twice. A cgroup can only be removed when it is empty: the kernel refuses otherwise.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::procfs::{is_gone, read_records};

/// The most of a `cgroup.procs` that is read, in bytes: more than all pids that there can be.
const LIMIT: usize = 64 << 20;

/// A cgroup, by its open directory.
#[derive(Debug)]
pub struct Cgroup {
    dir: OwnedFd,
    path: PathBuf,
}

impl Cgroup {
    /// Opens a cgroup. None if it is not there.
    ///
    /// # Errors
    /// [`Error::Proc`] with what open(2) gives; a symlink is refused.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        match open_dir(CWD, path) {
            Ok(dir) => Ok(Some(Self {
                dir,
                path: path.to_owned(),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::proc("open", path)(errno)),
        }
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which directory it is.
    ///
    /// # Errors
    /// [`Error::Proc`] with what fstat(2) gives.
    pub fn id(&self) -> Result<FileId, Error> {
        let stat = rustix::fs::fstat(&self.dir).map_err(Error::proc("stat", &self.path))?;
        Ok(FileId::from(&stat))
    }

    /// The processes in it, without those in the cgroups below it. Empty if it has been removed.
    ///
    /// # Errors
    /// [`Error::Proc`] if `cgroup.procs` cannot be read, as that of a threaded cgroup.
    pub fn processes(&self) -> Result<Vec<u32>, Error> {
        let mut text = Vec::new();
        match read_records(&self.dir, c"cgroup.procs", &mut text, LIMIT) {
            Ok(_) => {}
            Err(errno) if is_gone(errno) || errno == Errno::NODEV => return Ok(Vec::new()),
            Err(errno) => return Err(Error::proc("read", self.path.join("cgroup.procs"))(errno)),
        }
        let words = text.split(u8::is_ascii_whitespace);
        Ok(words
            .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
            .filter(|pid| *pid > 0)
            .collect())
    }

    /// The processes in it and in all cgroups below it.
    ///
    /// # Errors
    /// As [`Cgroup::processes`].
    pub fn all_processes(&self) -> Result<Vec<u32>, Error> {
        let mut found = self.processes()?;
        for below in self.below()? {
            found.extend(below.all_processes()?);
        }
        Ok(found)
    }

    /// Kills every process in it and below it at once (`cgroup.kill`, cgroup v2 on Linux 5.14 and later). False if there is
    /// no such file.
    ///
    /// # Errors
    /// [`Error::Proc`] with what the kernel says.
    pub fn kill(&self) -> Result<bool, Error> {
        let failed = || Error::proc("write", self.path.join("cgroup.kill"));
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, c"cgroup.kill", flags, Mode::empty()) {
            Ok(file) => file,
            Err(errno) if is_gone(errno) => return Ok(false),
            Err(errno) => return Err(failed()(errno)),
        };
        rustix::io::write(&file, b"1").map(|_| true).map_err(failed())
    }

    /// Removes it, and the cgroups below it before, if no process is in any of them. `before` is called with the path of
    /// each, and its error ends the removal.
    ///
    /// # Errors
    /// [`Error::Occupied`] if a process is in it; [`Error::Replaced`] if something else has its name by now; what the kernel
    /// says; and what `before` gives.
    pub fn remove<E: From<Error>>(self, before: &mut dyn FnMut(&Path) -> Result<(), E>) -> Result<(), E> {
        if let Some(pid) = self.all_processes()?.first() {
            return Err(Error::Occupied {
                path: self.path.clone(),
                pid: *pid,
            }
            .into());
        }
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        let name = CString::new(name.as_bytes()).unwrap_or_default();
        let parent = open_dir(CWD, parent).map_err(Error::proc("open", parent))?;
        self.remove_from(parent.as_fd(), &name, before)
    }

    fn remove_from<E: From<Error>>(
        &self,
        parent: impl AsFd,
        name: &CStr,
        before: &mut dyn FnMut(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        for below in self.below()? {
            let name = below.path.file_name().unwrap_or_default().as_bytes();
            let name = CString::new(name).unwrap_or_default();
            below.remove_from(self.dir.as_fd(), &name, before)?;
        }
        before(&self.path)?;
        let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::proc("stat", &self.path)(errno).into()),
        };
        if FileId::from(&stat) != self.id()? {
            let path = self.path.clone();
            return Err(Error::Replaced { path }.into());
        }
        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::proc("remove", &self.path)(errno).into()),
        }
    }

    /// The cgroups in it. No symlinks, which in `/sys/fs/cgroup` are second names of controllers.
    fn below(&self) -> Result<Vec<Self>, Error> {
        let entries = Dir::read_from(&self.dir).map_err(Error::proc("list", &self.path))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) if is_gone(errno) => break,
                Err(errno) => return Err(Error::proc("list", &self.path)(errno)),
            };
            let name = entry.file_name();
            if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
                continue;
            }
            let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
            match open_dir(&self.dir, name) {
                Ok(dir) => found.push(Self { dir, path }),
                Err(errno) if is_gone(errno) => {}
                Err(errno) => return Err(Error::proc("open", path)(errno)),
            }
        }
        Ok(found)
    }
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories stand for cgroups: `cgroup.procs` is a file in them that goes first.
    fn tree(procs: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("pod/app/inner")).unwrap();
        std::fs::write(dir.path().join("pod/app/inner/cgroup.procs"), procs).unwrap();
        dir
    }

    fn nothing(_: &Path) -> Result<(), Error> {
        Ok(())
    }

    #[test]
    fn a_cgroup_with_a_process_anywhere_below_it_stays() {
        let dir = tree("4711\n");
        let pod = Cgroup::open(&dir.path().join("pod")).unwrap().unwrap();
        assert_eq!(pod.all_processes().unwrap(), [4711]);
        assert!(pod.processes().unwrap().is_empty());
        let error = pod.remove(&mut nothing).unwrap_err();
        assert!(matches!(error, Error::Occupied { pid: 4711, .. }), "{error}");
        assert!(dir.path().join("pod/app/inner").is_dir());
    }

    #[test]
    fn an_empty_cgroup_goes_deepest_first_and_each_is_told_before() {
        let dir = tree("");
        std::fs::remove_file(dir.path().join("pod/app/inner/cgroup.procs")).unwrap();
        let pod = Cgroup::open(&dir.path().join("pod")).unwrap().unwrap();
        let mut told = Vec::new();
        let before = &mut |path: &Path| {
            assert!(path.is_dir(), "it is told before it goes");
            told.push(path.strip_prefix(dir.path()).unwrap().to_owned());
            Ok::<(), Error>(())
        };
        pod.remove(before).unwrap();
        assert_eq!(told, ["pod/app/inner", "pod/app", "pod"].map(PathBuf::from));
        assert!(!dir.path().join("pod").exists());
    }

    #[test]
    fn another_directory_with_its_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod");
        std::fs::create_dir(&path).unwrap();
        let pod = Cgroup::open(&path).unwrap().unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = pod.remove(&mut nothing).unwrap_err();
        assert!(matches!(error, Error::Replaced { .. }), "{error}");
        assert!(path.is_dir());
    }

    #[test]
    fn a_symlink_is_no_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        assert!(Cgroup::open(&dir.path().join("link")).is_err());
        assert!(Cgroup::open(&dir.path().join("nothing")).unwrap().is_none());
    }
}
