//! The JSON of one file of libcni's cache (`cachedInfo` in `libcni/api.go`).

use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::conflist::{self, ConfList, Form, Object, text};
use crate::ipam;
use crate::names;

/// What libcni wrote after an ADD.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cached {
    pub(crate) network: String,
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    /// Empty if it names none.
    pub(crate) netns: String,
    /// `cniArgs`: pairs of key and value.
    pub(crate) args: Vec<(String, String)>,
    pub(crate) capability_args: Object,
    pub(crate) result: Option<Object>,
    /// The configuration of that ADD, or why there is none to be had.
    pub(crate) config: Result<ConfList, String>,
}

/// # Errors
/// What is not of the kind `cniCacheV1`: files of libcni before 0.8 hold a bare result, without any id.
pub(crate) fn parse(bytes: &[u8]) -> Result<Cached, String> {
    let object = match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err("it is JSON, but not an object".to_owned()),
        Err(error) => return Err(format!("it is cut off or not JSON: {error}")),
    };
    match text(&object, "kind")? {
        Some("cniCacheV1") => {}
        None if object.contains_key("ips") || object.contains_key("ip4") || object.contains_key("ip6") => {
            return Err(
                "it holds a bare result, as libcni before 0.8 wrote it: whose it is cannot be told"
                    .to_owned(),
            );
        }
        None => return Err("it has no \"kind\"".to_owned()),
        Some(kind) => {
            return Err(format!(
                "its kind is \"{}\", not cniCacheV1",
                names::printable(kind, 60)
            ));
        }
    }
    Ok(Cached {
        network: named(&object, "networkName", names::is_id)?,
        container_id: named(&object, "containerId", names::is_id)?,
        ifname: named(&object, "ifName", names::is_interface)?,
        netns: netns(&object)?,
        args: args(&object)?,
        capability_args: part(&object, "capabilityArgs")?.unwrap_or_default(),
        result: part(&object, "result")?,
        config: config(&object),
    })
}

/// The path of the network namespace. libcni writes it since 1.1; before, only the result of a plugin tells it, as the
/// sandbox of an inner interface (containerd 1.6 has such a libcni).
fn netns(object: &Object) -> Result<String, String> {
    if let Some(path) = text(object, "netns")? {
        return Ok(path.to_owned());
    }
    let interfaces = object
        .get("result")
        .and_then(|result| result["interfaces"].as_array());
    let mut sandboxes = interfaces
        .into_iter()
        .flatten()
        .filter_map(|interface| interface["sandbox"].as_str());
    Ok(sandboxes
        .find(|path| path.starts_with('/'))
        .unwrap_or_default()
        .to_owned())
}

fn named(object: &Object, key: &str, good: fn(&str) -> bool) -> Result<String, String> {
    match text(object, key)? {
        Some(name) if good(name) => Ok(name.to_owned()),
        Some(name) => Err(format!(
            "its {key} \"{}\" is none that libcni accepts",
            names::printable(name, 80)
        )),
        None => Err(format!("it has no \"{key}\"")),
    }
}

fn part(object: &Object, key: &str) -> Result<Option<Object>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(part)) => Ok(Some(part.clone())),
        Some(_) => Err(format!("its \"{key}\" is not an object")),
    }
}

fn args(object: &Object) -> Result<Vec<(String, String)>, String> {
    match object.get("cniArgs") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(pairs) => serde_json::from_value(pairs.clone())
            .map_err(|_| "its \"cniArgs\" is not a list of pairs".to_owned()),
    }
}

/// Base64 of the configuration, as Go writes bytes.
fn config(object: &Object) -> Result<ConfList, String> {
    match text(object, "config")? {
        None | Some("") => Err("it holds no configuration".to_owned()),
        Some(encoded) => {
            let bytes = STANDARD
                .decode(encoded)
                .map_err(|error| format!("its configuration is not base64: {error}"))?;
            conflist::parse(&bytes, Form::Either).map_err(|reason| format!("its configuration: {reason}"))
        }
    }
}

impl Cached {
    /// The interfaces of the result that are the host's: those without a sandbox.
    pub(crate) fn host_interfaces(&self) -> Vec<String> {
        let of_host = |interface: &&Value| interface["sandbox"].as_str().unwrap_or_default().is_empty();
        let names = self
            .list("interfaces")
            .iter()
            .filter(of_host)
            .filter_map(|interface| interface["name"].as_str());
        names
            .filter(|name| names::is_interface(name))
            .map(str::to_owned)
            .collect()
    }

    /// The addresses of the result, in the form of any version: `ips` since 0.3.0, `ip4` and `ip6` before.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let new = self.list("ips").iter().map(|ip| &ip["address"]);
        let old = ["ip4", "ip6"]
            .into_iter()
            .filter_map(|key| Some(&self.result.as_ref()?.get(key)?["ip"]));
        let texts = new.chain(old).filter_map(Value::as_str);
        texts
            .filter_map(|text| text.split('/').next()?.parse().ok())
            .collect()
    }

    /// Where host-local keeps the reservations of this attachment, as far as its configuration names a place.
    pub(crate) fn data_dirs(&self) -> Vec<PathBuf> {
        let plugins = self.config.iter().flat_map(|list| &list.plugins);
        let mut dirs: Vec<_> = plugins
            .filter_map(|plugin| ipam::of_plugin(plugin, &mut Vec::new())?.data_dir)
            .collect();
        dirs.dedup();
        dirs
    }

    fn list(&self, key: &str) -> &[Value] {
        self.result
            .as_ref()
            .and_then(|result| result.get(key)?.as_array())
            .map_or(&[], Vec::as_slice)
    }
}
