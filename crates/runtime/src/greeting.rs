//! Whether a runtime answers at all, and what it says of itself.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use k8s_cri::v1;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use nodemend_hostfs::Host;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Bytes, StdError};
use tonic::{Code, Status};

use crate::cri::older;
use crate::endpoint::Endpoint;
use crate::line::{Refusal, connect, failed};
use crate::survey::within;

/// What a runtime says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// `containerd`.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// The version of the CRI that it was asked in: `v1`, or `v1alpha2` where there is no v1.
    pub api: &'static str,
    /// Why it is not ready, if it says so (its condition RuntimeReady).
    pub not_ready: Option<String>,
    /// How long the process that listens has been running, or why nobody can tell.
    pub age: Result<Duration, String>,
}

/// Why a runtime said nothing of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mute {
    /// It answers, and has no CRI.
    NoCri,
    /// Nobody listens on the socket, or there is none.
    NobodyThere(String),
    /// It was connected to, and did not answer.
    Silent(String),
    /// It cannot be asked: the socket is not allowed, or belongs to another pid namespace.
    Unreachable(String),
}

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCri => f.write_str("it has no CRI, neither v1 nor v1alpha2"),
            Self::NobodyThere(reason) | Self::Silent(reason) | Self::Unreachable(reason) => {
                f.write_str(reason)
            }
        }
    }
}

impl From<Refusal> for Mute {
    fn from(refusal: Refusal) -> Self {
        if refusal.nobody {
            Self::NobodyThere(refusal.reason)
        } else {
            Self::Unreachable(refusal.reason)
        }
    }
}

/// Words are what is left after the deadline.
impl From<String> for Mute {
    fn from(reason: String) -> Self {
        Self::Silent(reason)
    }
}

impl From<(&'static str, Status)> for Mute {
    fn from((call, status): (&'static str, Status)) -> Self {
        if status.code() == Code::Unimplemented {
            Self::NoCri
        } else {
            Self::Silent(failed(call, &status))
        }
    }
}

/// Asks a runtime for its Version and its Status, as kubelet does when it starts. v1alpha2 is asked where there is no v1.
///
/// Needs a tokio runtime with I/O and time; see [`crate::blocking`] for callers without one.
///
/// # Errors
/// [`Mute`] says why there was no answer within the deadline.
pub async fn greet(host: &Host, endpoint: &Endpoint, deadline: Duration) -> Result<Greeting, Mute> {
    let socket = endpoint
        .socket()
        .map_err(|reason| Mute::Unreachable(reason.to_owned()))?;
    within(deadline, ask(host, socket)).await
}

async fn ask(host: &Host, socket: &Path) -> Result<Greeting, Mute> {
    let line = connect(host, socket).await?;
    let (channel, age) = (line.channel, line.age);
    match said(RuntimeServiceClient::new(channel.clone()), "v1", age.clone()).await {
        Err((_, status)) if status.code() == Code::Unimplemented => {
            Ok(said(RuntimeServiceClient::new(older(channel)), "v1alpha2", age).await?)
        }
        said => Ok(said?),
    }
}

async fn said<T>(
    mut client: RuntimeServiceClient<T>,
    api: &'static str,
    age: Result<Duration, String>,
) -> Result<Greeting, (&'static str, Status)>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    let question = v1::VersionRequest {
        version: api.to_owned(),
    };
    let version = client.version(question).await;
    let version = version.map_err(|status| ("Version", status))?.into_inner();
    let status = client.status(v1::StatusRequest::default()).await;
    let status = status.map_err(|status| ("Status", status))?.into_inner().status;
    Ok(Greeting {
        runtime: version.runtime_name,
        version: version.runtime_version,
        api,
        not_ready: status.and_then(|status| not_ready(&status.conditions)),
        age,
    })
}

fn not_ready(conditions: &[v1::RuntimeCondition]) -> Option<String> {
    let ready = conditions
        .iter()
        .find(|condition| condition.r#type == "RuntimeReady");
    let said = |condition: &v1::RuntimeCondition| format!("{} {}", condition.reason, condition.message);
    match ready {
        Some(condition) if condition.status => None,
        Some(condition) => Some(said(condition).trim().to_owned()),
        None => Some("its status does not have RuntimeReady".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: bool) -> v1::RuntimeCondition {
        v1::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: "Stopped".into(),
            message: "no shims".into(),
        }
    }

    #[test]
    fn a_network_that_is_not_ready_does_not_matter() {
        let network = condition("NetworkReady", false);
        assert_eq!(
            not_ready(&[condition("RuntimeReady", true), network.clone()]),
            None
        );
        let said = not_ready(&[network.clone(), condition("RuntimeReady", false)]);
        assert_eq!(said.as_deref(), Some("Stopped no shims"));
        assert!(not_ready(&[network]).is_some());
    }

    #[tokio::test]
    async fn nobody_and_silence_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("runtime.sock");
        let endpoint = Endpoint::new(socket.to_str().unwrap());
        let deadline = Duration::from_millis(300);
        let nobody = greet(&Host::local(), &endpoint, deadline).await;
        assert!(matches!(nobody, Err(Mute::NobodyThere(_))), "{nobody:?}");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let silent = greet(&Host::local(), &endpoint, deadline).await;
        assert!(matches!(silent, Err(Mute::Silent(_))), "{silent:?}");
        drop(listener);
        let refused = greet(&Host::local(), &endpoint, deadline).await;
        assert!(matches!(refused, Err(Mute::NobodyThere(_))), "{refused:?}");
    }
}
