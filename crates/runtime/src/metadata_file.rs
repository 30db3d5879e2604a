//! When the database was made in which a containerd keeps its records.
//!
//! Nothing can be on record in a database that is younger than itself. So an empty answer of a containerd, which proves
//! nothing as such, does prove something of whatever ran before its database was made.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use nodemend_hostfs::{FileId, Host};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Statx, StatxFlags, makedev, openat, readlinkat, statx};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::line::listener;
use crate::survey::{aside, within};

/// Below containerd's root (`plugins/metadata/plugin.go`; the same since 1.0).
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// The database of one containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetadataFile {
    /// The socket at which that containerd was asked.
    pub socket: PathBuf,
    /// When it was made.
    pub made: Made,
}

/// When a database was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "made", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Made {
    /// The file system tells.
    At {
        /// The file, as the process that listens at the socket has it open.
        path: PathBuf,
        /// Seconds since 1970, by the wall clock of that time.
        unix: u64,
    },
    /// Nobody can tell, because …
    Untold {
        /// The reason.
        reason: String,
    },
}

/// Looks at the database of each containerd among the endpoints: at the very file that the process which listens there
/// has open, wherever its root is.
///
/// Needs a tokio runtime with I/O and time. Never fails: what cannot be told is [`Made::Untold`].
pub async fn metadata_files(host: &Host, endpoints: &[Endpoint], deadline: Duration) -> Vec<MetadataFile> {
    let sockets = endpoints.iter().filter_map(|endpoint| endpoint.socket().ok());
    join_all(sockets.map(async |socket| {
        MetadataFile {
            socket: socket.to_owned(),
            made: made(host, socket, deadline)
                .await
                .unwrap_or_else(|reason| Made::Untold { reason }),
        }
    }))
    .await
}

async fn made(host: &Host, socket: &Path, deadline: Duration) -> Result<Made, String> {
    if !host.is_running() {
        return Err("this looks at the files of another host".to_owned());
    }
    let pid = within(deadline, listener(socket)).await?;
    aside(deadline, move || of_process(pid)).await?
}

/// By the database that a process has open.
fn of_process(pid: u32) -> Result<Made, String> {
    let dir = format!("/proc/{pid}/fd");
    let failed = |errno: Errno| format!("{dir}: {errno}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let files = openat(CWD, dir.as_str(), flags, Mode::empty()).map_err(failed)?;
    let mut entries = Dir::read_from(&files).map_err(failed)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed)?;
        let Ok(text) = readlinkat(&files, entry.file_name(), Vec::new()) else {
            continue;
        };
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(text.as_bytes()));
        if path.ends_with(DATABASE) {
            let file =
                birth(&files, entry.file_name()).map_err(|reason| format!("{}: {reason}", path.display()))?;
            return agreed(path, &file);
        }
    }
    Err(format!(
        "process {pid}, which listens there, has no {DATABASE} open"
    ))
}

/// What a file system says of a file's beginning.
struct Birth {
    id: FileId,
    made: i64,
    changed: i64,
}

fn birth(at: impl AsFd, name: impl rustix::path::Arg) -> Result<Birth, String> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::MTIME | StatxFlags::TYPE;
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat: Statx = match statx(at, name, flags, wanted) {
        Ok(stat) => stat,
        Err(Errno::NOSYS) => {
            return Err("this kernel does not tell when a file was made (statx, Linux 4.11)".to_owned());
        }
        Err(errno) => return Err(errno.to_string()),
    };
    if !StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
        return Err("its file system does not tell when it was made".to_owned());
    }
    Ok(Birth {
        id: FileId {
            dev: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
        },
        made: stat.stx_btime.tv_sec,
        changed: stat.stx_mtime.tv_sec,
    })
}

/// The clock may have been set meanwhile. A file is not made before its directory, nor changed before it was made, and
/// a path that leads to another file by now is no witness.
fn agreed(path: PathBuf, file: &Birth) -> Result<Made, String> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    let now = birth(CWD, &path).map_err(told)?;
    if now.id != file.id {
        return Err(told(
            "it is another file than the one that containerd has open".to_owned(),
        ));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let dir = birth(CWD, parent).map_err(told)?;
    if let Some(reason) = disagreement(file, &dir) {
        return Err(told(reason.to_owned()));
    }
    let unix = u64::try_from(file.made).map_err(|_before| told("it was made before 1970".to_owned()))?;
    Ok(Made::At { path, unix })
}

fn disagreement(file: &Birth, dir: &Birth) -> Option<&'static str> {
    if dir.made > file.made {
        return Some(
            "it is older than the directory that it is in: it was moved there, or the clock was set",
        );
    }
    if file.changed < file.made {
        return Some("it was changed before it was made: the clock was set, or the time of the file");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(made: i64, changed: i64) -> Birth {
        Birth {
            id: FileId { dev: 1, ino: 2 },
            made,
            changed,
        }
    }

    #[test]
    fn a_file_whose_times_contradict_each_other_tells_nothing() {
        assert_eq!(disagreement(&at(100, 100), &at(100, 200)), None);
        assert_eq!(
            disagreement(&at(100, 900), &at(20, 20)),
            None,
            "only the file was made anew"
        );
        assert!(
            disagreement(&at(100, 900), &at(101, 900))
                .unwrap()
                .contains("moved there")
        );
        assert!(disagreement(&at(100, 99), &at(20, 20)).unwrap().contains("clock"));
    }

    #[test]
    fn the_database_is_found_by_who_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DATABASE);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pid = std::process::id();
        assert!(of_process(pid).is_err(), "nothing is open yet");
        let _open = std::fs::File::create(&path).unwrap();
        match of_process(pid) {
            Ok(Made::At { path: found, unix }) => {
                let now = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap();
                assert_eq!(found, path);
                assert!(now.as_secs().abs_diff(unix) < 60, "{unix}");
            }
            Ok(other) => panic!("{other:?}"),
            // Of a test directory on a file system that does not tell.
            Err(reason) => assert!(reason.contains("does not tell when"), "{reason}"),
        }
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        assert!(
            of_process(pid).is_err(),
            "the path leads to another file, or none"
        );
    }
}
