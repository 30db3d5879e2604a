//! The stand-in's calls: which path is answered by which function.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use http::Request;
use hyper::body::Incoming;
use k8s_cri::v1;
use serde_json::json;
use tokio::net::UnixListener;
use tonic::Status;

use crate::error::{Doing, LabError, Result};
use crate::runtime;
use crate::standin::record::Record;
use crate::standin::wire::{Answering, serve, unary, unimplemented};
use crate::standin::{chain, native, pods};

/// While this file exists, the CRI is v1alpha2 only.
pub(crate) const ONLY_V1ALPHA2: &str = "/run/lab/only-v1alpha2";

/// The server's whole life.
///
/// # Errors
///
/// When the socket cannot be bound.
pub fn run() -> Result<()> {
    let socket = Path::new(runtime::SOCKET);
    // Left by a predecessor that was killed.
    let _ = fs::remove_file(socket);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "start the server's runtime".to_owned())?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket).at("listen on", socket)?;
        serve(listener, answer).await.at("accept on", socket)
    })
}

fn answer(request: Request<Incoming>) -> Answering {
    // The messages of both versions are the same on the wire.
    let path = request.uri().path().replace("/runtime.v1alpha2.", "/runtime.v1.");
    if request.uri().path().starts_with("/runtime.v1.") && Path::new(ONLY_V1ALPHA2).exists() {
        return unimplemented("runtime.v1.RuntimeService");
    }
    // The namespace in which containerd's own calls look; the CRI has none.
    let namespace = request
        .headers()
        .get("containerd-namespace")
        .and_then(|value| value.to_str().ok());
    let ours = namespace == Some(native::NAMESPACE);
    match path.as_str() {
        "/runtime.v1.RuntimeService/Version" => unary(request, |_: v1::VersionRequest| Ok(version())),
        "/runtime.v1.RuntimeService/Status" => unary(request, |_: v1::StatusRequest| Ok(status())),
        "/runtime.v1.RuntimeService/ListPodSandbox" => unary(request, |query| Ok(list(&query))),
        "/runtime.v1.RuntimeService/PodSandboxStatus" => unary(request, |query| sandbox_status(&query)),
        "/runtime.v1.RuntimeService/ListContainers" => unary(request, |_: v1::ListContainersRequest| {
            Ok(v1::ListContainersResponse::default())
        }),
        "/runtime.v1.RuntimeService/RunPodSandbox" => unary(request, run_sandbox),
        "/runtime.v1.RuntimeService/StopPodSandbox" => unary(request, |query: v1::StopPodSandboxRequest| {
            pods::stop(&query.pod_sandbox_id).map_err(unknown)?;
            Ok(v1::StopPodSandboxResponse::default())
        }),
        "/runtime.v1.RuntimeService/RemovePodSandbox" => {
            unary(request, |query: v1::RemovePodSandboxRequest| {
                pods::remove(&query.pod_sandbox_id).map_err(unknown)?;
                Ok(v1::RemovePodSandboxResponse::default())
            })
        }
        "/containerd.services.version.v1.Version/Version" => unary(request, |(): ()| Ok(native::version())),
        "/containerd.services.namespaces.v1.Namespaces/List" => {
            unary(request, |(): ()| Ok(native::namespaces()))
        }
        "/containerd.services.containers.v1.Containers/List" => unary(request, move |(): ()| {
            Ok(if ours {
                native::containers()
            } else {
                Default::default()
            })
        }),
        "/containerd.services.tasks.v1.Tasks/List" => unary(request, move |(): ()| {
            Ok(if ours { native::tasks() } else { Default::default() })
        }),
        other => unimplemented(other),
    }
}

/// As containerd passes on what a plugin said.
fn unknown(error: LabError) -> Status {
    Status::unknown(error.to_string())
}

fn version() -> v1::VersionResponse {
    v1::VersionResponse {
        version: "0.1.0".to_owned(),
        runtime_name: "stand-in".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

fn status() -> v1::StatusResponse {
    let condition = |kind: &str, status| v1::RuntimeCondition {
        r#type: kind.to_owned(),
        status,
        ..v1::RuntimeCondition::default()
    };
    let conditions = vec![
        condition("RuntimeReady", true),
        condition("NetworkReady", chain::configuration().is_ok()),
    ];
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus { conditions }),
        ..Default::default()
    }
}

fn run_sandbox(query: v1::RunPodSandboxRequest) -> Result<v1::RunPodSandboxResponse, Status> {
    let id = pods::run(query.config.unwrap_or_default()).map_err(unknown)?;
    Ok(v1::RunPodSandboxResponse { pod_sandbox_id: id })
}

fn state(record: &Record) -> i32 {
    let ready = v1::PodSandboxState::SandboxReady;
    let state = if record.is_ready() {
        ready
    } else {
        v1::PodSandboxState::SandboxNotready
    };
    state.into()
}

fn pod_metadata(record: &Record) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: record.name.clone(),
        uid: record.uid.clone(),
        namespace: record.namespace.clone(),
        attempt: record.attempt,
    }
}

fn list(query: &v1::ListPodSandboxRequest) -> v1::ListPodSandboxResponse {
    let filter = query.filter.clone().unwrap_or_default();
    let made = Record::all()
        .into_iter()
        .filter(Record::is_made)
        .map(|record| v1::PodSandbox {
            metadata: Some(pod_metadata(&record)),
            state: state(&record),
            created_at: record.created_at,
            labels: record.labels,
            id: record.id,
            ..v1::PodSandbox::default()
        });
    let wanted = made.filter(|one| {
        let id = filter.id.is_empty() || one.id.starts_with(&filter.id);
        id && filter
            .state
            .as_ref()
            .is_none_or(|wanted| wanted.state == one.state)
    });
    v1::ListPodSandboxResponse {
        items: wanted.collect(),
    }
}

fn sandbox_status(query: &v1::PodSandboxStatusRequest) -> Result<v1::PodSandboxStatusResponse, Status> {
    let id = &query.pod_sandbox_id;
    let record = Record::load(id).filter(Record::is_made);
    let record = record.ok_or_else(|| Status::not_found(format!("sandbox \"{id}\": not found")))?;
    let mut ips = if record.stopped {
        Vec::new()
    } else {
        record.ips.clone()
    }
    .into_iter();
    let network = v1::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
    };
    let info = json!({
        "pid": record.pause.filter(|_| record.is_ready()).unwrap_or(0),
        "processStatus": if record.is_ready() { "running" } else { "deleted" },
        "netNamespaceClosed": !record.netns.exists(),
        "runtimeSpec": pods::specification(&record),
    });
    let status = v1::PodSandboxStatus {
        id: record.id.clone(),
        metadata: Some(pod_metadata(&record)),
        state: state(&record),
        created_at: record.created_at,
        network: Some(network),
        labels: record.labels.clone(),
        ..v1::PodSandboxStatus::default()
    };
    let info = query.verbose.then(|| ("info".to_owned(), info.to_string()));
    Ok(v1::PodSandboxStatusResponse {
        status: Some(status),
        info: HashMap::from_iter(info),
        ..v1::PodSandboxStatusResponse::default()
    })
}
