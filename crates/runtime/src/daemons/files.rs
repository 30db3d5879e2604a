//! The files of a daemon, read without waiting for a file system that does not answer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodemend_hostfs::pool::{self, PATIENCE};
use nodemend_hostfs::{Error, Host};

/// The most of a configuration file that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// The files that a daemon sees.
#[derive(Clone, Debug)]
pub struct Files {
    host: Host,
    /// The process whose root directory counts; None for the host's.
    pid: Option<u32>,
}

impl Files {
    /// Those of a host.
    pub fn of_host(host: &Host) -> Self {
        Self {
            host: host.clone(),
            pid: None,
        }
    }

    /// Those that a process of the running host sees.
    pub fn of_process(pid: u32) -> Self {
        Self {
            host: Host::local(),
            pid: Some(pid),
        }
    }

    /// A file; None if there is none.
    ///
    /// # Errors
    /// Why it cannot be read, in words, with its path.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        self.ask(path, |host, path| host.read(path, LIMIT))
    }

    /// The names in a directory, sorted; none if there is no such directory.
    ///
    /// # Errors
    /// Why it cannot be read, in words, with its path.
    pub fn list(&self, path: &Path) -> Result<Vec<OsString>, String> {
        Ok(self.ask(path, |host, path| host.list(path))?.unwrap_or_default())
    }

    fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        question: impl Fn(&Host, &Path) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Option<T>, String> {
        if !path.is_absolute() {
            return Err(format!(
                "{}: it is given relative to where the daemon was started",
                path.display()
            ));
        }
        let host = self.host.clone();
        let done = pool::run(
            vec![self.seen_from_here(path)],
            Box::new(move |path: &PathBuf, _, answer| answer(question(&host, path))),
        );
        let done = done.map_err(|error| format!("no thread could be started: {error}"))?;
        match done.answers.into_iter().next() {
            Some(Ok(answer)) => Ok(Some(answer)),
            Some(Err(error)) if error.is_not_found() => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(format!("{}: no answer within {PATIENCE} s", path.display())),
        }
    }

    fn seen_from_here(&self, path: &Path) -> PathBuf {
        match self.pid {
            Some(pid) => {
                let below = path.strip_prefix("/").unwrap_or(path);
                Path::new(&format!("/proc/{pid}/root")).join(below)
            }
            None => path.to_owned(),
        }
    }
}
