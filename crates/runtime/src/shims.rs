//! The processes that watch over containers: containerd's shims and conmon.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Error, Host};
use nodemend_procns::{Census, Process};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::file_id;
use crate::knowledge::{Record, RecordKind};

/// The kernel gives one argument list at most this much in practice; a longer one is no shim's.
const CMDLINE_LIMIT: u64 = 1 << 21;
/// ESRCH: the process ended between opening its file and reading it.
const NO_SUCH_PROCESS: i32 = 3;

/// A process that watches over a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shim {
    /// Its pid.
    pub pid: u32,
    /// The container, or the sandbox that it was started for.
    pub id: String,
    /// Who started it.
    pub keeper: Keeper,
}

/// Who started a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Keeper {
    /// A containerd.
    Containerd {
        /// The namespace of its container in it (`-namespace`).
        namespace: Option<String>,
        /// Where it listens (`-address`), under the name by which it was asked, if it was.
        address: Option<PathBuf>,
    },
    /// CRI-O.
    Crio,
    /// podman, or something else that uses conmon.
    Other,
}

impl Shim {
    pub(crate) fn record(&self) -> Record {
        let namespace = match &self.keeper {
            Keeper::Containerd { namespace, .. } => namespace.clone(),
            Keeper::Crio | Keeper::Other => None,
        };
        Record {
            kind: RecordKind::Shim,
            id: self.id.clone(),
            sandbox_id: None,
            namespace,
            state: None,
            pid: Some(self.pid),
            netns: None,
            host_network: false,
            pod: None,
        }
    }
}

/// The part of a census that [`find`] looks at.
pub(crate) fn candidates(census: &Census) -> Census {
    // A zombie has no arguments any more, and watches over nothing.
    let alive = census
        .processes
        .iter()
        .filter(|process| process.netns.is_some() && is_shim(&process.comm));
    let unread = census.unread.clone();
    Census {
        processes: alive.cloned().collect(),
        unread,
        host: census.host,
        ..Census::default()
    }
}

/// Gives the address of a shim the name under which that socket is asked: links give a socket many.
pub(crate) fn rename(host: &Host, shims: &mut [Shim], sockets: &[PathBuf]) {
    let identities = sockets
        .iter()
        .filter_map(|socket| Some((file_id(host, socket)?, socket)));
    let asked: HashMap<_, _> = identities.collect();
    for shim in shims {
        let Keeper::Containerd {
            address: Some(address),
            ..
        } = &mut shim.keeper
        else {
            continue;
        };
        if let Some(socket) = file_id(host, address).and_then(|id| asked.get(&id)) {
            address.clone_from(socket);
        }
    }
}

