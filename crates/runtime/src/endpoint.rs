//! Where the runtimes of a node listen.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The sockets that are looked for: containerd, k3s and RKE2, microk8s, CRI-O, cri-dockerd. The first, fourth and
/// fifth are crictl's defaults (cri-tools, `defaultRuntimeEndpoints`); the others are what those distributions set.
pub const WELL_KNOWN: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
];

/// crictl's configuration.
const CRICTL: &str = "/etc/crictl.yaml";
const CRICTL_LIMIT: u64 = 1 << 16;

/// Where a caller wants runtimes to be looked for.
#[derive(Default, Clone, Debug)]
pub struct Discovery {
    /// `--runtime-endpoint`, each. If there is one, nothing else is looked at.
    pub flags: Vec<String>,
    /// The value of `CONTAINER_RUNTIME_ENDPOINT`, which is crictl's variable, if it is set.
    pub environment: Option<String>,
}

/// One place where a runtime is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    address: String,
    target: Result<PathBuf, String>,
    /// Known to have no CRI, so that nobody asks for it.
    without_cri: bool,
}

impl Endpoint {
    /// An endpoint as people write it: a path, or one with `unix://`. Whatever else it says, it is kept: a runtime
    /// that somebody named and that cannot be asked is not one that said no.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let path = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
            .unwrap_or(text);
        if path.starts_with('/') {
            return Self {
                address: format!("unix://{path}"),
                target: Ok(PathBuf::from(path)),
                without_cri: false,
            };
        }
        let target = Err(format!(
            "cannot be asked: {text} is not the path of a socket; give --runtime-endpoint unix:///absolute/path"
        ));
        Self {
            address: text.to_owned(),
            target,
            without_cri: false,
        }
    }

    /// The same, of a runtime that was asked for its CRI and has none. Only for one that nobody named: where people say that
    /// a runtime is kubelet's, it must have one.
    pub(crate) fn without_cri(self) -> Self {
        Self {
            without_cri: true,
            ..self
        }
    }

    pub(crate) fn has_cri(&self) -> bool {
        !self.without_cri
    }

    /// The address as it stands in the names of sources: `unix:///run/containerd/containerd.sock`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The socket.
    ///
    /// # Errors
    /// Why there is none that could be asked, in words.
    pub fn socket(&self) -> Result<&Path, &str> {
        self.target.as_deref().map_err(String::as_str)
    }
}

/// Finds the runtimes of a node.
///
/// The endpoints in `flags` alone, if there are any. Otherwise those of the environment, of /etc/crictl.yaml and of
/// every socket in [`WELL_KNOWN`] that exists. Two names of one socket (a link, /var/run) are one endpoint.
pub fn discover(host: &Host, discovery: &Discovery) -> Vec<Endpoint> {
    let given = |texts: &[String]| texts.iter().map(|text| Endpoint::new(text)).collect::<Vec<_>>();
    if !discovery.flags.is_empty() {
        return distinct(host, given(&discovery.flags));
    }
    let environment = discovery
        .environment
        .iter()
        .filter(|text| !text.trim().is_empty());
    let mut found: Vec<_> = environment.map(|text| Endpoint::new(text)).collect();
    found.extend(crictl(host));
    let there = WELL_KNOWN
        .iter()
        .filter(|path| !matches!(locate(host, Path::new(path)), Located::Nothing));
    found.extend(there.map(|path| Endpoint::new(path)));
    distinct(host, found)
}

/// What crictl is told to use. A file that cannot be read is an endpoint that cannot be asked.
fn crictl(host: &Host) -> Option<Endpoint> {
    match host.read(Path::new(CRICTL), CRICTL_LIMIT) {
        Ok(bytes) => runtime_endpoint(&String::from_utf8_lossy(&bytes)).map(|text| Endpoint::new(&text)),
        Err(error) if error.is_not_found() => None,
        Err(error) => Some(Endpoint {
            address: CRICTL.to_owned(),
            target: Err(error.to_string()),
            without_cri: false,
        }),
    }
}

/// The value of `runtime-endpoint` in crictl's YAML, which is a flat map of plain or quoted words.
fn runtime_endpoint(yaml: &str) -> Option<String> {
    let value = yaml.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_matches(['"', '\'']) == "runtime-endpoint").then_some(value.trim())
    })?;
    let text = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim(),
    };
    (!text.is_empty() && !text.starts_with('#')).then(|| text.to_owned())
}

pub(crate) fn distinct(host: &Host, endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut files = HashSet::new();
    let mut addresses = HashSet::new();
    let mut kept = Vec::new();
    for endpoint in endpoints {
        let file = endpoint.socket().ok().and_then(|path| file_id(host, path));
        let is_new = addresses.insert(endpoint.address.clone());
        if is_new && file.is_none_or(|file| files.insert(file)) {
            kept.push(endpoint);
        }
    }
    kept
}

