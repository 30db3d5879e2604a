//! A connection to a runtime, and who is at the other end.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nodemend_hostfs::Host;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::Channel;

/// The most that one answer may hold: a node's 110 pods take less than one of these.
pub(crate) const DECODE_LIMIT: usize = 64 << 20;

/// USER_HZ: the unit of the times in /proc/PID/stat, 100 on every architecture that Rust's std runs on (proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It did not answer, or not in a way that can be relied on.
    Unknown(String),
    /// It answered with nothing at all, and what runs contradicts that, or it is too young to know.
    Doubted(String),
    /// It does not have the service.
    NotOffered(String),
}

impl From<String> for Silence {
    fn from(reason: String) -> Self {
        Self::Unknown(reason)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// True if nobody listens there.
    pub(crate) nobody: bool,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self {
            reason,
            nobody: false,
        }
    }
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> Self {
        refusal.reason
    }
}

impl From<Refusal> for Silence {
    fn from(refusal: Refusal) -> Self {
        Self::Unknown(refusal.reason)
    }
}

/// An open connection.
pub(crate) struct Line {
    pub(crate) channel: Channel,
    /// How long the process at the other end has been running, or why nobody can tell.
    pub(crate) age: Result<Duration, String>,
}

/// Connects to a runtime's socket and looks at who listens there.
pub(crate) async fn connect(host: &Host, socket: &Path) -> Result<Line, Refusal> {
    let (stream, pid) = dial(socket).await?;
    let channel = channel(stream).await?;
    Ok(Line {
        channel,
        age: age(host, pid),
    })
}

/// A connection, and the process at the other end.
///
/// A listener that this pid namespace cannot name belongs to another one (unix(7), SO_PEERCRED): then this process
/// sees other processes than the runtime's, and the two cannot be compared.
async fn dial(socket: &Path) -> Result<(UnixStream, u32), Refusal> {
    let stream = UnixStream::connect(socket).await.map_err(|error| Refusal {
        nobody: matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused),
        reason: refused(&error),
    })?;
    let peer = stream
        .peer_cred()
        .map_err(|error| format!("does not tell who listens: {error}"))?;
    match peer.pid().map(u32::try_from) {
        Some(Ok(pid)) if pid > 0 => Ok((stream, pid)),
        Some(_) | None => Err(OUTSIDE.to_owned().into()),
    }
}

/// The process that listens on a socket.
pub(crate) async fn listener(socket: &Path) -> Result<u32, String> {
    Ok(dial(socket).await.map_err(|refusal| refusal.reason)?.1)
}

const OUTSIDE: &str = "the runtime runs outside of this pid namespace, so this is not the host; enter the host first: \
                       nsenter --target 1 --mount --net --pid -- …";

fn refused(error: &std::io::Error) -> String {
    let repair = "start the runtime, or give the right one with --runtime-endpoint";
    let kind = error.kind();
    if kind == ErrorKind::NotFound {
        format!("there is no such socket; {repair}")
    } else if kind == ErrorKind::ConnectionRefused {
        format!("nobody listens on the socket; {repair}")
    } else if kind == ErrorKind::PermissionDenied {
        format!("{error}; run as root")
    } else {
        format!("cannot connect: {error}")
    }
}

/// The stream is made before, so that its peer can be looked at; a second connection is never made.
async fn channel(stream: UnixStream) -> Result<Channel, String> {
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = once.take();
        async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("the connection broke"))
        }
    });
    let target = tonic::transport::Endpoint::from_static("http://runtime");
    target
        .connect_with_connector(connector)
        .await
        .map_err(|error| format!("cannot connect: {}", chain(&error)))
}

fn age(host: &Host, pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let bytes = host
        .read(Path::new(&path), 1 << 16)
        .map_err(|error| error.to_string())?;
    let start = start_ticks(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| format!("{path}: no start time in it"))?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = u64::try_from(now.tv_sec).unwrap_or_default();
    Ok(Duration::from_secs(now.saturating_sub(start / TICKS_PER_SECOND)))
}

/// Field 22 of /proc/PID/stat. The name before it may hold blanks and brackets.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// What a call that failed is told as.
pub(crate) fn failed(call: &str, status: &Status) -> String {
    let cause = std::error::Error::source(status)
        .map(|cause| format!(": {}", chain(cause)))
        .unwrap_or_default();
    format!("{call} failed: {}{cause} ({})", status.message(), status.code())
}

/// An error with its causes, which its own text leaves out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_ticks(&format!("7 (containerd) {rest}")), Some(4711));
        assert_eq!(start_ticks(&format!("7 (a) b (c) {rest}")), Some(4711));
        assert_eq!(start_ticks("7 (containerd) S 1"), None);
        assert_eq!(start_ticks(""), None);
    }

    #[test]
    fn this_process_is_younger_than_the_machine() {
        let age = age(&Host::local(), std::process::id()).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(super::age(&Host::local(), 1).unwrap() >= age);
    }
}
