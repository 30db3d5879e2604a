//! A runtime that answers as it is told to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use k8s_cri::{v1, v1alpha2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

/// What it answers with.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub(crate) sandboxes: Vec<v1::PodSandbox>,
    pub(crate) containers: Vec<v1::Container>,
    pub(crate) conditions: Vec<v1::RuntimeCondition>,
    /// What a verbose Status tells besides.
    pub(crate) info: HashMap<String, String>,
    /// Every call that it got, by name.
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
}

/// Which versions of the CRI it has.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Versions {
    V1,
    V1Alpha2,
}

impl Fake {
    fn note(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }

    fn refuse<T>(&self, call: &str) -> Result<T, Status> {
        self.note(call);
        Err(Status::permission_denied(
            "this call has side effects, or none asked for it",
        ))
    }

    /// Serves on a socket until the runtime of the test ends.
    pub(crate) fn serve(&self, socket: &Path, versions: Versions) {
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = futures::stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let fake = self.clone();
        tokio::spawn(async move {
            let mut server = tonic::transport::Server::builder();
            let router = match versions {
                Versions::V1 => {
                    server.add_service(v1::runtime_service_server::RuntimeServiceServer::new(fake))
                }
                Versions::V1Alpha2 => {
                    server.add_service(v1alpha2::runtime_service_server::RuntimeServiceServer::new(fake))
                }
            };
            router.serve_with_incoming(Box::pin(incoming)).await
        });
    }
}

/// The messages of both versions are the same.
fn same<A: Serialize, B: DeserializeOwned>(message: A) -> B {
    serde_json::from_value(serde_json::to_value(message).unwrap()).unwrap()
}

macro_rules! runtime_service {
    ($version:ident { $($name:ident: $question:ident => $answer:ident,)* } { $($rest:tt)* }) => {
        #[tonic::async_trait]
        impl $version::runtime_service_server::RuntimeService for Fake {
            async fn list_pod_sandbox(
                &self,
                request: Request<$version::ListPodSandboxRequest>,
            ) -> Result<Response<$version::ListPodSandboxResponse>, Status> {
                self.note("list_pod_sandbox");
                assert!(request.into_inner().filter.is_none());
                Ok(Response::new($version::ListPodSandboxResponse { items: same(&self.sandboxes) }))
            }

            async fn list_containers(
                &self,
                request: Request<$version::ListContainersRequest>,
            ) -> Result<Response<$version::ListContainersResponse>, Status> {
                self.note("list_containers");
                assert!(request.into_inner().filter.is_none());
                Ok(Response::new($version::ListContainersResponse { containers: same(&self.containers) }))
            }

            async fn status(
                &self,
                request: Request<$version::StatusRequest>,
            ) -> Result<Response<$version::StatusResponse>, Status> {
                self.note("status");
                let mut said = $version::StatusResponse::default();
                said.status.replace($version::RuntimeStatus { conditions: same(&self.conditions) });
                if request.into_inner().verbose {
                    said.info.clone_from(&self.info);
                }
                Ok(Response::new(said))
            }

            $(async fn $name(
                &self,
                _: Request<$version::$question>,
            ) -> Result<Response<$version::$answer>, Status> {
                self.refuse(stringify!($name))
            })*

            $($rest)*
        }
    };
}

macro_rules! both_versions {
    ($($name:ident: $question:ident => $answer:ident,)* | $($new:ident: $newq:ident => $newa:ident,)*) => {
        runtime_service!(v1alpha2 { $($name: $question => $answer,)* } {});
        runtime_service!(v1 { $($name: $question => $answer,)* $($new: $newq => $newa,)* } {
            type GetContainerEventsStream =
                futures::stream::Pending<Result<v1::ContainerEventResponse, Status>>;

            async fn get_container_events(
                &self,
                _: Request<v1::GetEventsRequest>,
            ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
                self.refuse("get_container_events")
            }
        });
    };
}

both_versions! {
    version: VersionRequest => VersionResponse,
    run_pod_sandbox: RunPodSandboxRequest => RunPodSandboxResponse,
    stop_pod_sandbox: StopPodSandboxRequest => StopPodSandboxResponse,
    remove_pod_sandbox: RemovePodSandboxRequest => RemovePodSandboxResponse,
    pod_sandbox_status: PodSandboxStatusRequest => PodSandboxStatusResponse,
    create_container: CreateContainerRequest => CreateContainerResponse,
    start_container: StartContainerRequest => StartContainerResponse,
    stop_container: StopContainerRequest => StopContainerResponse,
    remove_container: RemoveContainerRequest => RemoveContainerResponse,
    container_status: ContainerStatusRequest => ContainerStatusResponse,
    update_container_resources: UpdateContainerResourcesRequest => UpdateContainerResourcesResponse,
    reopen_container_log: ReopenContainerLogRequest => ReopenContainerLogResponse,
    exec_sync: ExecSyncRequest => ExecSyncResponse,
    exec: ExecRequest => ExecResponse,
    attach: AttachRequest => AttachResponse,
    port_forward: PortForwardRequest => PortForwardResponse,
    container_stats: ContainerStatsRequest => ContainerStatsResponse,
    list_container_stats: ListContainerStatsRequest => ListContainerStatsResponse,
    pod_sandbox_stats: PodSandboxStatsRequest => PodSandboxStatsResponse,
    list_pod_sandbox_stats: ListPodSandboxStatsRequest => ListPodSandboxStatsResponse,
    update_runtime_config: UpdateRuntimeConfigRequest => UpdateRuntimeConfigResponse,
    |
    checkpoint_container: CheckpointContainerRequest => CheckpointContainerResponse,
    list_metric_descriptors: ListMetricDescriptorsRequest => ListMetricDescriptorsResponse,
    list_pod_sandbox_metrics: ListPodSandboxMetricsRequest => ListPodSandboxMetricsResponse,
    runtime_config: RuntimeConfigRequest => RuntimeConfigResponse,
}

/// A directory with room for a socket.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("runtime.sock");
    (dir, socket)
}
