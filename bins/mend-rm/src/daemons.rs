//! The container runtimes and kubelets that run, and the directories they live in.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use rustix::io::Errno;

use crate::deadline::answered;
use crate::overlays::below_root;
use crate::position::{lies_in, open_path};
use crate::processes::Process;

/// The most of a configuration file that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// What a kind of daemon is called, and where it keeps its files.
struct Kind {
    /// What its process is called.
    names: &'static [&'static str],
    dirs: &'static [Place],
}

/// A directory that a daemon lives in.
struct Place {
    /// `root`, `state`.
    what: &'static str,
    /// The flags that move it, without their dashes.
    flags: &'static [&'static str],
    /// What in the configuration moves it.
    setting: Option<Setting>,
    /// Where it is otherwise.
    default: &'static str,
}

/// A line of a configuration file.
struct Setting {
    /// The flags that name the file.
    flags: &'static [&'static str],
    /// Where it is otherwise.
    file: &'static str,
    form: Form,
    key: &'static str,
}

/// How a configuration file is written.
#[derive(Clone, Copy)]
enum Form {
    /// TOML, the key before any table.
    TomlTop,
    /// TOML, the key in any table.
    Toml,
    /// One JSON object.
    Json,
}

const KINDS: &[Kind] = &[
    Kind {
        names: &["containerd"],
        dirs: &[
            Place {
                what: "root",
                flags: &["root"],
                setting: Some(CONTAINERD_ROOT),
                default: "/var/lib/containerd",
            },
            Place {
                what: "state",
                flags: &["state"],
                setting: Some(Setting {
                    key: "state",
                    ..CONTAINERD_ROOT
                }),
                default: "/run/containerd",
            },
        ],
    },
    Kind {
        names: &["dockerd"],
        dirs: &[
            Place {
                what: "data root",
                flags: &["data-root", "graph", "g"],
                setting: Some(Setting {
                    flags: &["config-file"],
                    file: "/etc/docker/daemon.json",
                    form: Form::Json,
                    key: "data-root",
                }),
                default: "/var/lib/docker",
            },
            Place {
                what: "exec root",
                flags: &["exec-root"],
                setting: None,
                default: "/run/docker",
            },
        ],
    },
    Kind {
        names: &["crio", "cri-o"],
        dirs: &[
            Place {
                what: "root",
                flags: &["root", "r"],
                setting: Some(Setting {
                    flags: &["config", "c"],
                    file: "/etc/crio/crio.conf",
                    form: Form::Toml,
                    key: "root",
                }),
                default: "/var/lib/containers/storage",
            },
            Place {
                what: "storage",
                flags: &["root", "r"],
                setting: Some(Setting {
                    flags: &[],
                    file: "/etc/containers/storage.conf",
                    form: Form::Toml,
                    key: "graphroot",
                }),
                default: "/var/lib/containers/storage",
            },
        ],
    },
    Kind {
        names: &["kubelet"],
        dirs: &[KUBELET],
    },
    Kind {
        names: &["k3s", "k3s-server", "k3s-agent"],
        dirs: &[
            KUBELET,
            Place {
                what: "data directory",
                flags: &["data-dir", "d"],
                setting: None,
                default: "/var/lib/rancher/k3s",
            },
        ],
    },
    Kind {
        names: &["rke2"],
        dirs: &[
            KUBELET,
            Place {
                what: "data directory",
                flags: &["data-dir", "d"],
                setting: None,
                default: "/var/lib/rancher/rke2",
            },
        ],
    },
];

const CONTAINERD_ROOT: Setting = Setting {
    flags: &["config", "c"],
    file: "/etc/containerd/config.toml",
    form: Form::TomlTop,
    key: "root",
};

const KUBELET: Place = Place {
    what: "root directory",
    flags: &["root-dir"],
    setting: None,
    default: "/var/lib/kubelet",
};

/// A daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) pid: u32,
    /// `containerd`, `kubelet`.
    pub(crate) name: &'static str,
    pub(crate) homes: Vec<Home>,
    /// What could not be read of where it lives.
    pub(crate) unseen: Vec<String>,
}