/// The identity of a file, if it can be had.
pub(crate) fn file_id(host: &Host, path: &Path) -> Option<FileId> {
    match locate(host, path) {
        Located::File(id) => Some(id),
        Located::Nothing | Located::Hidden => None,
    }
}

/// True for a socket that is root's.
pub(crate) fn is_roots_socket(host: &Host, path: &Path) -> bool {
    let stat = open_path(host, path).and_then(|fd| rustix::fs::fstat(&fd));
    stat.is_ok_and(|stat| stat.st_uid == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

enum Located {
    File(FileId),
    /// Nothing stands there.
    Nothing,
    /// Something may stand there, and cannot be looked at.
    Hidden,
}

/// A socket cannot be opened for reading: O_PATH names it and touches nothing.
fn locate(host: &Host, path: &Path) -> Located {
    match open_path(host, path).and_then(|fd| rustix::fs::fstat(&fd)) {
        Ok(stat) => Located::File(FileId::from(&stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Located::Nothing,
        Err(_) => Located::Hidden,
    }
}

fn open_path(host: &Host, path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if host.is_running() {
        return rustix::fs::openat(CWD, path, flags, Mode::empty());
    }
    let root = rustix::fs::open(host.root(), flags | OFlags::DIRECTORY, Mode::empty())?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&root, path, flags, Mode::empty(), inside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn addresses(found: &[Endpoint]) -> Vec<&str> {
        found.iter().map(Endpoint::address).collect()
    }

    fn tree() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["run/containerd", "run/crio", "etc", "var"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        symlink("/run", dir.path().join("var/run")).unwrap();
        let host = Host::at(dir.path());
        (dir, host)
    }

    #[test]
    fn a_flag_leaves_everything_else_unasked() {
        let (dir, host) = tree();
        let _socket = UnixListener::bind(dir.path().join("run/crio/crio.sock")).unwrap();
        let flags = vec!["/run/my.sock".to_owned(), "unix:///run/my.sock".to_owned()];
        let found = discover(
            &host,
            &Discovery {
                flags,
                environment: Some("/run/other.sock".into()),
            },
        );
        assert_eq!(addresses(&found), ["unix:///run/my.sock"]);
    }

    #[test]
    fn every_existing_socket_is_found_once_under_any_name() {
        let (dir, host) = tree();
        let _one = UnixListener::bind(dir.path().join("run/containerd/containerd.sock")).unwrap();
        let _two = UnixListener::bind(dir.path().join("run/crio/crio.sock")).unwrap();
        let crictl = "timeout: 2\nruntime-endpoint: \"unix:///var/run/containerd/containerd.sock\" # mine\n";
        std::fs::write(dir.path().join("etc/crictl.yaml"), crictl).unwrap();
        let found = discover(
            &host,
            &Discovery {
                environment: Some("/run/gone.sock".into()),
                flags: vec![],
            },
        );
        let wanted = [
            "unix:///run/gone.sock",
            "unix:///var/run/containerd/containerd.sock",
            "unix:///run/crio/crio.sock",
        ];
        assert_eq!(addresses(&found), wanted);
    }

    #[test]
    fn an_empty_node_has_no_endpoint() {
        let (_dir, host) = tree();
        assert_eq!(
            discover(
                &host,
                &Discovery {
                    environment: Some(" ".into()),
                    flags: vec![]
                }
            ),
            []
        );
    }

    #[test]
    fn what_is_no_socket_path_is_kept_and_cannot_be_asked() {
        for text in [
            "tcp://10.0.0.1:3735",
            "npipe:////./pipe/x",
            "containerd.sock",
            "unix://run/x.sock",
            "",
        ] {
            let endpoint = Endpoint::new(text);
            assert!(
                endpoint.socket().unwrap_err().contains("--runtime-endpoint"),
                "{text}"
            );
        }
        assert_eq!(
            Endpoint::new(" unix:/run/x.sock ").address(),
            "unix:///run/x.sock"
        );
    }

    #[test]
    fn crictl_s_file_is_read_as_people_write_it() {
        let cases = [
            (
                "runtime-endpoint: unix:///run/a.sock\n",
                Some("unix:///run/a.sock"),
            ),
            (
                "image-endpoint: x\nruntime-endpoint:   '/run/a.sock'\n",
                Some("/run/a.sock"),
            ),
            ("runtime-endpoint: /run/a.sock # comment", Some("/run/a.sock")),
            ("\"runtime-endpoint\": \"/run/a.sock\"", Some("/run/a.sock")),
            ("runtime-endpoint: \"\"\n", None),
            ("runtime-endpoint:\n", None),
            ("# runtime-endpoint: /run/a.sock\n", None),
            ("", None),
        ];
        for (yaml, wanted) in cases {
            assert_eq!(runtime_endpoint(yaml).as_deref(), wanted, "{yaml}");
        }
    }
}
