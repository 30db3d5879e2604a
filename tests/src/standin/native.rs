//! The part of containerd's own API that tells more than the CRI: containers with their metadata, and tasks.

use std::collections::HashMap;
use std::fs;

use containerd_client::services::v1 as api;
use containerd_client::types::v1::{Process, Status};
use prost_types::Any;
use serde_json::json;

use crate::standin::pods;
use crate::standin::record::{BUNDLES, Record, is_pause};

/// The namespace of everything that kubelet runs.
pub(crate) const NAMESPACE: &str = "k8s.io";

pub(crate) fn version() -> api::VersionResponse {
    api::VersionResponse {
        version: format!("stand-in {}", env!("CARGO_PKG_VERSION")),
        revision: String::new(),
    }
}

pub(crate) fn namespaces() -> api::ListNamespacesResponse {
    let only = api::Namespace {
        name: NAMESPACE.to_owned(),
        ..api::Namespace::default()
    };
    api::ListNamespacesResponse {
        namespaces: vec![only],
    }
}

/// Every record, also of sandboxes in the making: those the CRI does not show.
pub(crate) fn containers() -> api::ListContainersResponse {
    api::ListContainersResponse {
        containers: Record::all().iter().map(container).collect(),
    }
}

fn container(record: &Record) -> api::Container {
    let kind = ("io.cri-containerd.kind".to_owned(), "sandbox".to_owned());
    let labels = record.labels.clone().into_iter().chain([kind]).collect();
    let metadata = Any {
        type_url: "github.com/containerd/cri/pkg/store/sandbox/Metadata".to_owned(),
        value: metadata(record).into_bytes(),
    };
    let spec = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
        value: pods::specification(record).to_string().into_bytes(),
    };
    api::Container {
        id: record.id.clone(),
        labels,
        image: crate::image::NAME.to_owned(),
        spec: Some(spec),
        extensions: HashMap::from([("io.cri-containerd.sandbox.metadata".to_owned(), metadata)]),
        ..api::Container::default()
    }
}

fn metadata(record: &Record) -> String {
    let (ip, more) = match record.ips.split_first() {
        Some((first, more)) => (first.as_str(), more),
        None => ("", [].as_slice()),
    };
    let pod = json!({"name": record.name, "uid": record.uid, "namespace": record.namespace});
    json!({
        "Version": "v1",
        "Metadata": {
            "ID": record.id,
            "Name": format!("{}_{}_{}_{}", record.name, record.namespace, record.uid, record.attempt),
            "Config": {"metadata": pod, "labels": record.labels},
            "NetNSPath": record.netns,
            "IP": ip,
            "AdditionalIPs": more,
            "RuntimeHandler": "",
        },
    })
    .to_string()
}

/// From the bundles, not the records: containerd since 1.6 lists tasks whose metadata was wiped.
pub(crate) fn tasks() -> api::ListTasksResponse {
    let names = fs::read_dir(BUNDLES).into_iter().flatten().flatten();
    let tasks = names.filter_map(|entry| {
        let pid = fs::read_to_string(entry.path().join("init.pid"))
            .ok()?
            .parse()
            .ok()?;
        let status = if is_pause(pid) {
            Status::Running
        } else {
            Status::Stopped
        };
        let id = entry.file_name().to_string_lossy().into_owned();
        Some(Process {
            id: id.clone(),
            container_id: id,
            pid,
            status: status.into(),
            ..Process::default()
        })
    });
    api::ListTasksResponse {
        tasks: tasks.collect(),
    }
}
