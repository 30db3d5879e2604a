//! What containerd was told, by its flags and its configuration.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Files, flag, glob};

/// Where containerd's configuration is, if no flag names it.
pub const CONFIG: &str = "/etc/containerd/config.toml";
const ROOT: &str = "/var/lib/containerd";
const STATE: &str = "/run/containerd";
const SOCKET: &str = "/run/containerd/containerd.sock";
/// The plugin that took over `[grpc]` in version 4 of the configuration.
const GRPC: &str = "io.containerd.server.v1.grpc";

/// The settings of a containerd that say where it is.
///
/// Flags win over the configuration, which wins over the defaults (containerd, cmd/containerd/command/main.go,
/// `applyFlags`). Versions 1 to 4 of the configuration are understood: `root`, `state`, `imports` and
/// `disabled_plugins` are the same in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerd {
    /// The configuration file; None if there is none, and none was named.
    pub config: Option<PathBuf>,
    /// Where its data lies.
    pub root: PathBuf,
    /// Where what belongs to running containers lies.
    pub state: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Directories of plugins (`root_path`) that are configured to lie outside of the root, by plugin; for a snapshotter
    /// that is a process of its own (`proxy_plugins`) the socket of that.
    pub elsewhere: Vec<(String, PathBuf)>,
    /// True if its CRI is turned off (`disabled_plugins`).
    pub cri_disabled: bool,
}

/// A configuration that cannot be read. containerd itself does not start with most of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl Containerd {
    /// Of its command line, and the configuration that it names.
    ///
    /// # Errors
    /// If a file of the configuration cannot be read, or an import is missing. A missing file at the default place is
    /// none.
    pub fn of(files: &Files, words: &[OsString]) -> Result<Self, Misread> {
        let named = flag(words, &["config", "c"]);
        let path = named.clone().unwrap_or_else(|| CONFIG.into());
        let merged = Merged::load(files, &path, named.is_some())?;
        let config = merged.is_some().then_some(path);
        Ok(merged.unwrap_or_default().settings(config, words))
    }

    /// Of its command line alone.
    pub fn of_flags(words: &[OsString]) -> Self {
        Merged::default().settings(None, words)
    }
}

/// A configuration with its imports. What comes later wins, but for lists, which grow (`mergeConfig`,
/// cmd/containerd/server/config/config.go).
#[derive(Debug, Default)]
struct Merged {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    /// `[grpc] address`.
    grpc: Option<PathBuf>,
    /// The same of version 4, which wins.
    grpc_plugin: Option<PathBuf>,
    elsewhere: BTreeMap<String, PathBuf>,
    cri_disabled: bool,
}

impl Merged {
    /// None if there is no such file, and it need not be there.
    fn load(files: &Files, path: &Path, must: bool) -> Result<Option<Self>, Misread> {
        let mut merged = Self::default();
        let mut pending = VecDeque::from([path.to_owned()]);
        let mut loaded = HashSet::new();
        while let Some(path) = pending.pop_front() {
            if loaded.contains(&path) {
                continue;
            }
            let misread = |reason| Misread {
                path: path.clone(),
                reason,
            };
            let Some(table) = table(files, &path).map_err(misread)? else {
                if loaded.is_empty() && !must {
                    return Ok(None);
                }
                return Err(misread(
                    "there is no such file, and containerd is told to read it".to_owned(),
                ));
            };
            merged.enter(&table);
            pending.extend(imports(files, &path, &table).map_err(misread)?);
            loaded.insert(path);
        }
        Ok(Some(merged))
    }

    fn enter(&mut self, table: &Table) {
        self.root = text(table, "root").or(self.root.take());
        self.state = text(table, "state").or(self.state.take());
        let grpc = table.get("grpc").and_then(Value::as_table);
        self.grpc = grpc.and_then(|grpc| text(grpc, "address")).or(self.grpc.take());
        self.cri_disabled |= strings(table, "disabled_plugins").any(is_cri);
        for (name, plugin) in tables(table, "plugins") {
            if name == GRPC {
                self.grpc_plugin = text(plugin, "address").or(self.grpc_plugin.take());
            }
            if let Some(path) = text(plugin, "root_path") {
                self.elsewhere.insert(whole_name(name), path);
            }
        }
        for (name, plugin) in tables(table, "proxy_plugins") {
            let is_snapshotter = plugin.get("type").and_then(Value::as_str) == Some("snapshot");
            if let Some(address) = text(plugin, "address").filter(|_| is_snapshotter) {
                self.elsewhere
                    .insert(format!("proxy snapshotter {name}"), address);
            }
        }
    }

