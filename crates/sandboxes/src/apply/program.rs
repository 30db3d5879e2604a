//! Running a program that was found, not chosen: only one that root alone can have put there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use rustix::process::{Pid, Signal, kill_process_group};

use super::place::Place;
use crate::error::Error;

/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(5);

/// The most of what a program says that is read, in bytes.
const SAID: u64 = 1 << 16;

/// What a program may call in turn: runc.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that is held open: what runs is the file that was looked at.
#[derive(Debug)]
pub(crate) struct Program {
    file: OwnedFd,
    path: PathBuf,
}

impl Program {
    /// Opens a program by its absolute path.
    ///
    /// # Errors
    /// [`Error::NotTheSame`] if it is not a regular file of root's that nobody else can write, or if a directory on the way
    /// to it is not root's, or others can write it, or is a symlink.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let distrusted = |path: &Path, stat: &Stat| match distrust(stat) {
            Some(reason) => Err(Error::not_the_same(path, reason)),
            None => Ok(()),
        };
        let missing = || Error::not_the_same(path, "there is no such program");
        let look = |dir: BorrowedFd<'_>, so_far: &Path| {
            let stat = rustix::fs::fstat(dir).map_err(Error::io("stat", so_far))?;
            distrusted(so_far, &stat)
        };
        let place = Place::each(path, look)?.ok_or_else(missing)?;
        let file = place.open()?.ok_or_else(missing)?;
        let stat = rustix::fs::fstat(&file).map_err(Error::io("stat", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o111 == 0 {
            return Err(Error::not_the_same(path, "is no program"));
        }
        distrusted(path, &stat)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Distributions that bring their own containerd have runc beside the shim.
    fn search_path(&self) -> OsString {
        let mut all = OsString::from(self.path.parent().unwrap_or(Path::new("/")));
        all.push(":");
        all.push(PATH);
        all
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it in a directory, without any of this process's environment, and waits for its end.
    ///
    /// # Errors
    /// If it cannot be started, does not end in time, in which case it is killed, or says by its exit status that it failed.
    pub(crate) fn run(
        &self,
        directory: BorrowedFd<'_>,
        arguments: &[&OsStr],
        environment: &[(&str, &OsStr)],
        deadline: Duration,
    ) -> Result<(), Error> {
        let failed = Error::io("run", &self.path);
        let mut command = Command::new(by_descriptor(self.file.as_fd()));
        command.arg0(&self.path).args(arguments);
        command
            .env_clear()
            .env("PATH", self.search_path())
            .envs(environment.iter().copied());
        command.current_dir(by_descriptor(directory)).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Err(failed(error)),
        };
        match wait(child, deadline).map_err(failed)? {
            None => Ok(()),
            Some(reason) => Err(Error::Left {
                path: self.path.clone(),
                reason,
            }),
        }
    }
}

fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Why others than root may have put a file or a directory there, if so.
fn distrust(stat: &Stat) -> Option<&'static str> {
    if stat.st_uid != 0 {
        return Some("does not belong to root: it is not run");
    }
    (stat.st_mode & 0o022 != 0).then_some("others than root can write it: it is not run")
}

/// Waits for the end. Gives the reason if it failed.
fn wait(mut child: Child, deadline: Duration) -> std::io::Result<Option<String>> {
    let until = Instant::now() + deadline;
    // What it says is read at the end: a pipe holds more than it ever says, and one that fills it is killed in time.
    loop {
        if let Some(status) = child.try_wait()? {
            let mut said = String::new();
            if let Some(errors) = child.stderr.take().filter(|_| !status.success()) {
                said = last_line(errors.as_fd());
            }
            return Ok((!status.success()).then(|| format!("{status}: {said}")));
        }
        if Instant::now() > until {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(Some(format!(
                "did not end within {} s; it was killed",
                deadline.as_secs()
            )));
        }
        std::thread::sleep(TICK);
    }
}

/// The last line of a pipe, without waiting for who else may hold its other end.
fn last_line(pipe: BorrowedFd<'_>) -> String {
    let mut bytes = Vec::new();
    let unblocked = rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::NONBLOCK);
    if let (Ok(()), Ok(copy)) = (unblocked, pipe.try_clone_to_owned()) {
        let _ = File::from(copy).take(SAID).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim().lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn is_refused(path: &Path, why: &str) {
        let error = Program::open(path).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_program_that_others_could_have_put_there_is_refused() {
        // /tmp is for everybody, whatever lies in it.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let program = dir.path().join("shim");
        std::fs::copy("/bin/true", &program).unwrap();
        is_refused(&program, "/tmp: ");
        is_refused(Path::new("/etc/passwd"), "is no program");
        is_refused(Path::new("/usr/bin/no-such-shim"), "no such program");
        is_refused(Path::new("/usr/bin"), "is no program");
    }

    #[test]
    fn a_file_that_others_can_write_is_distrusted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stat = || rustix::fs::fstat(file.as_file()).unwrap();
        file.as_file()
            .set_permissions(PermissionsExt::from_mode(0o755))
            .unwrap();
        let root = stat().st_uid == 0;
        assert_eq!(distrust(&stat()).is_none(), root);
        file.as_file()
            .set_permissions(PermissionsExt::from_mode(0o775))
            .unwrap();
        assert!(distrust(&stat()).is_some());
    }

    fn shell(script: &str, deadline: Duration) -> Result<(), Error> {
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        let dir = File::open("/").unwrap();
        let script = [OsStr::new("-c"), OsStr::new(script)];
        let program = Program::open(&shell).unwrap();
        program.run(dir.as_fd(), &script, &[("TOLD", OsStr::new("yes"))], deadline)
    }

    #[test]
    fn a_program_has_the_given_environment_and_directory_alone() {
        let script = "test \"$TOLD\" = yes && test -z \"$HOME\" && test \"$(pwd)\" = /";
        shell(script, Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_program_that_fails_or_hangs_says_so() {
        let error = shell("echo first; echo last >&2; exit 3", Duration::from_secs(10)).unwrap_err();
        assert!(error.to_string().contains("exit status: 3: last"), "{error}");
        let error = shell("sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("it was killed"), "{error}");
    }
}
