//! What a runtime tells kubelet: sandboxes and containers, over the CRI.
//!
//! Only calls without side effects are made. PodSandboxStatus has one: containerd's `NetNS.Closed` removes the path
//! of a namespace when it does not find one there (pkg/netns/netns_linux.go).

use std::collections::HashMap;

use k8s_cri::v1;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Bytes, StdError, http};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::knowledge::{Pod, Record, RecordKind};
use crate::line::{DECODE_LIMIT, failed};

/// Lists every sandbox and container, in any state.
///
/// v1alpha2 is asked if there is no v1. The two differ in the name of the package alone: containerd 1.6 passes the
/// bytes of one as the other (pkg/cri/server/instrumented_service.go).
pub(crate) async fn ask(channel: Channel) -> Result<Vec<Record>, String> {
    let said = list(RuntimeServiceClient::new(channel.clone())).await;
    let said = match said {
        Err((_, status)) if status.code() == Code::Unimplemented => {
            list(RuntimeServiceClient::new(older(channel))).await
        }
        other => other,
    };
    match said {
        Ok(answer) => answer.into_records(),
        Err((_, status)) if status.code() == Code::Unimplemented => Err(NO_CRI.to_owned()),
        Err((call, status)) => Err(failed(call, &status)),
    }
}

const NO_CRI: &str = "it has no CRI, neither v1 nor v1alpha2: its CRI plugin is off, or failed to start; look into its \
                      log, or name the runtime that kubelet uses with --runtime-endpoint";

/// What the runtime tells of itself: JSON by name, and other text.
pub(crate) async fn info(channel: Channel) -> Result<HashMap<String, String>, String> {
    let question = || v1::StatusRequest { verbose: true };
    let said = RuntimeServiceClient::new(channel.clone())
        .status(question())
        .await;
    let said = match said {
        Err(status) if status.code() == Code::Unimplemented => {
            RuntimeServiceClient::new(older(channel)).status(question()).await
        }
        other => other,
    };
    let said = said.map_err(|status| failed("Status", &status))?;
    Ok(said.into_inner().info)
}

pub(crate) type Older = tower::util::MapRequest<Channel, fn(http::Request<Body>) -> http::Request<Body>>;

/// The same for a runtime of which the CRI is v1alpha2.
pub(crate) fn older(channel: Channel) -> Older {
    tower::util::MapRequest::new(channel, as_v1alpha2)
}

struct Answer {
    sandboxes: Vec<v1::PodSandbox>,
    containers: Vec<v1::Container>,
    status: Option<v1::RuntimeStatus>,
}

async fn list<T>(client: RuntimeServiceClient<T>) -> Result<Answer, (&'static str, Status)>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    let mut client = client.max_decoding_message_size(DECODE_LIMIT);
    let sandboxes = client
        .list_pod_sandbox(v1::ListPodSandboxRequest::default())
        .await;
    let sandboxes = sandboxes
        .map_err(|status| ("ListPodSandbox", status))?
        .into_inner()
        .items;
    let containers = client.list_containers(v1::ListContainersRequest::default()).await;
    let containers = containers
        .map_err(|status| ("ListContainers", status))?
        .into_inner()
        .containers;
    let status = match client.status(v1::StatusRequest::default()).await {
        Ok(status) => status.into_inner().status,
        Err(status) if status.code() == Code::Unimplemented => None,
        Err(status) => return Err(("Status", status)),
    };
    Ok(Answer {
        sandboxes,
        containers,
        status,
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

impl Answer {
    fn into_records(self) -> Result<Vec<Record>, String> {
        let conditions = self.status.map(|status| status.conditions).unwrap_or_default();
        let ready = conditions
            .iter()
            .find(|condition| condition.r#type == "RuntimeReady");
        if let Some(not) = ready.filter(|condition| !condition.status) {
            return Err(format!(
                "it says that it is not ready: {} {}",
                not.reason, not.message
            ));
        }
        let sandboxes = self.sandboxes.into_iter().map(sandbox);
        Ok(sandboxes
            .chain(self.containers.into_iter().map(container))
            .collect())
    }
}

fn sandbox(sandbox: v1::PodSandbox) -> Record {
    let state = v1::PodSandboxState::try_from(sandbox.state);
    Record {
        kind: RecordKind::Sandbox,
        sandbox_id: Some(sandbox.id.clone()),
        id: sandbox.id,
        namespace: None,
        state: Some(state.map_or_else(
            |_| sandbox.state.to_string(),
            |state| state.as_str_name().to_owned(),
        )),
        pid: None,
        netns: None,
        host_network: false,
        pod: sandbox.metadata.map(|pod| Pod {
            uid: pod.uid,
            namespace: pod.namespace,
            name: pod.name,
        }),
    }
}

fn container(container: v1::Container) -> Record {
    let state = v1::ContainerState::try_from(container.state);
    Record {
        kind: RecordKind::Container,
        pod: Pod::of_labels(|name| container.labels.get(name).cloned()),
        id: container.id,
        sandbox_id: Some(container.pod_sandbox_id).filter(|id| !id.is_empty()),
        namespace: None,
        state: Some(state.map_or_else(
            |_| container.state.to_string(),
            |state| state.as_str_name().to_owned(),
        )),
        pid: None,
        netns: None,
        host_network: false,
    }
}
