//! The JSON that runtimes keep beside their containers: CRI metadata and OCI specifications.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::knowledge::{NetnsRef, Pod};

/// The network of a container, as its specification or metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// The host's.
    Host,
    /// The namespace at that path.
    At(PathBuf),
    /// Not told: made by the runtime without a path, not made yet, or not of the expected form.
    Untold,
}

impl Network {
    pub(crate) fn is_host(&self) -> bool {
        *self == Self::Host
    }

    /// What stands at the path is looked up later.
    pub(crate) fn reference(self) -> Option<NetnsRef> {
        match self {
            Self::At(path) => Some(NetnsRef { path, id: None }),
            Self::Host | Self::Untold => None,
        }
    }
}

/// What containerd's CRI plugin keeps of a sandbox (internal/cri/store/sandbox/metadata.go; the same in 1.4 to 2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxMetadata {
    pub(crate) id: String,
    pub(crate) pod: Option<Pod>,
    pub(crate) network: Network,
}

/// `{"Version": …, "Metadata": …}`, or what is inside alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Versioned<T> {
    Wrapped {
        #[serde(rename = "Metadata")]
        metadata: T,
    },
    Bare(T),
}

impl<T> Versioned<T> {
    fn inner(self) -> T {
        match self {
            Self::Wrapped { metadata } | Self::Bare(metadata) => metadata,
        }
    }
}

#[derive(Deserialize)]
struct RawSandbox {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Config", default)]
    config: Option<RawConfig>,
    #[serde(rename = "NetNSPath", default)]
    netns_path: String,
}

#[derive(Default, Deserialize)]
struct RawConfig {
    metadata: Option<RawPod>,
    linux: Option<RawLinux>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPod {
    name: String,
    uid: String,
    namespace: String,
}

#[derive(Deserialize)]
struct RawLinux {
    security_context: Option<RawSecurity>,
}

#[derive(Deserialize)]
struct RawSecurity {
    namespace_options: Option<RawOptions>,
}

#[derive(Deserialize)]
struct RawOptions {
    #[serde(default)]
    network: i64,
}

/// `NamespaceMode.NODE` of the CRI.
const NODE: i64 = 2;

impl SandboxMetadata {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let raw = serde_json::from_slice::<Versioned<RawSandbox>>(json)?.inner();
        let config = raw.config.unwrap_or_default();
        let mode = config
            .linux
            .and_then(|linux| linux.security_context)
            .and_then(|context| context.namespace_options);
        let network = match (raw.netns_path.is_empty(), mode) {
            (false, _) => Network::At(raw.netns_path.into()),
            (true, Some(options)) if options.network == NODE => Network::Host,
            // A sandbox in the making has no path either: containerd 2 writes it down before it makes the namespace.
            (true, _) => Network::Untold,
        };
        let pod = config.metadata.map(|pod| Pod {
            uid: pod.uid,
            namespace: pod.namespace,
            name: pod.name,
        });
        Ok(Self {
            id: raw.id,
            pod,
            network,
        })
    }
}

#[derive(Deserialize)]
struct RawContainer {
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
}

/// The sandbox that a container belongs to (internal/cri/store/container/metadata.go).
pub(crate) fn sandbox_of_container(json: &[u8]) -> Result<String, serde_json::Error> {
    Ok(serde_json::from_slice::<Versioned<RawContainer>>(json)?
        .inner()
        .sandbox_id)
}

