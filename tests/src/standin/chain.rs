//! The chain of CNI plugins, called and cached as libcni does it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::error::{Doing, LabError, Result};
use crate::inside::init;
use crate::sandbox::CNI_CACHE;
use crate::standin::record::Record;

const CONFIGURATIONS: &str = "/etc/cni/net.d";
const INTERFACE: &str = "eth0";

/// A configuration list and whom it is called for.
pub(crate) struct Chain<'r> {
    list: Value,
    record: &'r Record,
}

/// The first configuration list by name, as every runtime takes it.
pub(crate) fn configuration() -> Result<Value> {
    let names = fs::read_dir(CONFIGURATIONS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut lists: Vec<PathBuf> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "conflist"))
        .collect();
    lists.sort();
    let first = lists
        .first()
        .ok_or_else(|| LabError::Odd("cni plugin not initialized".to_owned()))?;
    let text = fs::read_to_string(first).at("read", first)?;
    serde_json::from_str(&text).map_err(|error| LabError::Odd(format!("{}: {error}", first.display())))
}

impl<'r> Chain<'r> {
    pub(crate) fn of(record: &'r Record) -> Result<Self> {
        Ok(Chain {
            list: configuration()?,
            record,
        })
    }

    /// ADD through the whole chain; the result, which is also put into the cache. What fails is undone.
    pub(crate) fn add(&self) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in self.plugins() {
            match self.call("ADD", plugin, &result) {
                Ok(answer) => result = answer,
                Err(error) => {
                    let _ = self.del();
                    return Err(error);
                }
            }
        }
        self.cache(&result)?;
        Ok(result)
    }

    /// DEL through the chain from its end. The cache goes only if every plugin did.
    pub(crate) fn del(&self) -> Result<()> {
        let cached = fs::read_to_string(self.cache_file(&self.network(), INTERFACE)).unwrap_or_default();
        let cached: Value = serde_json::from_str(&cached).unwrap_or_default();
        for plugin in self.plugins().iter().rev() {
            self.call("DEL", plugin, &cached["result"])?;
        }
        let _ = fs::remove_file(self.cache_file(&self.network(), INTERFACE));
        let _ = fs::remove_file(self.cache_file("cni-loopback", "lo"));
        Ok(())
    }

    fn plugins(&self) -> &[Value] {
        self.list["plugins"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    fn network(&self) -> String {
        self.list["name"].as_str().unwrap_or_default().to_owned()
    }

    fn call(&self, verb: &str, plugin: &Value, previous: &Value) -> Result<Value> {
        let mut config = plugin.clone();
        config["name"] = self.list["name"].clone();
        config["cniVersion"] = self.list["cniVersion"].clone();
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let kind = plugin["type"].as_str().unwrap_or_default();
        let program = plugin_dir().join(kind);
        let mut child = Command::new(&program)
            .envs(self.environment(verb))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .at("run plugin", &program)?;
        if let Some(mut input) = child.stdin.take() {
            // A plugin that does not read has its own reasons.
            let _ = input.write_all(config.to_string().as_bytes());
        }
        let done = child.wait_with_output().at("run plugin", &program)?;
        let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        if done.status.success() {
            return Ok(answer);
        }
        let said = answer["msg"].as_str().unwrap_or("it said nothing");
        Err(LabError::Odd(format!(
            "plugin type=\"{kind}\" failed ({}): {said}",
            verb.to_lowercase()
        )))
    }

    fn environment(&self, verb: &str) -> Vec<(&'static str, String)> {
        // As a runtime does for a namespace that is gone: the plugins then free what they can.
        let netns = if self.record.netns.exists() {
            self.record.netns.display().to_string()
        } else {
            String::new()
        };
        vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", self.record.id.clone()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", INTERFACE.to_owned()),
            ("CNI_PATH", plugin_dir().display().to_string()),
            ("CNI_ARGS", self.arguments().map(|pair| pair.join("=")).join(";")),
        ]
    }

    fn arguments(&self) -> [[String; 2]; 5] {
        let Record {
            name,
            namespace,
            uid,
            id,
            ..
        } = self.record;
        [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", namespace),
            ("K8S_POD_NAME", name),
            ("K8S_POD_INFRA_CONTAINER_ID", id),
            ("K8S_POD_UID", uid),
        ]
        .map(|(key, value)| [key.to_owned(), value.to_owned()])
    }

    fn cache_file(&self, network: &str, interface: &str) -> PathBuf {
        Path::new(CNI_CACHE).join(format!("{network}-{}-{interface}", self.record.id))
    }

    fn cache(&self, result: &Value) -> Result<()> {
        fs::create_dir_all(CNI_CACHE).at("make", Path::new(CNI_CACHE))?;
        let loopback =
            json!({"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]});
        self.write_cache(&loopback, "lo", &json!({"cniVersion": "0.3.1", "dns": {}}))?;
        self.write_cache(&self.list, INTERFACE, result)
    }

    fn write_cache(&self, list: &Value, interface: &str, result: &Value) -> Result<()> {
        let network = list["name"].as_str().unwrap_or_default();
        let entry = json!({
            "kind": "cniCacheV1",
            "containerId": self.record.id,
            "config": base64::engine::general_purpose::STANDARD.encode(list.to_string()),
            "ifName": interface,
            "networkName": network,
            "netns": self.record.netns,
            "cniArgs": self.arguments(),
            "capabilityArgs": {"dns": {}},
            "result": result,
        });
        let path = self.cache_file(network, interface);
        fs::write(&path, entry.to_string()).at("write", &path)
    }
}

fn plugin_dir() -> PathBuf {
    let ours = Path::new(init::OPT_IS_OURS).exists();
    if ours {
        PathBuf::from(init::OPT_PLUGINS)
    } else {
        Path::new(init::LAB_DIR).join("cni-bin")
    }
}