    fn settings(self, config: Option<PathBuf>, words: &[OsString]) -> Containerd {
        let given = |names: &[&str], set: Option<PathBuf>, default: &str| {
            let flag = flag(words, names).filter(|path| !path.as_os_str().is_empty());
            flag.or(set).unwrap_or_else(|| default.into())
        };
        let root = given(&["root"], self.root, ROOT);
        let outside = |(_, path): &(String, PathBuf)| !path.starts_with(&root);
        Containerd {
            config,
            state: given(&["state"], self.state, STATE),
            socket: given(&["address", "a"], self.grpc_plugin.or(self.grpc), SOCKET),
            elsewhere: self.elsewhere.into_iter().filter(outside).collect(),
            cri_disabled: self.cri_disabled,
            root,
        }
    }
}

fn table(files: &Files, path: &Path) -> Result<Option<Table>, String> {
    let Some(bytes) = files.read(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_not_utf8| "it is not UTF-8".to_owned())?;
    let table = text
        .parse::<Table>()
        .map_err(|error| format!("it is no TOML: {}", error.message()))?;
    Ok(Some(table))
}

/// The files that a configuration imports. A path is relative to the directory of the file that names it; one with `*` is
/// a pattern (`resolveImports`, as of containerd 2; before, a relative pattern was left as it is and found nothing).
fn imports(files: &Files, parent: &Path, table: &Table) -> Result<Vec<PathBuf>, String> {
    let dir = parent.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for import in strings(table, "imports") {
        let path = clean(&dir.join(import));
        if import.contains('*') {
            found.extend(glob::find(files, &path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// As Go's `filepath.Clean` does, by the names alone.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(cleaned.pop()),
            Component::CurDir | Component::Prefix(_) => {}
            Component::RootDir | Component::Normal(_) => cleaned.push(component),
        }
    }
    cleaned
}

fn text(table: &Table, key: &str) -> Option<PathBuf> {
    let text = table.get(key).and_then(Value::as_str)?;
    (!text.is_empty()).then(|| text.into())
}

fn strings<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = &'t str> {
    let list = table.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn tables<'t>(table: &'t Table, key: &str) -> impl Iterator<Item = (&'t str, &'t Table)> {
    let tables = table.get(key).and_then(Value::as_table);
    let entries = tables.into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.as_str(), value.as_table()?)))
}

/// The CRI is one plugin up to containerd 1.7, and the service of two more from 2.0 on. In version 1 names are short.
fn is_cri(plugin: &str) -> bool {
    matches!(
        plugin,
        "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.runtime"
    )
}

