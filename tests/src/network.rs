//! The node's CNI configuration and plugins.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Doing, LabError, Result};
use crate::inside::{bridge, hook, init};
use crate::node::Node;
use crate::options::{Engine, Options};
use crate::tools;

/// The configuration's file, named as flannel's manifests name it.
pub const CONFLIST: &str = "/etc/cni/net.d/10-cbr0.conflist";

/// The bridge of the pods.
pub const BRIDGE: &str = "cni0";

/// The configuration list of a node.
pub(crate) fn conflist(options: &Options) -> Value {
    let ranges: Vec<Value> = options
        .subnets
        .iter()
        .map(|subnet| json!([{"subnet": subnet}]))
        .collect();
    let routes: Vec<Value> = options
        .subnets
        .iter()
        .map(|subnet| json!({"dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" }}))
        .collect();
    let mut ipam = json!({"type": "host-local", "ranges": ranges, "routes": routes});
    if let Some(dir) = &options.data_dir {
        ipam["dataDir"] = json!(dir);
    }
    let mut plugins = vec![json!({
        "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": options.ip_masq,
        "hairpinMode": true, "ipam": ipam,
    })];
    if options.portmap {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    }
    if options.hook {
        plugins.push(json!({"type": hook::NAME}));
    }
    json!({"cniVersion": "0.3.1", "name": options.network, "plugins": plugins})
}

/// Where this node's plugins are, as seen inside.
pub(crate) fn plugin_dir(node: &Node) -> PathBuf {
    let ours = node.path(init::OPT_IS_OURS).exists();
    if ours {
        PathBuf::from(init::OPT_PLUGINS)
    } else {
        Path::new(init::LAB_DIR).join("cni-bin")
    }
}

/// The machine's plugins, unless the lab's own are wanted or are all there is.
fn machine_plugins(options: &Options) -> Option<PathBuf> {
    if options.own_bridge {
        None
    } else {
        tools::cni_plugins()
    }
}

/// Whether this configuration can be served.
pub(crate) fn check(options: &Options) -> Result<()> {
    if machine_plugins(options).is_some() {
        return Ok(());
    }
    let without = |what: &str| {
        let package = "package containernetworking-plugins";
        Err(LabError::Missing(format!(
            "{what} needs the machine's CNI plugins ({package})"
        )))
    };
    match options.engine {
        Engine::Containerd => without("containerd"),
        Engine::StandIn if options.portmap => without("portmap"),
        Engine::StandIn if options.ip_masq => without("masquerading"),
        Engine::StandIn => Ok(()),
    }
}

/// Puts configuration and plugins where a node has them.
pub(crate) fn install(node: &Node) -> Result<()> {
    let dir = node.path(plugin_dir(node));
    fs::create_dir_all(&dir).at("make", &dir)?;
    if let Some(machine) = machine_plugins(&node.options) {
        for entry in fs::read_dir(&machine).at("read", &machine)?.flatten() {
            link(&entry.path(), &dir.join(entry.file_name()))?;
        }
    }
    let lab = tools::lab_binary()?;
    link(&lab, &dir.join(hook::NAME))?;
    // Does nothing where the machine's own was linked.
    link(&lab, &dir.join(bridge::NAME))?;
    node.make_dirs("/run/lab/hook")?;
    node.make_dirs("/etc/cni/net.d")?;
    // A machine that is a node itself has configurations of its own; the first by name would win.
    let configurations = node.path("/etc/cni/net.d");
    for entry in fs::read_dir(&configurations)
        .at("read", &configurations)?
        .flatten()
    {
        fs::remove_file(entry.path()).at("hide", &entry.path())?;
    }
    node.write(CONFLIST, &format!("{:#}\n", conflist(&node.options)))
}

fn link(target: &Path, name: &Path) -> Result<()> {
    if name.exists() {
        return Ok(());
    }
    symlink(target, name).at("link", name)
}
