//! What a plugin is given for DEL: its configuration on stdin, and its environment.
//!
//! The rules are libcni's: `buildOneConfig`, `injectRuntimeConfig` and `DelNetworkList` in `libcni/api.go`,
//! `AsEnv` in `pkg/invoke/args.go`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use rustix::fs::FsWord;
use serde_json::{Map, Value};

use crate::cached::Cached;
use crate::conflist::{ConfList, Object, Plugin, text, version_number};

/// `f_type` of nsfs, where namespaces are (linux/magic.h).
const NSFS_MAGIC: FsWord = 0x6e73_6673;
/// Plugins call iptables and others, and get no environment of ours.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// The plugin's configuration as libcni gives it to the plugin.
pub(crate) fn stdin(plugin: &Plugin, list: &ConfList, cached: &Cached) -> Value {
    let mut conf = plugin.conf.clone();
    conf.insert("name".to_owned(), list.name.clone().into());
    conf.insert("cniVersion".to_owned(), list.cni_version.clone().into());
    if let Some(result) = prev_result(list, cached) {
        conf.insert("prevResult".to_owned(), Value::Object(result));
    }
    let runtime = runtime_config(plugin, cached);
    if !runtime.is_empty() {
        conf.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    Value::Object(conf)
}

/// The cached result, for versions from 0.4.0 on, in the version of the configuration. Results since 0.3.0 differ in
/// nothing that a plugin needs for DEL. An older one is left out, which CNI allows.
fn prev_result(list: &ConfList, cached: &Cached) -> Option<Object> {
    let mut result = cached.result.clone()?;
    let (wanted, has) = (
        version_number(&list.cni_version)?,
        text(&result, "cniVersion").ok()??,
    );
    if wanted < (0, 4, 0) || version_number(has)? < (0, 3, 0) {
        return None;
    }
    result.insert("cniVersion".to_owned(), list.cni_version.clone().into());
    Some(result)
}

/// Of the runtime's arguments, those that the plugin says it can use.
fn runtime_config(plugin: &Plugin, cached: &Cached) -> Object {
    let capable = plugin.conf.get("capabilities").and_then(Value::as_object);
    let wanted = capable
        .into_iter()
        .flatten()
        .filter(|(_, on)| on.as_bool() == Some(true));
    let args = &cached.capability_args;
    wanted
        .filter_map(|(name, _)| args.get_key_value(name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect::<Map<_, _>>()
}

/// The whole environment of a plugin.
pub(crate) fn env(cached: &Cached, netns: &Path, bin_path: OsString) -> Vec<(&'static str, OsString)> {
    let args: Vec<_> = cached
        .args
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    vec![
        ("CNI_COMMAND", "DEL".into()),
        ("CNI_CONTAINERID", cached.container_id.clone().into()),
        ("CNI_NETNS", netns.into()),
        ("CNI_IFNAME", cached.ifname.clone().into()),
        ("CNI_ARGS", args.join(";").into()),
        ("CNI_PATH", bin_path),
        ("PATH", PATH.into()),
    ]
}

/// The network namespace to name to the plugins: the cached path if a namespace is mounted there now, else none.
///
/// A path that is there and is no namespace makes the plugin bridge fail before it frees the address; with no path at
/// all it frees it. A path below `/proc` goes by a process id, which may be another process's by now; and the host's
/// own namespace is never a container's. Both are left out: a plugin would delete another one's interface.
pub(crate) fn netns(path: &Path) -> PathBuf {
    if is_container_netns(path) {
        path.to_owned()
    } else {
        PathBuf::new()
    }
}

fn is_container_netns(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else {
        return false;
    };
    let id = |path: &Path| rustix::fs::stat(path).ok().map(|stat| FileId::from(&stat));
    let (found, own) = (id(&real), id(Path::new("/proc/self/ns/net")));
    // Pid 1 says the same to a tool that runs on the host, and can be asked by few.
    let first = id(Path::new("/proc/1/ns/net")).or(own);
    path.is_absolute()
        && !real.starts_with("/proc")
        && rustix::fs::statfs(&real).is_ok_and(|fs| fs.f_type == NSFS_MAGIC)
        && own.is_some()
        && ![own, first].contains(&found)
}