/// The parts of an OCI runtime specification that tell whose a container is (config.md, config-linux.md).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Specification {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
    #[serde(default)]
    mounts: Option<Vec<Mount>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Mount {
    #[serde(default)]
    source: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
    #[serde(default, rename = "cgroupsPath")]
    cgroup: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

impl Specification {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Of what runc keeps: the annotations, and the sources of the mounts.
    pub(crate) fn of<'a>(
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
        sources: impl Iterator<Item = String>,
    ) -> Self {
        let owned = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mounts = sources.map(|source| Mount { source: Some(source) });
        Self {
            annotations: Some(owned.collect()),
            linux: None,
            mounts: Some(mounts.collect()),
        }
    }

    /// A list of namespaces without one for the network means the host's.
    pub(crate) fn network(&self) -> Network {
        let Some(namespaces) = self.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()) else {
            return Network::Untold;
        };
        match namespaces.iter().find(|namespace| namespace.kind == "network") {
            None => Network::Host,
            Some(namespace) if namespace.path.as_os_str().is_empty() => Network::Untold,
            Some(namespace) => Network::At(namespace.path.clone()),
        }
    }

    /// The sandbox, in containerd's annotation or in CRI-O's.
    pub(crate) fn sandbox_id(&self) -> Option<String> {
        self.annotation("io.kubernetes.cri.sandbox-id")
            .or_else(|| self.annotation("io.kubernetes.cri-o.SandboxID"))
    }

    /// The container's name in its pod.
    pub(crate) fn container_name(&self) -> Option<String> {
        self.annotation("io.kubernetes.cri.container-name")
            .or_else(|| self.annotation("io.kubernetes.container.name"))
    }

    /// True for the container that stands for a sandbox.
    pub(crate) fn is_sandbox(&self) -> bool {
        [
            "io.kubernetes.cri.container-type",
            "io.kubernetes.cri-o.ContainerType",
        ]
        .iter()
        .any(|name| self.annotation(name).as_deref() == Some("sandbox"))
    }

    /// The cgroup (config-linux.md, "Cgroups Path").
    pub(crate) fn cgroup(&self) -> Option<String> {
        self.linux
            .as_ref()?
            .cgroup
            .clone()
            .filter(|path| !path.is_empty())
    }

    /// The pod. CRI-O writes kubelet's labels down as annotations. Older containerds tell nothing, but what kubelet gives to
    /// a container lies in the directory of its pod: then the pod has a UID and no name.
    pub(crate) fn pod(&self) -> Option<Pod> {
        let of_containerd = || {
            Some(Pod {
                uid: self.annotation("io.kubernetes.cri.sandbox-uid")?,
                namespace: self.annotation("io.kubernetes.cri.sandbox-namespace")?,
                name: self.annotation("io.kubernetes.cri.sandbox-name")?,
            })
        };
        of_containerd()
            .or_else(|| Pod::of_labels(|name| self.annotation(name)))
            .or_else(|| self.pod_of_mounts())
    }

    fn pod_of_mounts(&self) -> Option<Pod> {
        let sources = self
            .mounts
            .iter()
            .flatten()
            .filter_map(|mount| mount.source.as_deref());
        let uid = sources.into_iter().find_map(pod_directory)?.to_owned();
        Some(Pod {
            uid,
            namespace: String::new(),
            name: String::new(),
        })
    }

    fn annotation(&self, name: &str) -> Option<String> {
        self.annotations
            .as_ref()?
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }
}

