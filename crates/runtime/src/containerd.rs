//! What containerd itself keeps, in every namespace of its own.
//!
//! The CRI plugin leaves out what it could not load ("Failed to load sandbox") and what is in the making; here both
//! are. So are the containers of nerdctl, nomad and Docker.

use containerd_client::Client;
use containerd_client::services::v1::sandbox::StoreListRequest;
use containerd_client::services::v1::{
    Container, ListContainersRequest, ListNamespacesRequest, ListTasksRequest,
};
use containerd_client::types::Sandbox;
use containerd_client::types::v1::{Process, Status as TaskStatus};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::knowledge::{Pod, Record, RecordKind};
use crate::line::{DECODE_LIMIT, Silence, failed};
use crate::metadata::{Network, SandboxMetadata, Specification, sandbox_of_container};
use crate::sources::Asked;

/// The header that names the namespace (containerd, pkg/namespaces/grpc.go).
const NAMESPACE_HEADER: &str = "containerd-namespace";
/// What the CRI plugin labels its containers with (internal/cri/labels).
const KIND_LABEL: &str = "io.cri-containerd.kind";
const SANDBOX_EXTENSION: &str = "io.cri-containerd.sandbox.metadata";
const CONTAINER_EXTENSION: &str = "io.cri-containerd.container.metadata";
/// The key of the same metadata in the sandbox store (internal/cri/server/podsandbox).
const STORE_EXTENSION: &str = "metadata";

/// Lists one kind of thing in every namespace.
pub(crate) async fn ask(channel: Channel, asked: Asked) -> Result<Vec<Record>, Silence> {
    let client = Client::from(channel);
    let mut records = Vec::new();
    for namespace in namespaces(&client).await? {
        match asked {
            Asked::Containers => containers(&client, &namespace, &mut records).await?,
            Asked::Tasks => tasks(&client, &namespace, &mut records).await?,
            Asked::Sandboxes => sandboxes(&client, &namespace, &mut records).await?,
        }
    }
    Ok(records)
}

/// The namespaces, with `default` and `k8s.io` even if nothing is in them: a service that is missing is found out on an
/// empty node too.
async fn namespaces(client: &Client) -> Result<Vec<String>, Silence> {
    let mut namespaces = client.namespaces().max_decoding_message_size(DECODE_LIMIT);
    let listed = namespaces.list(ListNamespacesRequest::default()).await;
    let listed = listed
        .map_err(|status| silence("Namespaces.List", &status))?
        .into_inner()
        .namespaces;
    let mut names: Vec<_> = listed.into_iter().map(|namespace| namespace.name).collect();
    names.extend(["default", "k8s.io"].map(str::to_owned));
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

async fn containers(client: &Client, namespace: &str, records: &mut Vec<Record>) -> Result<(), Silence> {
    let mut containers = client.containers().max_decoding_message_size(DECODE_LIMIT);
    let listed = containers
        .list(in_namespace(ListContainersRequest::default(), namespace)?)
        .await;
    let listed = listed
        .map_err(|status| silence("Containers.List", &status))?
        .into_inner()
        .containers;
    for container in listed {
        records.push(of_container(container, namespace)?);
    }
    Ok(())
}

async fn tasks(client: &Client, namespace: &str, records: &mut Vec<Record>) -> Result<(), Silence> {
    let mut tasks = client.tasks().max_decoding_message_size(DECODE_LIMIT);
    let listed = tasks
        .list(in_namespace(ListTasksRequest::default(), namespace)?)
        .await;
    let listed = listed
        .map_err(|status| silence("Tasks.List", &status))?
        .into_inner()
        .tasks;
    records.extend(listed.into_iter().map(|task| of_task(task, namespace)));
    Ok(())
}

async fn sandboxes(client: &Client, namespace: &str, records: &mut Vec<Record>) -> Result<(), Silence> {
    let mut store = client.sandbox_store().max_decoding_message_size(DECODE_LIMIT);
    let listed = store
        .list(in_namespace(StoreListRequest::default(), namespace)?)
        .await;
    let listed = listed
        .map_err(|status| silence("sandbox Store.List", &status))?
        .into_inner()
        .list;
    for sandbox in listed {
        records.push(of_sandbox(&sandbox, namespace)?);
    }
    Ok(())
}

pub(crate) fn in_namespace<T>(message: T, namespace: &str) -> Result<Request<T>, Silence> {
    let value = MetadataValue::try_from(namespace)
        .map_err(|error| Silence::Unknown(format!("namespace {namespace} cannot be asked for: {error}")))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE_HEADER, value);
    Ok(request)
}