/// In version 1 of the configuration names are short (`v1MigratePluginName`); of those with a `root_path` all are
/// snapshotters.
fn whole_name(name: &str) -> String {
    if name.contains('.') {
        name.to_owned()
    } else {
        format!("io.containerd.snapshotter.v1.{name}")
    }
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::Host;

    use super::*;

    fn read(files: &[(&str, &str)], line: &str) -> Result<Containerd, Misread> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Containerd::of(&Files::of_host(&Host::at(dir.path())), &words)
    }

    fn paths(found: &Containerd) -> [&str; 3] {
        [&found.root, &found.state, &found.socket].map(|path| path.to_str().unwrap())
    }

    #[test]
    fn without_a_configuration_the_defaults_hold() {
        let found = read(&[], "containerd").unwrap();
        assert_eq!(paths(&found), [ROOT, STATE, SOCKET]);
        assert_eq!(found.config, None);
        assert!(read(&[], "containerd -c /etc/none.toml").is_err());
    }

    #[test]
    fn every_version_of_the_configuration_is_read() {
        let one = "root = '/d/1'\noom_score = -999\n[grpc]\naddress = \"/r/1.sock\"\n[plugins]\n  [plugins.cri]\n    sandbox_image = \"p\"\n\
            [plugins.overlayfs]\nroot_path = \"/fast\"\n";
        let two = "version = 2\nroot = \"/d/2\"\nstate = \"/r/2\"\n[grpc]\n  address = \"/r/2.sock\"\n\
            [plugins.\"io.containerd.grpc.v1.cri\"]\n root = \"/no\"\n[plugins.\"io.containerd.snapshotter.v1.devmapper\"]\nroot_path = \"/d/2/dm\"\n";
        let three = "version = 3\nroot = \"/d/3\"\n[grpc]\naddress = '/r/3.sock'\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
            sandbox = 'pause'\n[proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = \"/run/stargz.sock\"\n";
        let four = "version = 4\nroot = \"/d/4\"\n[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/r/4.sock\"\n";
        let elsewhere = |name: &str, path: &str| vec![(name.to_owned(), PathBuf::from(path))];
        for (text, wanted, moved) in [
            (
                one,
                ["/d/1", STATE, "/r/1.sock"],
                elsewhere("io.containerd.snapshotter.v1.overlayfs", "/fast"),
            ),
            (two, ["/d/2", "/r/2", "/r/2.sock"], vec![]),
            (
                three,
                ["/d/3", STATE, "/r/3.sock"],
                elsewhere("proxy snapshotter stargz", "/run/stargz.sock"),
            ),
            (four, ["/d/4", STATE, "/r/4.sock"], vec![]),
        ] {
            let found = read(&[(CONFIG, text)], "/usr/bin/containerd").unwrap();
            assert_eq!(paths(&found), wanted);
            assert_eq!(found.elsewhere, moved);
            assert_eq!(found.config.as_deref(), Some(Path::new(CONFIG)));
            assert!(!found.cri_disabled);
        }
    }

    #[test]
    fn flags_win_over_the_configuration() {
        let files = [(
            "/k3s/config.toml",
            "version = 2\nroot = \"/no\"\nstate = \"/r\"\n",
        )];
        let line = "containerd -c /k3s/config.toml -a /run/k3s/containerd/containerd.sock --root /var/lib/rancher/k3s/agent/containerd";
        let found = read(&files, line).unwrap();
        let wanted = [
            "/var/lib/rancher/k3s/agent/containerd",
            "/r",
            "/run/k3s/containerd/containerd.sock",
        ];
        assert_eq!(paths(&found), wanted);
    }

    #[test]
    fn imports_are_followed_once_each_and_the_last_one_wins() {
        let files = [
            (
                CONFIG,
                "version = 2\nroot = \"/d/main\"\nimports = [\"conf.d/*.toml\", \"/etc/more.toml\", \"config.toml\"]\n",
            ),
            (
                "/etc/containerd/conf.d/10-a.toml",
                "root = \"/d/a\"\nstate = \"/r/a\"\n",
            ),
            (
                "/etc/containerd/conf.d/20-b.toml",
                "root = \"/d/b\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
            ),
            ("/etc/containerd/conf.d/README", "root = [\n"),
            ("/etc/more.toml", "imports = [\"../etc/last.toml\"]\n"),
            ("/etc/last.toml", "[grpc]\naddress = \"/r/last.sock\"\n"),
        ];
        let found = read(&files, "containerd").unwrap();
        assert_eq!(paths(&found), ["/d/b", "/r/a", "/r/last.sock"]);
        assert!(found.cri_disabled);
    }

    #[test]
    fn what_containerd_would_not_start_with_is_an_error_that_names_the_file() {
        let broken = read(&[(CONFIG, "root = \"/d\nstate")], "containerd").unwrap_err();
        assert_eq!(broken.path, Path::new(CONFIG));
        let missing = read(&[(CONFIG, "imports = [\"/etc/none.toml\"]")], "containerd").unwrap_err();
        assert_eq!(missing.path, Path::new("/etc/none.toml"));
    }
}