/// The UID in `<kubelet root>/pods/<uid>/…`: a UUID, or the hash of a static pod's manifest.
fn pod_directory(path: &str) -> Option<&str> {
    let (_, below) = path.split_once("/pods/")?;
    let (uid, _) = below.split_once('/')?;
    let digits = uid
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    (digits && matches!((uid.len(), uid.matches('-').count()), (36, 4) | (32, 0))).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(netns: &str, options: &str) -> SandboxMetadata {
        let json = format!(
            r#"{{"Version":"v1","Metadata":{{"ID":"8f3a","Name":"web-1_default_u_0","Config":{{"metadata":
            {{"name":"web-1","uid":"u","namespace":"default"}}{options}}},"NetNSPath":"{netns}","IP":""}}}}"#
        );
        SandboxMetadata::parse(json.as_bytes()).unwrap()
    }

    fn mode(options: &str) -> String {
        format!(r#","linux":{{"security_context":{{"namespace_options":{options}}}}}"#)
    }

    #[test]
    fn a_sandbox_tells_its_pod_and_its_network() {
        let found = sandbox("/var/run/netns/cni-1", "");
        assert_eq!(found.id, "8f3a");
        let pod = Pod {
            uid: "u".into(),
            namespace: "default".into(),
            name: "web-1".into(),
        };
        assert_eq!(found.pod, Some(pod));
        assert_eq!(found.network, Network::At("/var/run/netns/cni-1".into()));
        let bare = SandboxMetadata::parse(br#"{"ID":"8f3a","NetNSPath":"/run/netns/x"}"#).unwrap();
        assert_eq!(bare.network, Network::At("/run/netns/x".into()));
    }

    #[test]
    fn only_a_sandbox_that_asked_for_it_is_on_the_host_s_network() {
        assert_eq!(sandbox("", "").network, Network::Untold);
        assert_eq!(sandbox("", &mode(r#"{"network":2}"#)).network, Network::Host);
        assert_eq!(sandbox("", &mode(r#"{"pid":1}"#)).network, Network::Untold);
    }

    #[test]
    fn what_is_no_metadata_is_an_error() {
        for json in [
            "",
            "{}",
            "null",
            "[1]",
            r#"{"Version":"v1"}"#,
            r#"{"Version":"v1","Metadata":{}}"#,
        ] {
            assert!(SandboxMetadata::parse(json.as_bytes()).is_err(), "{json}");
            assert!(sandbox_of_container(json.as_bytes()).is_err(), "{json}");
        }
        let container = br#"{"Version":"v1","Metadata":{"ID":"c","SandboxID":"8f3a"}}"#;
        assert_eq!(sandbox_of_container(container).unwrap(), "8f3a");
    }

    #[test]
    fn a_specification_tells_the_network() {
        let cases = [
            (
                r#"{"linux":{"namespaces":[{"type":"network","path":"/run/netns/x"}]}}"#,
                Network::At("/run/netns/x".into()),
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"network"}]}}"#,
                Network::Untold,
            ),
            (r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#, Network::Host),
            (r#"{"linux":{}}"#, Network::Untold),
            (r#"{"annotations":null}"#, Network::Untold),
        ];
        for (json, wanted) in cases {
            assert_eq!(
                Specification::parse(json.as_bytes()).unwrap().network(),
                wanted,
                "{json}"
            );
        }
    }

    #[test]
    fn a_specification_tells_the_pod_in_containerd_s_words_or_cri_o_s() {
        let containerd =
            br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.kubernetes.cri.sandbox-uid":"u",
            "io.kubernetes.cri.sandbox-name":"n","io.kubernetes.cri.sandbox-namespace":"ns"}}"#;
        let crio = br#"{"annotations":{"io.kubernetes.cri-o.SandboxID":"s","io.kubernetes.pod.uid":"u",
            "io.kubernetes.pod.name":"n","io.kubernetes.pod.namespace":"ns"}}"#;
        for json in [containerd.as_slice(), crio] {
            let spec = Specification::parse(json).unwrap();
            assert_eq!(spec.sandbox_id().as_deref(), Some("s"));
            assert_eq!(
                spec.pod(),
                Some(Pod {
                    uid: "u".into(),
                    namespace: "ns".into(),
                    name: "n".into()
                })
            );
        }
    }

    #[test]
    fn without_annotations_the_pod_is_known_by_what_kubelet_gave_it() {
        let json = r#"{"mounts":[{"destination":"/proc","source":"proc"},{"destination":"/dev/shm"},
            {"source":"/var/lib/kubelet/pods/0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11/etc-hosts"}]}"#;
        let pod = Specification::parse(json.as_bytes()).unwrap().pod().unwrap();
        assert_eq!(pod.uid, "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11");
        assert_eq!(
            pod_directory("/k/pods/d41d8cd98f00b204e9800998ecf8427e/volumes/x"),
            Some("d41d8cd98f00b204e9800998ecf8427e")
        );
        for other in [
            "/srv/pods/mine/x",
            "/k/pods/",
            "/k/pods/d41d8cd98f00b204e9800998ecf8427e",
            "proc",
        ] {
            assert_eq!(pod_directory(other), None, "{other}");
        }
    }
}
