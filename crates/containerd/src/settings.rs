//! Where containerd lives: its configuration, root, state and socket.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;
use nodemend_procns::{Census, Process};
use nodemend_runtime::daemons::{self, Containerd, Files, flag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::service::{Manager, Service, ServiceState};

/// The settings of one containerd.
///
/// Flags win over the configuration file, and that over the defaults (containerd, `cmd/containerd/command/main.go`,
/// `applyFlags`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The configuration file, if one was named or the default one exists.
    pub config: Option<PathBuf>,
    /// Where its data lies: content, snapshots, `meta.db`. As it is configured: a link is not resolved.
    pub root: PathBuf,
    /// Where what belongs to running containers lies.
    pub state: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Its program.
    pub program: PathBuf,
    /// By what this was found.
    pub origin: Origin,
    /// Directories of plugins that the configuration moved out of the root: setting the root aside leaves them as they
    /// are.
    pub elsewhere: Vec<Elsewhere>,
    /// True if the configuration turns the CRI off, as Docker's packages do: then kubelet does not use this containerd.
    pub cri_disabled: bool,
}

/// By what the settings were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", content = "what", rename_all = "camelCase")]
pub enum Origin {
    /// The command line of the containerd that runs, by its pid.
    Process(u32),
    /// ExecStart of its unit.
    Unit(String),
    /// `--config`.
    Given,
    /// Nothing was found: the defaults.
    Default,
}

/// A directory of a plugin that lies outside of the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Elsewhere {
    /// The plugin: `io.containerd.snapshotter.v1.overlayfs`, or `proxy snapshotter stargz`.
    pub plugin: String,
    /// Its directory; the socket of a proxy snapshotter, which keeps its own.
    pub path: PathBuf,
}

/// The name that the kernel has for its process.
const COMM: &str = "containerd";
const PROGRAM: &str = "/usr/bin/containerd";

/// Finds the containerd that is meant, and reads its settings.
///
/// A node may run several: Docker's, one in a container (kind, dind), a second one on purpose. So where systemd knows
/// the unit, only a process of that unit counts, and otherwise a single one; what runs in a container never does.
///
/// # Errors
/// [`Error::Ambiguous`]; [`Error::Configuration`] if its configuration or its unit cannot be understood.
pub(crate) fn find(
    host: &Host,
    census: &Census,
    service: &Service,
    state: &ServiceState,
    given: Option<&Path>,
) -> Result<Settings, Error> {
    let running = running(host, census);
    let has_unit = service.manager == Manager::Systemd && state.load.as_deref() == Some("loaded");
    let chosen = if has_unit {
        of_unit(host, &running, service, state)
    } else {
        alone(&running, service, given)?
    };
    if let Some(process) = chosen {
        let files = Files::of_process(process.pid);
        let program = process.program.clone().unwrap_or_else(|| PROGRAM.into());
        return read(&files, &process.words, program, Origin::Process(process.pid));
    }
    let files = Files::of_host(host);
    match (given, has_unit) {
        (Some(config), _) => {
            let mut words = if has_unit { known_words(state) } else { Vec::new() };
            words.extend(["--config".into(), config.into()]);
            read(&files, &words, program(state), Origin::Given)
        }
        (None, true) => {
            let words = whole_words(service, state)?;
            read(&files, &words, program(state), Origin::Unit(service.name.clone()))
        }
        (None, false) => read(&files, &[], PROGRAM.into(), Origin::Default),
    }
}

/// A containerd that runs on the host.
struct Running {
    pid: u32,
    words: Vec<OsString>,
    program: Option<PathBuf>,
}