/// A directory that a daemon lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) what: &'static str,
    /// As the daemon sees it.
    pub(crate) path: PathBuf,
}

/// How the home of a daemon stands to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the tree, or lies in it.
    Inside,
    /// The tree lies in it.
    Around,
    /// Neither.
    Apart,
    /// It cannot be told.
    Unknown(String),
}

/// The daemon that a process is, with where it lives.
pub(crate) fn recognize(process: &Process) -> Option<Daemon> {
    let (kind, name) = kind_of(process)?;
    let mut unseen = Vec::new();
    let words = match nodemend_procns::cmdline(&Host::local(), process.pid) {
        Ok(words) => words,
        Err(error) => {
            unseen.push(format!("its command line: {error}"));
            Vec::new()
        }
    };
    let homes = kind
        .dirs
        .iter()
        .map(|place| Home {
            what: place.what,
            path: home(place, &words, process.pid, &mut unseen),
        })
        .collect();
    Some(Daemon {
        pid: process.pid,
        name,
        homes,
        unseen,
    })
}

fn kind_of(process: &Process) -> Option<(&'static Kind, &'static str)> {
    let called = |name: &str| process.name == name || process.program.as_deref() == Some(name);
    KINDS.iter().find_map(|kind| {
        let name = kind.names.iter().find(|name| called(name))?;
        Some((kind, *name))
    })
}

fn home(place: &Place, words: &[OsString], pid: u32, unseen: &mut Vec<String>) -> PathBuf {
    let set = flag(words, place.flags).or_else(|| {
        let setting = place.setting.as_ref()?;
        let file = flag(words, setting.flags).unwrap_or_else(|| setting.file.into());
        let path = below_root(pid, &file);
        match answered(move || Host::local().read(&path, LIMIT)) {
            Some(Ok(text)) => value(&String::from_utf8_lossy(&text), setting.form, setting.key),
            Some(Err(error)) if error.is_not_found() => None,
            Some(Err(error)) => {
                unseen.push(format!("its configuration: {error}"));
                None
            }
            None => {
                unseen.push(format!("its configuration: {} gives no answer", file.display()));
                None
            }
        }
    });
    set.unwrap_or_else(|| place.default.into())
}

/// The value of a flag, as Go's flag packages take it: one dash or two, `=` or the next word; the last one counts.
fn flag(words: &[OsString], names: &[&str]) -> Option<PathBuf> {
    let mut value = None;
    for (at, word) in words.iter().enumerate() {
        let bytes = word.as_bytes();
        let Some(rest) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")) else {
            continue;
        };
        for name in names {
            match rest.strip_prefix(name.as_bytes()) {
                Some([]) => value = words.get(at + 1).map(PathBuf::from).or(value),
                Some([b'=', given @ ..]) => value = Some(OsStr::from_bytes(given).into()),
                Some(_) | None => {}
            }
        }
    }
    value
}

fn value(text: &str, form: Form, key: &str) -> Option<PathBuf> {
    if matches!(form, Form::Json) {
        let object: serde_json::Value = serde_json::from_str(text).ok()?;
        return object.get(key)?.as_str().map(PathBuf::from);
    }
    let lines = text.lines().map(str::trim);
    lines
        .take_while(|line| !(matches!(form, Form::TomlTop) && line.starts_with('[')))
        .find_map(|line| {
            let (name, value) = line.split_once('=')?;
            let name = name.trim().trim_matches(['"', '\'']);
            let value = value.trim();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (value, _) = value.get(1..)?.split_once(quote)?;
            (name == key && !value.is_empty()).then(|| value.into())
        })
}

