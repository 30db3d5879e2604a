//! Pods, as kubelet and the API server list them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::sandbox::{Sandbox, random_uuid};

/// A pod, by what names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The name of its directory.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What kubelet says of it.
    pub phase: Phase,
    /// Whether it comes from a manifest on the node.
    pub is_static: bool,
}

/// The part of a pod's status that says whether it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started: waiting for volumes or images.
    Pending,
    /// Started.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly, or evicted.
    Failed,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

impl Pod {
    /// A pod that the API server knows, with a uid of its own.
    ///
    /// # Errors
    ///
    /// When the kernel makes no UUID.
    pub fn new(name: &str) -> Result<Pod> {
        Ok(Pod {
            uid: random_uuid()?,
            name: name.to_owned(),
            namespace: "default".to_owned(),
            phase: Phase::Running,
            is_static: false,
        })
    }

    /// A static pod: its uid is a hash of 32 digits.
    pub fn of_manifest(name: &str) -> Pod {
        let digest = Sha256::digest(name);
        Pod {
            uid: digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
            name: format!("{name}-lab-node"),
            namespace: "kube-system".to_owned(),
            phase: Phase::Running,
            is_static: true,
        }
    }

    /// The pod of a sandbox.
    pub fn of(sandbox: &Sandbox) -> Pod {
        Pod {
            uid: sandbox.uid.clone(),
            name: sandbox.name.clone(),
            namespace: "default".to_owned(),
            phase: Phase::Running,
            is_static: false,
        }
    }

    /// The same pod in another phase.
    #[must_use]
    pub fn in_phase(mut self, phase: Phase) -> Pod {
        self.phase = phase;
        self
    }

    /// The directory of its containers' logs: `<namespace>_<name>_<uid>`.
    pub fn log_dir(&self) -> String {
        format!("/var/log/pods/{}_{}_{}", self.namespace, self.name, self.uid)
    }

    fn item(&self, uid: &str, source: &str, mirrors: Option<&str>) -> Value {
        let mut annotations = json!({
            "kubernetes.io/config.seen": "2026-01-05T10:00:00.000000000Z",
            "kubernetes.io/config.source": source,
        });
        if self.is_static {
            annotations["kubernetes.io/config.hash"] = json!(self.uid);
        }
        if let Some(hash) = mirrors {
            annotations["kubernetes.io/config.mirror"] = json!(hash);
        }
        json!({
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": uid,
                "annotations": annotations,
            },
            "spec": {
                "nodeName": "lab-node",
                "containers": [{"name": "app", "image": "localhost/app:1"}],
            },
            "status": {"phase": self.phase.name()},
        })
    }
}

/// `/pods` of kubelet: static pods by their own uid, no mirror pods (`pkg/kubelet/pod/pod_manager.go`, `GetPods`).
pub(super) fn of_kubelet(pods: &[Pod]) -> Value {
    let one = |pod: &Pod| pod.item(&pod.uid, if pod.is_static { "file" } else { "api" }, None);
    list(pods.iter().map(one).collect())
}

/// The API server's list of the node's pods: of a static pod it has a mirror, with a uid that no directory has.
pub(super) fn of_api(pods: &[Pod]) -> Result<Value> {
    let one = |pod: &Pod| {
        if pod.is_static {
            return Ok(pod.item(&random_uuid()?, "file", Some(&pod.uid)));
        }
        Ok(pod.item(&pod.uid, "api", None))
    };
    pods.iter().map(one).collect::<Result<_>>().map(list)
}

/// kubelet's slice of no pods is Go's nil.
fn list(items: Vec<Value>) -> Value {
    let items = if items.is_empty() {
        Value::Null
    } else {
        Value::Array(items)
    };
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}
