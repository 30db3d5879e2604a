//! Calls to the node's runtime, as kubelet makes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tower::util::MapRequest;

use crate::error::{Doing, LabError, Result};

/// What passes a request on, under the name of the version that the runtime speaks.
type Wire = MapRequest<Channel, fn(http::Request<Body>) -> http::Request<Body>>;

type Client = RuntimeServiceClient<Wire>;

/// A version of CRI. The two differ in the name of the package alone, as far as the lab asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// containerd 1.6 and on.
    V1,
    /// The only one of containerd before.
    V1Alpha2,
}

/// A hung runtime must not hang the tests.
const DEADLINE: Duration = Duration::from_secs(60);

/// The runtime behind one socket. Each call connects anew: a runtime that was restarted in between is no surprise.
pub(crate) struct Cri {
    socket: PathBuf,
    version: Version,
}

impl Cri {
    pub(crate) fn new(socket: impl Into<PathBuf>, version: Version) -> Self {
        Cri {
            socket: socket.into(),
            version,
        }
    }

    /// Creates and starts a sandbox; its id.
    pub(crate) fn run(&self, config: v1::PodSandboxConfig) -> Result<String> {
        let request = v1::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        self.call("RunPodSandbox", async move |mut to: Client| {
            to.run_pod_sandbox(request).await
        })
        .map(|answer| answer.pod_sandbox_id)
    }

    /// Stops a sandbox: its processes end and its network is torn down.
    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.call("StopPodSandbox", async move |mut to: Client| {
            to.stop_pod_sandbox(request).await
        })
        .map(drop)
    }

    /// Removes a sandbox and its record.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.call("RemovePodSandbox", async move |mut to: Client| {
            to.remove_pod_sandbox(request).await
        })
        .map(drop)
    }

    /// All sandboxes in any state.
    pub(crate) fn list(&self) -> Result<Vec<v1::PodSandbox>> {
        let request = v1::ListPodSandboxRequest { filter: None };
        self.call("ListPodSandbox", async move |mut to: Client| {
            to.list_pod_sandbox(request).await
        })
        .map(|answer| answer.items)
    }

    /// One sandbox, with the runtime's own information.
    pub(crate) fn status(&self, id: &str) -> Result<v1::PodSandboxStatusResponse> {
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        self.call("PodSandboxStatus", async move |mut to: Client| {
            to.pod_sandbox_status(request).await
        })
    }

    /// Creates and starts a container in a sandbox, of which the runtime must hear once more; its id.
    pub(crate) fn start_container(
        &self,
        sandbox: &str,
        sandbox_config: v1::PodSandboxConfig,
        config: v1::ContainerConfig,
    ) -> Result<String> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let id = self
            .call("CreateContainer", async move |mut to: Client| {
                to.create_container(request).await
            })?
            .container_id;
        let request = v1::StartContainerRequest {
            container_id: id.clone(),
        };
        self.call("StartContainer", async move |mut to: Client| {
            to.start_container(request).await
        })?;
        Ok(id)
    }

    /// What the runtime itself tells of a container, as JSON.
    pub(crate) fn container_info(&self, id: &str) -> Result<String> {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let mut answer = self.call("ContainerStatus", async move |mut to: Client| {
            to.container_status(request).await
        })?;
        Ok(answer.info.remove("info").unwrap_or_default())
    }

    /// Whether the runtime says that it and its network are ready.
    pub(crate) fn ready(&self) -> Result<bool> {
        let request = v1::StatusRequest { verbose: false };
        let answer = self.call("Status", async move |mut to: Client| to.status(request).await)?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(!conditions.is_empty() && conditions.iter().all(|condition| condition.status))
    }

    /// Whether the runtime's image store has this image.
    pub(crate) fn has_image(&self, name: &str) -> Result<bool> {
        let spec = v1::ImageSpec {
            image: name.to_owned(),
            ..v1::ImageSpec::default()
        };
        let request = v1::ImageStatusRequest {
            image: Some(spec),
            verbose: false,
        };
        let (socket, version) = (self.socket.clone(), self.version);
        block_on(async move {
            let mut to = ImageServiceClient::new(connect(&socket, version).await?);
            to.image_status(request).await
        })?
        .map(|answer| answer.into_inner().image.is_some())
        .map_err(|status| LabError::cri("ImageStatus", status))
    }

    fn call<T>(
        &self,
        name: &'static str,
        make: impl AsyncFnOnce(Client) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        let (socket, version) = (self.socket.clone(), self.version);
        let calling = async move { make(Client::new(connect(&socket, version).await?)).await };
        block_on(calling)?
            .map(Response::into_inner)
            .map_err(|status| LabError::cri(name, status))
    }
}

/// Runs one call to its end or to the deadline.
fn block_on<T>(
    calling: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Result<Response<T>, Status>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "start the client's runtime".to_owned())?;
    Ok(runtime.block_on(async {
        let deadline = tokio::time::timeout(DEADLINE, calling).await;
        deadline.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("the runtime did not answer")))
    }))
}

async fn connect(socket: &Path, version: Version) -> Result<Wire, Status> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://runtime")
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(match version {
        Version::V1 => MapRequest::new(channel, std::convert::identity),
        Version::V1Alpha2 => MapRequest::new(channel, as_v1alpha2),
    })
}

fn as_v1alpha2(mut request: http::Request<Body>) -> http::Request<Body> {
    let path = request.uri().path().replace("/runtime.v1.", "/runtime.v1alpha2.");
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = path.parse().ok();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// What kubelet would send for a pod of this name.
pub(crate) fn pod_config(name: &str, uid: &str, cgroup_parent: &str) -> v1::PodSandboxConfig {
    let namespace = "default";
    let labels = [("name", name), ("namespace", namespace), ("uid", uid)]
        .map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.to_owned()));
    let namespaces = v1::NamespaceOption {
        network: v1::NamespaceMode::Pod.into(),
        pid: v1::NamespaceMode::Container.into(),
        ipc: v1::NamespaceMode::Pod.into(),
        ..v1::NamespaceOption::default()
    };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: format!("/var/log/pods/{namespace}_{name}_{uid}"),
        labels: HashMap::from(labels),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                ..v1::LinuxSandboxSecurityContext::default()
            }),
            ..v1::LinuxPodSandboxConfig::default()
        }),
        ..v1::PodSandboxConfig::default()
    }
}