/// Those of this pid namespace that are in no container.
fn running(host: &Host, census: &Census) -> Vec<Running> {
    let outer = census.process(1).map_or(&[][..], |init| &init.container_ids);
    let contained = |process: &Process| process.container_ids.iter().any(|id| !outer.contains(id));
    let own = link("self", "ns/pid");
    census
        .processes
        .iter()
        .filter(|process| process.comm == COMM && !contained(process))
        .filter(|process| own.is_some() && link(&process.pid.to_string(), "ns/pid") == own)
        .filter_map(|process| {
            // A zombie has no command line.
            let words = nodemend_procns::cmdline(host, process.pid).ok()?;
            (!words.is_empty()).then(|| Running {
                pid: process.pid,
                program: link(&process.pid.to_string(), "exe"),
                words,
            })
        })
        .collect()
}

fn link(process: &str, name: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{process}/{name}")).ok()
}

/// The main process, or the only containerd among the processes of the unit (k3s starts its own).
fn of_unit<'r>(
    host: &Host,
    running: &'r [Running],
    service: &Service,
    state: &ServiceState,
) -> Option<&'r Running> {
    let main = running.iter().find(|process| Some(process.pid) == state.main_pid);
    main.or_else(|| {
        let mut own = running
            .iter()
            .filter(|process| is_in_unit(host, process.pid, &service.name));
        own.next().filter(|_| own.next().is_none())
    })
}

fn is_in_unit(host: &Host, pid: u32, unit: &str) -> bool {
    let cgroups = host.read(Path::new(&format!("/proc/{pid}/cgroup")), 1 << 20);
    cgroups.is_ok_and(|text| {
        let text = String::from_utf8_lossy(&text);
        text.lines().any(|line| line.split('/').any(|name| name == unit))
    })
}

/// Without a unit: the only one, or the one with the configuration that was given.
fn alone<'r>(
    running: &'r [Running],
    service: &Service,
    given: Option<&Path>,
) -> Result<Option<&'r Running>, Error> {
    let config =
        |process: &Running| flag(&process.words, &["config", "c"]).unwrap_or_else(|| daemons::CONFIG.into());
    let meant: Vec<&Running> = running
        .iter()
        .filter(|process| given.is_none_or(|given| config(process) == given))
        .collect();
    match meant.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => Err(Error::Ambiguous {
            count: several.len(),
            pids: several
                .iter()
                .map(|process| process.pid.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            unit: service.name.clone(),
        }),
    }
}

fn program(state: &ServiceState) -> PathBuf {
    state
        .exec_start
        .first()
        .map_or_else(|| PROGRAM.into(), PathBuf::from)
}

/// The words of the unit's command line, but for variables, of which only systemd knows the values.
fn known_words(state: &ServiceState) -> Vec<OsString> {
    let known = state.exec_start.iter().filter(|word| !word.contains('$'));
    known.map(OsString::from).collect()
}

/// The command line of the unit, if all of it can be known: a variable may name another root.
fn whole_words(service: &Service, state: &ServiceState) -> Result<Vec<OsString>, Error> {
    let refuse = |reason: String| {
        let path = state
            .unit_file
            .clone()
            .unwrap_or_else(|| PathBuf::from(&service.name));
        Err(Error::Configuration { path, reason })
    };
    let name = program(state);
    if name.file_name().is_none_or(|name| name != COMM) {
        return refuse(format!(
            "the unit starts {}, and no containerd of it runs: where that keeps its data is not known",
            name.display()
        ));
    }
    match state.exec_start.iter().find(|word| word.contains('$')) {
        Some(word) => refuse(format!(
            "its command line has the variable {word}, which may name another root"
        )),
        None => Ok(state.exec_start.iter().map(OsString::from).collect()),
    }
}

