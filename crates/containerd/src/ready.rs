//! Waiting until containerd and kubelet answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nodemend_hostfs::Host;
use nodemend_runtime::{Endpoint, blocking};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::healthz::Healthz;

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(2);
/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// The most that is read of kubelet's answer, in bytes.
const ANSWER: u64 = 4096;

/// What a runtime said when it was ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// `containerd`.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// `v1` or `v1alpha2`.
    pub api: String,
    /// Milliseconds that were waited.
    pub waited_ms: u64,
}

/// Waits until the CRI on a socket answers Version and Status and says that the runtime is ready; v1alpha2 is asked where
/// there is no v1. The network need not be ready: pods of the host's network bring it up.
///
/// # Errors
/// [`Error::NotReady`] after the deadline, with what was said last.
pub fn wait_for_cri(socket: &Path, deadline: Duration) -> Result<Ready, Error> {
    let (host, endpoint) = (Host::local(), Endpoint::new(&socket.to_string_lossy()));
    let begun = Instant::now();
    let ready = until(begun, deadline, |patience| {
        let greeting = blocking::greet(&host, &endpoint, patience).map_err(|mute| mute.to_string())?;
        match greeting.not_ready {
            None => Ok((greeting.runtime, greeting.version, greeting.api)),
            Some(reason) => Err(format!("it says that it is not ready: {reason}")),
        }
    });
    let (runtime, version, api) = ready.map_err(|last| Error::NotReady {
        what: format!("the CRI on {}", socket.display()),
        deadline,
        last,
    })?;
    Ok(Ready {
        runtime,
        version,
        api: api.to_owned(),
        waited_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Waits until kubelet's healthz answers 200. Returns how long that took.
///
/// # Errors
/// [`Error::NotReady`] after the deadline, with what was said last; at once if healthz is off.
pub fn wait_for_kubelet(healthz: &Healthz, deadline: Duration) -> Result<Duration, Error> {
    let Healthz::At(at) = healthz else {
        return Err(Error::NotReady {
            what: "kubelet".to_owned(),
            deadline: Duration::ZERO,
            last: "its healthz is turned off (healthzPort: 0)".to_owned(),
        });
    };
    let begun = Instant::now();
    until(begun, deadline, |patience| healthy(*at, patience)).map_err(|last| Error::NotReady {
        what: format!("kubelet's healthz on {at}"),
        deadline,
        last,
    })?;
    Ok(begun.elapsed())
}

/// Asks again and again. At least once, however short the time is.
fn until<T>(
    begun: Instant,
    deadline: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, String>,
) -> Result<T, String> {
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let said = ask(left.clamp(PAUSE, QUESTION));
        if said.is_ok() || begun.elapsed() + PAUSE >= deadline {
            return said;
        }
        std::thread::sleep(PAUSE);
    }
}

/// One GET over HTTP/1.0, of which only the status counts.
fn healthy(at: SocketAddr, patience: Duration) -> Result<(), String> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&at, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(format!("GET /healthz HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        // Whatever comes after the status line may break off.
        let read = stream.take(ANSWER).read_to_end(&mut answer);
        if answer.is_empty() {
            read?;
        }
        Ok(answer)
    };
    let answer = ask().map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim());
    let body = body
        .filter(|body| !body.is_empty())
        .map(|body| format!(": {body}"));
    Err(format!("{status}{}", body.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves these answers, one for each connection, on a port of its own.
    fn kubelet(answers: &'static [&'static str]) -> Healthz {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = [0; 512];
                let read = stream.read(&mut question).unwrap();
                assert!(question[..read].starts_with(b"GET /healthz HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Healthz::At(at)
    }

    const OK: &str = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nok";
    const NOT_YET: &str = "HTTP/1.0 500 Internal Server Error\r\n\r\n[-]syncloop failed: reason withheld\n";

    #[test]
    fn kubelet_is_asked_until_it_is_well() {
        let waited = wait_for_kubelet(&kubelet(&[NOT_YET, OK]), Duration::from_secs(20)).unwrap();
        assert!(waited >= PAUSE, "{waited:?}");
    }

    #[test]
    fn what_kubelet_said_last_is_told() {
        let said = wait_for_kubelet(&kubelet(&[NOT_YET]), Duration::from_millis(1))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("500 Internal Server Error: [-]syncloop failed"),
            "{said}"
        );
        let off = wait_for_kubelet(&Healthz::Off, Duration::from_secs(60))
            .unwrap_err()
            .to_string();
        assert!(off.contains("turned off"), "{off}");
    }

    #[test]
    fn a_missing_runtime_is_not_waited_for_beyond_the_deadline() {
        let begun = Instant::now();
        let said = wait_for_cri(Path::new("/no/such.sock"), Duration::from_millis(250))
            .unwrap_err()
            .to_string();
        assert!(said.contains("there is no such socket"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