/// How a daemon's directory stands to a tree: by what the directories are, as names may be links.
pub(crate) fn standing(daemon: &Daemon, home: &Home, tree: &Path, id: FileId) -> Standing {
    // An answer is worth something only for a path that the daemon resolves the same way.
    if !home.path.is_absolute() {
        return Standing::Unknown("it is given relative to where the daemon was started".to_owned());
    }
    let (path, tree) = (below_root(daemon.pid, &home.path), tree.to_owned());
    answered(move || by_identity(&path, &tree, id))
        .unwrap_or_else(|| Standing::Unknown("its file system does not answer".to_owned()))
}

fn by_identity(home: &Path, tree: &Path, id: FileId) -> Standing {
    let unknown = |errno: Errno| Standing::Unknown(errno.to_string());
    let dir = match open_path(home) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Standing::Apart,
        Err(errno) => return unknown(errno),
    };
    match lies_in(&dir, id) {
        Ok(true) => return Standing::Inside,
        Ok(false) => {}
        Err(errno) => return unknown(errno),
    }
    let around = FileId::of(&dir)
        .ok()
        .zip(open_path(tree).ok())
        .is_some_and(|(home, tree)| lies_in(tree, home).unwrap_or(false));
    if around { Standing::Around } else { Standing::Apart }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_flag_is_found_in_every_spelling_and_the_last_one_counts() {
        for line in [
            "containerd --root /a",
            "containerd -root=/a",
            "containerd --root=/b --root /a --state /c",
            "containerd --log-level info --root=/a",
        ] {
            assert_eq!(flag(&words(line), &["root"]), Some("/a".into()), "{line}");
        }
        for line in [
            "kubelet --root-dir=/a",
            "containerd --rootless",
            "root /a",
            "x --root",
        ] {
            assert_eq!(flag(&words(line), &["root"]), None, "{line}");
        }
    }

    #[test]
    fn only_the_root_of_containerd_itself_is_read_from_its_configuration() {
        let config = "version = 2\n# root = \"/no\"\nroot = '/data/containerd' # moved\n[plugins.x]\nroot = \"/plugin\"\n";
        assert_eq!(
            value(config, Form::TomlTop, "root"),
            Some("/data/containerd".into())
        );
        let plugin = "[plugins.x]\nroot = \"/plugin\"\n";
        assert_eq!(value(plugin, Form::TomlTop, "root"), None);
        assert_eq!(value(plugin, Form::Toml, "root"), Some("/plugin".into()));
    }

    #[test]
    fn dockers_data_root_is_read_from_its_configuration() {
        let config = r#"{"log-driver": "journald", "data-root": "/data/docker"}"#;
        assert_eq!(
            value(config, Form::Json, "data-root"),
            Some("/data/docker".into())
        );
        assert_eq!(value("not json", Form::Json, "data-root"), None);
    }

    #[test]
    fn a_daemon_is_known_by_its_name_or_its_program() {
        let process = |name: &str, program: Option<&str>| Process {
            pid: 1,
            name: name.into(),
            program: program.map(str::to_owned),
        };
        let name = |process| kind_of(&process).map(|(_, name)| name);
        assert_eq!(name(process("containerd", None)), Some("containerd"));
        assert_eq!(name(process("main", Some("kubelet"))), Some("kubelet"));
        assert_eq!(
            name(process("containerd-shim", Some("containerd-shim-runc-v2"))),
            None
        );
    }

    #[test]
    fn the_home_of_a_daemon_is_compared_by_what_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |path: &str| scratch.path().join(path);
        std::fs::create_dir_all(at("data/containerd/snapshots")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::os::unix::fs::symlink(at("data/containerd"), at("link")).unwrap();
        let stand = |home: &str, tree: &str| {
            let id = FileId::of(open_path(&at(tree)).unwrap()).unwrap();
            by_identity(&at(home), &at(tree), id)
        };
        assert_eq!(stand("link", "data/containerd"), Standing::Inside);
        assert_eq!(stand("link", "data"), Standing::Inside);
        assert_eq!(stand("link", "data/containerd/snapshots"), Standing::Around);
        assert_eq!(stand("link", "other"), Standing::Apart);
        assert_eq!(stand("missing", "data"), Standing::Apart);
    }
}
