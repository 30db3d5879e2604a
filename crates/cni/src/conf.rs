//! The networks that a node is configured for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Error, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conflist::{self, ConfList, Form, Object, Plugin, text};
use crate::files::LIMIT;
use crate::flannel;
use crate::ipam::{self, HOST_LOCAL, Ipam};
use crate::problem::Problem;
use crate::range::RangeSet;

/// Where the runtimes look for configurations unless told otherwise.
pub const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";

/// Where plugins are: the runtimes' default, then those of distributions.
pub const DEFAULT_BIN_DIRS: &[&str] = &["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// The bridge of the plugins bridge and flannel, unless told otherwise (`defaultBrName` in bridge.go).
const DEFAULT_BRIDGE: &str = "cni0";

/// All networks that a node is configured for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Configurations {
    /// The networks, in the order of the files' names. A runtime takes the first as the default.
    pub networks: Vec<Network>,
    /// What could not be read or understood.
    pub problems: Vec<Problem>,
}

impl Configurations {
    /// The bridges that the plugins bridge and flannel attach pods to.
    pub fn bridges(&self) -> impl Iterator<Item = &str> {
        self.networks
            .iter()
            .flat_map(|network| &network.bridges)
            .map(String::as_str)
    }
}

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Its name. host-local's directory has the same.
    pub name: String,
    /// The file that it is configured in. Networks that multus delegates to share its file.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub file: PathBuf,
    /// Version of the CNI specification; empty if the file names none, which means 0.1.0.
    pub cni_version: String,
    /// True if several runtimes share the network, so that none of them may collect the others' garbage.
    pub disable_gc: bool,
    /// The bridges that it attaches pods to.
    pub bridges: Vec<String>,
    /// True if it connects pods by routes, without a bridge (plugin ptp).
    pub ptp: bool,
    /// How it hands out addresses.
    pub ipam: Vec<Ipam>,
    /// The types of its plugins, in the order of ADD.
    pub plugins: Vec<String>,
}

/// Reads all configurations in `dir` (see [`DEFAULT_CONF_DIR`]): `*.conflist`, `*.conf` and `*.json`, sorted by name,
/// as libcni's `ConfFiles` and containerd's go-cni do. Links are followed, since those are common there.
///
/// A missing directory is a problem: without configurations nothing can be told to be this node's own.
pub fn configurations(host: &Host, dir: &Path) -> Configurations {
    let mut found = Configurations::default();
    let names = match host.list(dir) {
        Ok(names) => names,
        Err(error) => {
            found.problems.push(Problem::new(dir, error.to_string()));
            return found;
        }
    };
    for name in names {
        let path = dir.join(name);
        if let Some(form) = form_of(&path) {
            read_one(host, &path, form, &mut found);
        }
    }
    found
}

fn form_of(path: &Path) -> Option<Form> {
    match path.extension().and_then(OsStr::to_str) {
        Some("conflist") => Some(Form::List),
        Some("conf" | "json") => Some(Form::Single),
        Some(_) | None => None,
    }
}

fn read_one(host: &Host, path: &Path, form: Form, found: &mut Configurations) {
    if path.to_str().is_none() {
        found.problems.push(Problem::new(path, "its name is not UTF-8"));
        return;
    }
    let bytes = match host.read(path, LIMIT) {
        Ok(bytes) => bytes,
        // libcni passes over directories.
        Err(Error::NotAFile { .. }) if host.open_dir(path).is_ok() => return,
        Err(error) => {
            found.problems.push(Problem::new(path, error.to_string()));
            return;
        }
    };
    match conflist::parse(&bytes, form) {
        Ok(list) => add(&list, path, &|env| flannel::range_sets(host, env), found),
        Err(reason) => found.problems.push(Problem::new(path, reason)),
    }
}

/// What reads a flannel subnet file.
type SubnetFile<'a> = &'a dyn Fn(&Path) -> Result<Vec<RangeSet>, Problem>;

fn add(list: &ConfList, file: &Path, subnets: SubnetFile<'_>, found: &mut Configurations) {
    let mut network = Network {
        name: list.name.clone(),
        file: file.to_owned(),
        cni_version: list.cni_version.clone(),
        disable_gc: list.disable_gc,
        bridges: Vec::new(),
        ptp: false,
        ipam: Vec::new(),
        plugins: list.plugins.iter().map(|plugin| plugin.kind.clone()).collect(),
    };
    let mut reasons = Vec::new();
    for plugin in &list.plugins {
        if let Err(reason) = add_links(plugin, &mut network) {
            reasons.push(reason);
        }
        if let Some(mut ipam) = ipam::of_plugin(plugin, &mut reasons) {
            if plugin.kind == "flannel" && ipam.kind == HOST_LOCAL {
                match flannel::subnet_file(plugin).map(subnets) {
                    Ok(Ok(sets)) => ipam.range_sets.extend(sets),
                    Ok(Err(problem)) => found.problems.push(problem),
                    Err(reason) => reasons.push(reason),
                }
            }
            network.ipam.push(ipam);
        }
    }
    found.networks.push(network);
    found
        .problems
        .extend(reasons.into_iter().map(|reason| Problem::new(file, reason)));
    add_delegates(list, file, subnets, found);
}

/// Notes how a plugin connects pods to the host.
fn add_links(plugin: &Plugin, network: &mut Network) -> Result<(), String> {
    let none = Object::new();
    let (kind, conf) = match (&*plugin.kind, plugin.conf.get("delegate")) {
        ("flannel", Some(Value::Object(delegate))) => (text(delegate, "type")?.unwrap_or("bridge"), delegate),
        ("flannel", None | Some(Value::Null)) => ("bridge", &none),
        ("flannel", Some(_)) => return Err("flannel's \"delegate\" is not an object".to_owned()),
        (kind, _) => (kind, &plugin.conf),
    };
    match kind {
        "bridge" => network
            .bridges
            .push(text(conf, "bridge")?.unwrap_or(DEFAULT_BRIDGE).to_owned()),
        "ptp" => network.ptp = true,
        _ => {}
    }
    Ok(())
}

/// multus carries whole configurations of other networks in its key `delegates`. They are networks of this node too.
fn add_delegates(list: &ConfList, file: &Path, subnets: SubnetFile<'_>, found: &mut Configurations) {
    for plugin in list.plugins.iter().filter(|plugin| plugin.kind == "multus") {
        let Some(Value::Array(delegates)) = plugin.conf.get("delegates") else {
            continue;
        };
        for delegate in delegates {
            let object = delegate
                .as_object()
                .ok_or_else(|| "it is not an object".to_owned());
            match object.and_then(|object| conflist::from_object(object.clone(), Form::Either)) {
                Ok(list) if list.plugins.iter().any(|plugin| plugin.kind == "multus") => {
                    found
                        .problems
                        .push(Problem::new(file, "multus delegates to multus"));
                }
                Ok(list) => add(&list, file, subnets, found),
                Err(reason) => found
                    .problems
                    .push(Problem::new(file, format!("a delegate of multus: {reason}"))),
            }
        }
    }
}
