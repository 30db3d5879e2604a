//! The files that kubelet keeps, or is given.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::Result;
use crate::kubelet::{
    ASKING_CERTIFICATE, CLIENT_CERTIFICATE, CONFIG, KUBECONFIG, Kubelet, MANIFESTS, Pod, SERVING_CERTIFICATE,
    TOKEN, tls,
};
use crate::node::Node;
use crate::sandbox::random_uuid;

const CA: &str = "/etc/kubernetes/pki/ca.crt";

/// Configuration, credentials and certificates.
pub(super) fn write(node: &Node, how: &Kubelet) -> Result<()> {
    if node.read(SERVING_CERTIFICATE).is_err() {
        let made = tls::make()?;
        node.write(CA, &made.authority)?;
        node.write(SERVING_CERTIFICATE, &made.kubelet)?;
        node.write("/var/lib/kubelet/pki/kubelet.key", &made.kubelet_key)?;
        node.write(CLIENT_CERTIFICATE, &[made.client, made.client_key].concat())?;
        if how.control_plane {
            node.write(ASKING_CERTIFICATE, &made.asking)?;
            node.write(
                Path::new(ASKING_CERTIFICATE).with_extension("key"),
                &made.asking_key,
            )?;
        }
        node.write("/run/lab/api/tls.crt", &made.api)?;
        node.write("/run/lab/api/tls.key", &made.api_key)?;
        node.write(TOKEN, &random_uuid()?)?;
        node.write(KUBECONFIG, KUBECONFIG_TEXT)?;
    }
    if let Some(manifests) = &how.manifests {
        node.make_dirs(manifests)?;
    }
    node.make_dirs(format!("{}/pods", how.root))?;
    node.make_dirs("/var/log/containers")?;
    node.write(CONFIG, &config(how))
}

fn config(how: &Kubelet) -> String {
    let mut text = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\n\
         kind: KubeletConfiguration\n\
         authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    enabled: true\n  x509:\n    clientCAFile: {CA}\n\
         authorization:\n  mode: Webhook\n\
         cgroupDriver: cgroupfs\n\
         containerRuntimeEndpoint: unix://{}\n\
         healthzBindAddress: 127.0.0.1\n\
         healthzPort: 10248\n",
        crate::runtime::SOCKET
    );
    if how.read_only_port {
        text.push_str("readOnlyPort: 10255\n");
    }
    if let Some(manifests) = &how.manifests {
        text.push_str(&format!("staticPodPath: {manifests}\n"));
    }
    text
}

/// Of a kubelet that stands alone, on a machine which it must not take for full.
pub(super) fn real_config() -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: false
  x509:
    clientCAFile: {CA}
authorization:
  mode: AlwaysAllow
cgroupDriver: cgroupfs
evictionHard:
  memory.available: 1Mi
failSwapOn: false
imageGCHighThresholdPercent: 100
makeIPTablesUtilChains: false
staticPodPath: {MANIFESTS}
"
    )
}

/// As kubeadm writes it.
const KUBECONFIG_TEXT: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority: /etc/kubernetes/pki/ca.crt
    server: https://127.0.0.1:6443
  name: default-cluster
contexts:
- context:
    cluster: default-cluster
    namespace: default
    user: default-auth
  name: default-context
current-context: default-context
kind: Config
preferences: {}
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
";

/// A static pod's manifest. The name of the pod that comes of it ends with the node's.
pub(super) fn manifest(pod: &Pod) -> String {
    let name = pod.name.trim_end_matches("-lab-node");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {}\nspec:\n  hostNetwork: true\n  \
         containers:\n  - name: {name}\n    image: localhost/{name}:1\n",
        pod.namespace
    )
}

/// kubelet's own records of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Of the status manager, in older versions.
    PodStatus,
    /// Of the allocation manager.
    AllocatedPods,
    /// The same, of what was done.
    ActuatedPods,
    /// Of the CPU manager: containers with CPUs of their own.
    Cpus,
    /// Of the memory manager.
    Memory,
    /// Of the device manager.
    Devices,
    /// Of dynamic resource allocation.
    Claims,
}

impl Checkpoint {
    /// All of them.
    pub const ALL: [Checkpoint; 7] = [
        Checkpoint::PodStatus,
        Checkpoint::AllocatedPods,
        Checkpoint::ActuatedPods,
        Checkpoint::Cpus,
        Checkpoint::Memory,
        Checkpoint::Devices,
        Checkpoint::Claims,
    ];

    /// Its file, below kubelet's root.
    pub fn file(self) -> &'static str {
        match self {
            Checkpoint::PodStatus => "pod_status_manager_state",
            Checkpoint::AllocatedPods => "allocated_pods_state",
            Checkpoint::ActuatedPods => "actuated_pods_state",
            Checkpoint::Cpus => "cpu_manager_state",
            Checkpoint::Memory => "memory_manager_state",
            Checkpoint::Devices => "device-plugins/kubelet_internal_checkpoint",
            Checkpoint::Claims => "dra_manager_state",
        }
    }

    /// What kubelet would write for these pods. The checksums are none: only kubelet reads them.
    pub(super) fn content(self, pods: &[&str]) -> Value {
        let keyed = |value: Value| -> Value {
            pods.iter()
                .map(|uid| ((*uid).to_owned(), value.clone()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let requests = json!({"app": {"requests": {"cpu": "100m"}}});
        // These keep their data as text inside the JSON.
        let wrapped = |data: Value| json!({"data": data.to_string(), "checksum": 1_234_567_890});
        match self {
            Checkpoint::PodStatus => wrapped(json!({"allocationEntries": keyed(requests)})),
            Checkpoint::AllocatedPods | Checkpoint::ActuatedPods => {
                wrapped(json!({"entries": keyed(json!({"ContainerResources": requests}))}))
            }
            Checkpoint::Cpus => json!({
                "policyName": "static",
                "defaultCpuSet": "0-1",
                "entries": keyed(json!({"app": "1"})),
                "checksum": 1_234_567_890,
            }),
            Checkpoint::Memory => json!({
                "policyName": "Static",
                "machineState": {},
                "entries": keyed(json!({"app": [{"numaAffinity": [0], "type": "memory", "size": 1_048_576}]})),
                "checksum": 1_234_567_890,
            }),
            Checkpoint::Devices => {
                let entry = |uid: &&str| {
                    json!({
                        "PodUID": uid, "ContainerName": "app", "ResourceName": "example.org/device",
                        "DeviceIDs": {"0": ["device-0"]}, "AllocResp": "",
                    })
                };
                let entries: Vec<Value> = pods.iter().map(entry).collect();
                json!({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {}}, "Checksum": 1_234_567_890})
            }
            Checkpoint::Claims => wrapped(json!({
                "claimInfoStateList": [{"DriverState": {}, "ClaimName": "claim", "PodUIDs": keyed(json!({}))}],
            })),
        }
    }
}
