//! Telling containerd that a task is over.

use std::path::Path;
use std::time::Duration;

use containerd_client::Client;
use containerd_client::services::v1::DeleteTaskRequest;
use nodemend_hostfs::Host;
use tonic::Code;

use crate::containerd::in_namespace;
use crate::line::{Silence, connect, failed};

/// What containerd made of a call for the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// It removed the task, with its bundle and its shim.
    Deleted,
    /// It has no such task, or no container of that id. It looks the container up before the task (`getContainer` in
    /// plugins/services/tasks/local.go), so a task whose record is lost cannot be removed by this call.
    NotKnown,
}

/// Has containerd remove a task whose processes have ended (`Tasks.Delete`). Nothing is killed by this call.
///
/// # Errors
/// In words, if containerd cannot be asked within the deadline, or refuses, as it does for a task that still runs.
pub async fn delete_task(
    host: &Host,
    socket: &Path,
    namespace: &str,
    id: &str,
    deadline: Duration,
) -> Result<TaskEnd, String> {
    let call = async {
        let line = connect(host, socket).await.map_err(|refusal| refusal.reason)?;
        let request = DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        let request = in_namespace(request, namespace).map_err(|silence| match silence {
            Silence::Unknown(reason) | Silence::Doubted(reason) | Silence::NotOffered(reason) => reason,
        })?;
        match Client::from(line.channel).tasks().delete(request).await {
            Ok(_) => Ok(TaskEnd::Deleted),
            Err(status) if status.code() == Code::NotFound => Ok(TaskEnd::NotKnown),
            Err(status) => Err(failed("Tasks.Delete", &status)),
        }
    };
    let answer = tokio::time::timeout(deadline, call).await;
    answer.unwrap_or_else(|_| Err(format!("did not answer within {} s", deadline.as_secs())))
}
