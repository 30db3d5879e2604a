//! The daemons of a node - runtimes and kubelets - and the directories they live in.
//!
//! ```
//! use nodemend_runtime::daemons::flag;
//!
//! let words = ["containerd", "--root=/data/containerd"].map(Into::into);
//! assert_eq!(flag(&words, &["root"]), Some("/data/containerd".into()));
//! ```

mod containerd;
mod files;
mod glob;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nodemend_hostfs::Host;
use toml::{Table, Value};

pub use containerd::{CONFIG, Containerd, Misread};
pub use files::Files;

/// What a kind of daemon is called, and where it keeps its files.
struct Kind {
    /// What its process is called.
    names: &'static [&'static str],
    /// containerd's configuration is read by [`Containerd`].
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
    /// TOML, the key in any table.
    Toml,
    /// One JSON object.
    Json,
}

const CONTAINERD: &str = "containerd";

const KINDS: &[Kind] = &[
    Kind {
        names: &[CONTAINERD],
        dirs: &[],
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

const KUBELET: Place = Place {
    what: "root directory",
    flags: &["root-dir"],
    setting: None,
    default: "/var/lib/kubelet",
};

/// A daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its pid.
    pub pid: u32,
    /// `containerd`, `kubelet`.
    pub name: &'static str,
    /// The directories it lives in.
    pub homes: Vec<Home>,
    /// What could not be read of where it lives.
    pub unseen: Vec<String>,
}

/// A directory that a daemon lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// `root`, `state`.
    pub what: &'static str,
    /// As the daemon sees it.
    pub path: PathBuf,
}

/// The daemon that a process of the running host is, with where it lives: by its name (`comm`) or the file name of its
/// program. None if it is none.
///
/// Never waits for a file system that does not answer: what could not be read is in [`Daemon::unseen`], and the default
/// stands in for it.
pub fn recognize(pid: u32, name: &str, program: Option<&str>) -> Option<Daemon> {
    let (kind, name) = kind_of(name, program)?;
    let mut unseen = Vec::new();
    let words = match nodemend_procns::cmdline(&Host::local(), pid) {
        Ok(words) => words,
        Err(error) => {
            unseen.push(format!("its command line: {error}"));
            Vec::new()
        }
    };
    let files = Files::of_process(pid);
    let mut homes: Vec<Home> = kind
        .dirs
        .iter()
        .map(|place| Home {
            what: place.what,
            path: home(place, &words, &files, &mut unseen),
        })
        .collect();
    if name == CONTAINERD {
        homes.extend(homes_of_containerd(&words, &files, &mut unseen));
    }
    Some(Daemon {
        pid,
        name,
        homes,
        unseen,
    })
}

fn kind_of(comm: &str, program: Option<&str>) -> Option<(&'static Kind, &'static str)> {
    let called = |name: &str| comm == name || program == Some(name);
    KINDS.iter().find_map(|kind| {
        let name = kind.names.iter().find(|name| called(name))?;
        Some((kind, *name))
    })
}

fn homes_of_containerd(words: &[OsString], files: &Files, unseen: &mut Vec<String>) -> Vec<Home> {
    let settings = Containerd::of(files, words).unwrap_or_else(|misread| {
        unseen.push(format!("its configuration: {misread}"));
        Containerd::of_flags(words)
    });
    let home = |what, path| Home { what, path };
    let elsewhere = settings
        .elsewhere
        .into_iter()
        .map(|(_, path)| home("plugin directory", path));
    [home("root", settings.root), home("state", settings.state)]
        .into_iter()
        .chain(elsewhere)
        .collect()
}

fn home(place: &Place, words: &[OsString], files: &Files, unseen: &mut Vec<String>) -> PathBuf {
    let set = flag(words, place.flags).or_else(|| {
        let setting = place.setting.as_ref()?;
        let file = flag(words, setting.flags).unwrap_or_else(|| setting.file.into());
        let read = files.read(&file).and_then(|text| match text {
            Some(text) => value(&String::from_utf8_lossy(&text), setting.form, setting.key)
                .map_err(|reason| format!("{}: {reason}", file.display())),
            None => Ok(None),
        });
        read.unwrap_or_else(|reason| {
            unseen.push(format!("its configuration: {reason}"));
            None
        })
    });
    set.unwrap_or_else(|| place.default.into())
}

/// The value of a flag, as Go's flag packages take it: one dash or two, `=` or the next word; the last one counts.
/// `names` are without dashes.
pub fn flag(words: &[OsString], names: &[&str]) -> Option<PathBuf> {
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

fn value(text: &str, form: Form, key: &str) -> Result<Option<PathBuf>, String> {
    let found = match form {
        Form::Json => {
            let object: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
            object
                .get(key)
                .and_then(|value| value.as_str())
                .map(PathBuf::from)
        }
        Form::Toml => anywhere(
            &text
                .parse::<Table>()
                .map_err(|error| error.message().to_owned())?,
            key,
        ),
    };
    Ok(found)
}

fn anywhere(table: &Table, key: &str) -> Option<PathBuf> {
    let here = table
        .get(key)
        .and_then(Value::as_str)
        .filter(|value| !value.is_empty());
    here.map(PathBuf::from).or_else(|| {
        let mut tables = table.values().filter_map(Value::as_table);
        tables.find_map(|table| anywhere(table, key))
    })
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
    fn cri_o_s_root_is_read_from_whatever_table_it_is_in() {
        let config = "[crio]\n# root = \"/no\"\nroot = '/data/crio' # moved\n";
        assert_eq!(value(config, Form::Toml, "root"), Ok(Some("/data/crio".into())));
        assert_eq!(value("[crio]\nroot = ''\n", Form::Toml, "root"), Ok(None));
        assert!(value("root = [", Form::Toml, "root").is_err());
    }

    #[test]
    fn dockers_data_root_is_read_from_its_configuration() {
        let config = r#"{"log-driver": "journald", "data-root": "/data/docker"}"#;
        assert_eq!(
            value(config, Form::Json, "data-root"),
            Ok(Some("/data/docker".into()))
        );
        assert!(value("not json", Form::Json, "data-root").is_err());
    }

    #[test]
    fn a_daemon_is_known_by_its_name_or_its_program() {
        let name = |comm: &str, program: Option<&str>| kind_of(comm, program).map(|(_, name)| name);
        assert_eq!(name("containerd", None), Some("containerd"));
        assert_eq!(name("main", Some("kubelet")), Some("kubelet"));
        assert_eq!(name("containerd-shim", Some("containerd-shim-runc-v2")), None);
    }
}