/// Every shim among the processes of a census. One that ended since is left out.
pub(crate) fn find(host: &Host, census: &Census) -> Result<Vec<Shim>, String> {
    if let Some(unread) = census.unread.first() {
        return Err(unread.clone());
    }
    let mut shims = Vec::new();
    for process in &census.processes {
        let path = format!("/proc/{}/cmdline", process.pid);
        match host.read(Path::new(&path), CMDLINE_LIMIT) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => shims.push(read(process, &bytes).ok_or_else(|| nameless(process))?),
            Err(error) if is_over(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(shims)
}

fn nameless(process: &Process) -> String {
    format!(
        "process {} ({}) does not say which container it watches over",
        process.pid, process.comm
    )
}

fn is_over(error: &Error) -> bool {
    let ended = matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(NO_SUCH_PROCESS));
    ended || error.is_not_found()
}

/// `comm` holds 15 bytes, which is `containerd-shim` to the letter; what follows (`-runc-v2`) is cut off.
fn is_shim(comm: &str) -> bool {
    comm.starts_with("containerd-shim") || comm == "conmon"
}

fn read(process: &Process, cmdline: &[u8]) -> Option<Shim> {
    let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let (id, keeper) = if process.comm == "conmon" {
        conmon(&words)?
    } else {
        containerd(&words)?
    };
    Some(Shim {
        pid: process.pid,
        id,
        keeper,
    })
}

/// The flags of containerd's shims (runtime/v2/shim/shim.go). Those of runtime v1 name the id in `-workdir` only.
fn containerd(words: &[&[u8]]) -> Option<(String, Keeper)> {
    let of_workdir = || {
        Path::new(OsStr::from_bytes(flag(words, &["workdir"])?))
            .file_name()
            .map(OsStrExt::as_bytes)
    };
    let id = flag(words, &["id"])
        .or_else(of_workdir)
        .filter(|id| !id.is_empty())?;
    let keeper = Keeper::Containerd {
        namespace: flag(words, &["namespace"]).map(text),
        address: flag(words, &["address"]).map(|address| PathBuf::from(OsStr::from_bytes(address))),
    };
    Some((text(id), keeper))
}

/// The flags of conmon (conmon.8). CRI-O's directories are below …/crio.
fn conmon(words: &[&[u8]]) -> Option<(String, Keeper)> {
    let id = flag(words, &["c", "cid"]).filter(|id| !id.is_empty())?;
    let of_crio = ["exit-dir", "socket-dir-path"]
        .iter()
        .filter_map(|name| flag(words, &[name]));
    let of_crio = of_crio
        .map(|dir| Path::new(OsStr::from_bytes(dir)))
        .any(|dir| dir.iter().any(|part| part == "crio"));
    Some((text(id), if of_crio { Keeper::Crio } else { Keeper::Other }))
}

/// The value of `-name value`, `--name value`, `-name=value` or `--name=value`.
fn flag<'a>(words: &[&'a [u8]], names: &[&str]) -> Option<&'a [u8]> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(name) = word
            .strip_prefix(b"-")
            .map(|rest| rest.strip_prefix(b"-").unwrap_or(rest))
        else {
            continue;
        };
        for wanted in names.iter().map(|name| name.as_bytes()) {
            match name.strip_prefix(wanted) {
                Some([]) => return words.next().copied(),
                Some([b'=', value @ ..]) => return Some(value),
                Some(_) | None => {}
            }
        }
    }
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(comm: &str) -> Process {
        Process {
            pid: 7,
            comm: comm.into(),
            start_time: 0,
            netns: Some(nodemend_hostfs::FileId { dev: 4, ino: 1 }),
            container_ids: vec![],
            cni: None,
        }
    }

    fn of(comm: &str, line: &str) -> Option<Shim> {
        read(&process(comm), line.replace(' ', "\0").as_bytes())
    }

    fn containerd(namespace: Option<&str>, address: &str) -> Keeper {
        Keeper::Containerd {
            namespace: namespace.map(str::to_owned),
            address: Some(address.into()),
        }
    }

    #[test]
    fn a_shim_names_its_container_and_its_containerd() {
        let run = "/run/containerd/containerd.sock";
        let k8s = containerd(Some("k8s.io"), run);
        let cases = [
            (
                "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id 8f3a -address /run/containerd/containerd.sock ",
                "8f3a",
                k8s.clone(),
            ),
            (
                "shim --namespace=k8s.io --id=8f3a --address=/run/containerd/containerd.sock",
                "8f3a",
                k8s.clone(),
            ),
            (
                "containerd-shim -namespace k8s.io -workdir /var/lib/containerd/io.containerd.runtime.v1.linux/k8s.io/8f3a -address /run/containerd/containerd.sock",
                "8f3a",
                k8s,
            ),
            (
                "shim -id x -address /run/containerd/containerd.sock",
                "x",
                containerd(None, run),
            ),
        ];
        for (line, id, keeper) in cases {
            assert_eq!(
                of("containerd-shim", line),
                Some(Shim {
                    pid: 7,
                    id: id.into(),
                    keeper
                }),
                "{line}"
            );
        }
    }

    #[test]
    fn conmon_names_its_container_and_maybe_cri_o() {
        let crio = of(
            "conmon",
            "conmon -b /run/x -c 8f3a --exit-dir /var/run/crio/exits",
        )
        .unwrap();
        assert_eq!((crio.id.as_str(), crio.keeper), ("8f3a", Keeper::Crio));
        let podman = of(
            "conmon",
            "/usr/bin/conmon --api-version 1 --cid=8f3a --exit-dir /run/libpod/exits",
        )
        .unwrap();
        assert_eq!((podman.id.as_str(), podman.keeper), ("8f3a", Keeper::Other));
    }

    #[test]
    fn a_shim_without_an_id_is_not_guessed_at() {
        for line in [
            "containerd-shim-runc-v2 -v",
            "shim -id",
            "shim -idle 5",
            "shim id x",
            "shim -id=",
        ] {
            assert_eq!(of("containerd-shim", line), None, "{line}");
        }
        let unread = Census {
            unread: vec!["/proc/9/stat: EIO".into()],
            ..Census::default()
        };
        assert_eq!(find(&Host::local(), &unread), Err("/proc/9/stat: EIO".into()));
    }

    #[test]
    fn a_socket_has_one_name_however_a_shim_spells_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("containerd.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let shim = |address: &Path| Shim {
            pid: 7,
            id: "8f3a".into(),
            keeper: containerd(Some("k8s.io"), address.to_str().unwrap()),
        };
        let other = dir.path().join("other.sock");
        let mut shims = [shim(&link), shim(&other)];
        rename(&Host::local(), &mut shims, std::slice::from_ref(&socket));
        assert_eq!(shims, [shim(&socket), shim(&other)]);
    }

    #[test]
    fn a_process_that_ended_is_left_out() {
        let gone = Process {
            pid: 4_194_305,
            ..process("containerd-shim")
        };
        let census = Census {
            processes: vec![gone],
            ..Census::default()
        };
        assert_eq!(find(&Host::local(), &census), Ok(vec![]));
    }
}
