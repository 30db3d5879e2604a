//! A network directory under host-local's own lock.

use std::ffi::CString;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_evidence::Confirmed;
use nodemend_hostfs::{FileId, Host};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::error::Error;
use crate::read::{Held, LARGEST, changed, held};
use crate::reservation::Reservation;
use crate::undodir::Saved;

/// How long a plugin may hold the lock. It holds it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A network directory, open, with its lock file.
pub(crate) struct NetDir {
    path: PathBuf,
    fd: OwnedFd,
    lock: File,
    /// How long to wait for the lock. Nothing any more, once it has been waited for in vain.
    patience: Duration,
}

/// What became of a file that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It was removed.
    Removed,
    /// It was not there any more.
    Gone,
}

/// What became of a file that was to be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    /// It is back.
    Back,
    /// It is not, because …
    Kept(String),
}

impl NetDir {
    /// Opens a network directory. Its lock file is made if it is missing, as host-local does
    /// (`filemutex.New`: `O_CREAT|O_RDONLY`, mode 0750).
    ///
    /// # Errors
    /// If either cannot be opened.
    pub(crate) fn open(host: &Host, path: &Path) -> Result<Self, Error> {
        let fd = host.open_dir(path)?;
        let lock_path = path.join("lock");
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&fd, "lock", flags, Mode::from_raw_mode(0o750));
        let lock = lock.map_err(Error::io("open", lock_path))?;
        Ok(Self {
            path: path.to_owned(),
            fd,
            lock: lock.into(),
            patience: PATIENCE,
        })
    }

    /// Does one thing under the lock. It is held for no longer, since every ADD and DEL waits for it.
    fn locked<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        self.acquire()?;
        let done = work(self);
        self.lock
            .unlock()
            .map_err(Error::io("unlock", self.path.join("lock")))?;
        done
    }

    fn acquire(&mut self) -> Result<(), Error> {
        let until = Instant::now() + self.patience;
        loop {
            match self.lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => {
                    self.patience = Duration::ZERO;
                    return Err(Error::Busy {
                        path: self.path.join("lock"),
                        seconds: PATIENCE.as_secs(),
                    });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(Error::io("lock", self.path.join("lock"))(source));
                }
            }
        }
    }

    /// Removes a confirmed reservation, if it still is what was judged: the same inode, time and content.
    ///
    /// # Errors
    /// If it is not, or the lock does not become free, or a call fails.
    pub(crate) fn remove(&mut self, proof: Confirmed<'_, Reservation>) -> Result<Removal, Error> {
        let reservation = proof.subject();
        let path = self.path.join(&*reservation.file);
        let name = c_name(&reservation.file, &path)?;
        self.locked(|dir| {
            let mut buffer = [0; LARGEST + 1];
            match held(dir.fd.as_fd(), &name, &mut buffer) {
                Ok(held) => same(reservation, &held, &path)?,
                Err(Errno::NOENT) => return Ok(Removal::Gone),
                Err(errno) => return Err(Error::io("open", &path)(errno)),
            }
            rustix::fs::unlinkat(&dir.fd, &name, AtFlags::empty()).map_err(Error::io("remove", &path))?;
            Ok(Removal::Removed)
        })
    }

    /// Puts a file back, if its address is free.
    ///
    /// # Errors
    /// If the lock does not become free, or a call fails. Then no part of the file is left.
    pub(crate) fn restore(&mut self, saved: &Saved, bytes: &[u8]) -> Result<Restored, Error> {
        let path = saved.path();
        let name = c_name(&saved.file, &path)?;
        self.locked(|dir| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(saved.mode & 0o777);
            let file = match rustix::fs::openat(&dir.fd, &name, flags, mode) {
                Ok(file) => File::from(file),
                Err(Errno::EXIST) => return Ok(Restored::Kept(taken(dir.fd.as_fd(), &name, bytes))),
                Err(errno) => return Err(Error::io("create", &path)(errno)),
            };
            fill(&file, bytes, mode, saved.mtime).map_err(|source| {
                let _ = rustix::fs::unlinkat(&dir.fd, &name, AtFlags::empty());
                Error::io("write", &path)(source)
            })?;
            Ok(Restored::Back)
        })
    }

    /// Waits until the disk has what was put back.
    ///
    /// # Errors
    /// What syncfs(2) gives.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.fd).map_err(Error::io("sync", &self.path))
    }
}

fn c_name(name: &str, path: &Path) -> Result<CString, Error> {
    let reason = "its name holds a zero byte";
    CString::new(name).map_err(|_| Error::NotTheSame {
        path: path.to_owned(),
        reason,
    })
}

fn same(reservation: &Reservation, held: &Held<'_>, path: &Path) -> Result<(), Error> {
    let other = |reason| {
        Err(Error::NotTheSame {
            path: path.to_owned(),
            reason,
        })
    };
    let time = (reservation.mtime, reservation.mtime_nanos);
    if FileId::from(&held.stat) != reservation.identity || changed(&held.stat) != time {
        return other("it is not the file that was judged");
    }
    match &held.bytes {
        Ok(bytes) if *bytes == reservation.content.as_bytes() => Ok(()),
        Ok(_) => other("it does not hold what it held when it was judged"),
        Err(_) => other("it has other names now, or is no regular file"),
    }
}

fn fill(mut file: &File, bytes: &[u8], mode: Mode, (seconds, nanos): (i64, u32)) -> std::io::Result<()> {
    file.write_all(bytes)?;
    rustix::fs::fchmod(file, mode)?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    rustix::fs::futimens(
        file,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )?;
    Ok(())
}

/// Why an address cannot be given back.
fn taken(dir: BorrowedFd<'_>, name: &CString, bytes: &[u8]) -> String {
    let mut buffer = [0; LARGEST + 1];
    match held(dir, name, &mut buffer) {
        Ok(Held { bytes: Ok(now), .. }) if now == bytes => "it is there, with the same content".to_owned(),
        Ok(Held { bytes: Ok([]), .. }) => "the address was taken meanwhile, by an empty file".to_owned(),
        Ok(Held { bytes: Ok(now), .. }) => {
            let text = String::from_utf8_lossy(now);
            let id = text.lines().next().unwrap_or_default();
            format!("the address was taken meanwhile, by {id}")
        }
        Ok(Held { stat, bytes: Err(_) }) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            "a directory has this name now".to_owned()
        }
        Ok(Held { bytes: Err(_), .. }) | Err(_) => "something else has this name now".to_owned(),
    }
}