fn silence(call: &str, status: &Status) -> Silence {
    if status.code() == Code::Unimplemented {
        return Silence::NotOffered(format!("this runtime has no {call}"));
    }
    Silence::Unknown(failed(call, status))
}

fn of_container(container: Container, namespace: &str) -> Result<Record, Silence> {
    let mut record = blank(RecordKind::Container, &container.id, namespace);
    record.pod = Pod::of_labels(|name| container.labels.get(name).cloned());
    record.sandbox_id = Some(container.sandbox).filter(|id| !id.is_empty());
    if container
        .labels
        .get(KIND_LABEL)
        .is_some_and(|kind| kind == "sandbox")
    {
        record.kind = RecordKind::Sandbox;
        record.sandbox_id = Some(container.id.clone());
    }
    if let Some(extension) = container.extensions.get(CONTAINER_EXTENSION) {
        let sandbox =
            sandbox_of_container(&extension.value).map_err(|error| unreadable(&container.id, &error))?;
        record.sandbox_id = Some(sandbox);
    }
    match container.extensions.get(SANDBOX_EXTENSION) {
        Some(extension) => enter_metadata(&mut record, &extension.value)?,
        None => enter_network(
            &mut record,
            of_specification(container.spec.as_ref().map(|spec| spec.value.as_slice())),
        ),
    }
    Ok(record)
}

/// Other programs keep specifications of other forms: then it is not told.
fn of_specification(json: Option<&[u8]>) -> Network {
    json.and_then(|json| Specification::parse(json).ok())
        .map_or(Network::Untold, |spec| spec.network())
}

fn of_task(task: Process, namespace: &str) -> Record {
    let id = if task.container_id.is_empty() {
        &task.id
    } else {
        &task.container_id
    };
    let state = TaskStatus::try_from(task.status);
    Record {
        state: Some(state.map_or_else(
            |_| task.status.to_string(),
            |state| state.as_str_name().to_lowercase(),
        )),
        pid: Some(task.pid).filter(|pid| *pid > 0),
        ..blank(RecordKind::Task, id, namespace)
    }
}

fn of_sandbox(sandbox: &Sandbox, namespace: &str) -> Result<Record, Silence> {
    let mut record = blank(RecordKind::Sandbox, &sandbox.sandbox_id, namespace);
    record.sandbox_id = Some(sandbox.sandbox_id.clone());
    record.pod = Pod::of_labels(|name| sandbox.labels.get(name).cloned());
    let extension = [STORE_EXTENSION, SANDBOX_EXTENSION]
        .iter()
        .find_map(|key| sandbox.extensions.get(*key));
    if let Some(extension) = extension {
        enter_metadata(&mut record, &extension.value)?;
    }
    Ok(record)
}

fn enter_metadata(record: &mut Record, json: &[u8]) -> Result<(), Silence> {
    let metadata = SandboxMetadata::parse(json).map_err(|error| unreadable(&record.id, &error))?;
    record.kind = RecordKind::Sandbox;
    record.sandbox_id = Some(metadata.id);
    record.pod = metadata.pod.or(record.pod.take());
    enter_network(record, metadata.network);
    Ok(())
}

fn enter_network(record: &mut Record, network: Network) {
    record.host_network = network.is_host();
    record.netns = network.reference();
}

fn unreadable(id: &str, error: &serde_json::Error) -> Silence {
    Silence::Unknown(format!(
        "the CRI metadata of container {id} cannot be read: {error}"
    ))
}

fn blank(kind: RecordKind, id: &str, namespace: &str) -> Record {
    Record {
        kind,
        id: id.to_owned(),
        sandbox_id: None,
        namespace: Some(namespace.to_owned()),
        state: None,
        pid: None,
        netns: None,
        host_network: false,
        pod: None,
    }
}