fn read(files: &Files, words: &[OsString], program: PathBuf, origin: Origin) -> Result<Settings, Error> {
    let found = Containerd::of(files, words).map_err(|misread| Error::Configuration {
        path: misread.path,
        reason: misread.reason,
    })?;
    let relative = [&found.root, &found.state, &found.socket]
        .into_iter()
        .find(|path| !path.is_absolute());
    if let Some(path) = relative {
        return Err(Error::Configuration {
            path: found.config.clone().unwrap_or_else(|| program.clone()),
            reason: format!("{} is relative to where containerd was started", path.display()),
        });
    }
    let elsewhere = found.elsewhere.into_iter();
    Ok(Settings {
        config: found.config,
        root: found.root,
        state: found.state,
        socket: found.socket,
        program,
        origin,
        elsewhere: elsewhere
            .map(|(plugin, path)| Elsewhere { plugin, path })
            .collect(),
        cri_disabled: found.cri_disabled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Service {
        Service {
            name: "containerd.service".into(),
            manager: Manager::Systemd,
        }
    }

    fn state(exec_start: &str) -> ServiceState {
        ServiceState {
            load: Some("loaded".into()),
            exec_start: exec_start.split(' ').map(str::to_owned).collect(),
            unit_file: Some("/etc/systemd/system/containerd.service".into()),
            ..ServiceState::default()
        }
    }

    /// On a node with these files, on which no containerd runs.
    fn found(files: &[(&str, &str)], state: &ServiceState, given: Option<&str>) -> Result<Settings, Error> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::at(dir.path());
        find(&host, &Census::default(), &unit(), state, given.map(Path::new))
    }

    #[test]
    fn a_stopped_containerd_is_found_by_its_unit() {
        let files = [("/soft/config.toml", "version = 2\nroot = \"/data/containerd\"\n")];
        let settings = found(&files, &state("/soft/bin/containerd -c /soft/config.toml"), None).unwrap();
        assert_eq!(settings.root, Path::new("/data/containerd"));
        assert_eq!(settings.program, Path::new("/soft/bin/containerd"));
        assert_eq!(settings.origin, Origin::Unit("containerd.service".into()));
    }

    #[test]
    fn a_unit_of_which_the_command_line_is_not_known_whole_is_refused() {
        let variable = state("/usr/bin/containerd $CONTAINERD_ARGS");
        assert!(
            found(&[], &variable, None)
                .unwrap_err()
                .to_string()
                .contains("--config")
        );
        let files = [("/c.toml", "root = \"/d\"\n")];
        let settings = found(&files, &variable, Some("/c.toml")).unwrap();
        assert_eq!(
            (settings.root.as_path(), settings.origin),
            (Path::new("/d"), Origin::Given)
        );
        let k3s = found(&[], &state("/usr/local/bin/k3s server"), None)
            .unwrap_err()
            .to_string();
        assert!(k3s.contains("starts /usr/local/bin/k3s"), "{k3s}");
    }

    #[test]
    fn without_a_unit_the_defaults_hold() {
        let absent = ServiceState {
            load: Some("not-found".into()),
            ..ServiceState::default()
        };
        let settings = found(&[], &absent, None).unwrap();
        assert_eq!(
            (settings.root.to_str(), settings.origin),
            (Some("/var/lib/containerd"), Origin::Default)
        );
        assert_eq!(settings.config, None);
        let wrong = found(&[("/etc/containerd/config.toml", "root = [")], &absent, None).unwrap_err();
        assert!(
            matches!(wrong, Error::Configuration { path, .. } if path == Path::new("/etc/containerd/config.toml"))
        );
    }

    #[test]
    fn of_several_without_a_unit_only_the_one_that_was_named_is_meant() {
        let process = |pid: u32, line: &str| Running {
            pid,
            words: line.split(' ').map(OsString::from).collect(),
            program: None,
        };
        let running = [
            process(7, "containerd"),
            process(
                9,
                "containerd --config /var/run/docker/containerd/containerd.toml",
            ),
        ];
        assert!(matches!(
            alone(&running, &unit(), None),
            Err(Error::Ambiguous { count: 2, .. })
        ));
        let given = |path: &str| {
            alone(&running, &unit(), Some(Path::new(path)))
                .unwrap()
                .map(|found| found.pid)
        };
        assert_eq!(given("/etc/containerd/config.toml"), Some(7));
        assert_eq!(given("/var/run/docker/containerd/containerd.toml"), Some(9));
        assert_eq!(given("/etc/other.toml"), None);
    }
}
