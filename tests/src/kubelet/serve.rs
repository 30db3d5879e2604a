//! The servers themselves: processes inside a node, named as the real ones. One thread for each connection.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::error::{Doing, LabError, Result};
use crate::kubelet::{API_CONTROL, Answer, CONTROL, SERVING_CERTIFICATE};

/// The name under which this program is kubelet.
pub const KUBELET: &str = "kubelet";

/// The name under which it is the API server.
pub const API_SERVER: &str = "kube-apiserver";

/// Longer than any deadline of a tool, and than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Go writes bodies above this in chunks.
const CHUNK: usize = 2048;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Kubelet,
    ApiServer,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Nobody in particular.
    Stranger,
    /// Somebody with the token, by a certificate of the control plane, or at a port where nobody is asked who he is.
    Trusted,
    /// The node itself, by kubelet's certificate: the API server tells it of its pods, but kubelet's own list is not for it.
    Node,
}

struct Server {
    role: Role,
    control: PathBuf,
    tls: Arc<ServerConfig>,
}

/// Serves until it is killed.
pub fn run(name: &str) -> ExitCode {
    match serve(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str) -> Result<()> {
    let server = if name == KUBELET {
        Server {
            role: Role::Kubelet,
            control: CONTROL.into(),
            tls: tls(SERVING_CERTIFICATE, "/var/lib/kubelet/pki/kubelet.key")?,
        }
    } else {
        Server {
            role: Role::ApiServer,
            control: API_CONTROL.into(),
            tls: tls("/run/lab/api/tls.crt", "/run/lab/api/tls.key")?,
        }
    };
    let server = Arc::new(server);
    let mut threads = Vec::new();
    for (port, encrypted) in ports(server.role)? {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).doing(|| format!("listen on port {port}"))?;
        let server = Arc::clone(&server);
        threads.push(thread::spawn(move || server.accept(&listener, port, encrypted)));
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// The configuration decides, as of the real one: `--config` is read for the ports.
fn ports(role: Role) -> Result<Vec<(u16, bool)>> {
    if role == Role::ApiServer {
        return Ok(vec![(6443, true)]);
    }
    let config = std::env::args()
        .find_map(|word| word.strip_prefix("--config=").map(str::to_owned))
        .ok_or_else(|| LabError::Odd("no --config".to_owned()))?;
    let text = fs::read_to_string(&config).doing(|| format!("read {config}"))?;
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|value| value.trim().parse::<u16>().ok())
    };
    let plain = [number("healthzPort:"), number("readOnlyPort:")];
    let plain = plain.into_iter().flatten().map(|port| (port, false));
    Ok(std::iter::once((10250, true)).chain(plain).collect())
}

fn tls(certificate: &str, key: &str) -> Result<Arc<ServerConfig>> {
    let odd = |error: &dyn std::fmt::Display| LabError::Odd(format!("{certificate}: {error}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |path: &str| -> Result<Vec<CertificateDer<'static>>> {
        let all = CertificateDer::pem_file_iter(path).map_err(|error| odd(&error))?;
        all.collect::<std::result::Result<_, _>>()
            .map_err(|error| odd(&error))
    };
    let mut roots = RootCertStore::empty();
    for authority in read("/etc/kubernetes/pki/ca.crt")? {
        roots.add(authority).map_err(|error| odd(&error))?;
    }
    // Who shows no certificate may still have a token.
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| odd(&error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| odd(&error))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| odd(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(read(certificate)?, key)
        .map_err(|error| odd(&error))?;
    Ok(Arc::new(config))
}

impl Server {
    fn accept(self: &Arc<Self>, listener: &TcpListener, port: u16, encrypted: bool) {
        for stream in listener.incoming().flatten() {
            let server = Arc::clone(self);
            // What a client does wrong is its own affair.
            thread::spawn(move || server.connection(stream, port, encrypted).unwrap_or_default());
        }
    }

    fn connection(&self, stream: TcpStream, port: u16, encrypted: bool) -> std::io::Result<()> {
        if !encrypted {
            return self.request(stream, port, |_| Caller::Trusted);
        }
        let session = ServerConnection::new(Arc::clone(&self.tls)).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(session, stream);
        self.request(&mut stream, port, |stream| {
            caller(stream.get_ref().conn.peer_certificates())
        })?;
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).map(drop)
    }

    /// One request; its answer ends the connection.
    fn request<S: Read + Write>(
        &self,
        stream: S,
        port: u16,
        caller: impl FnOnce(&BufReader<S>) -> Caller,
    ) -> std::io::Result<()> {
        let mut from = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let caller = caller(&from);
        let Some(first) = lines.first() else {
            return Ok(());
        };
        self.record(port, first)?;
        let path = first.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let caller = if self.has_token(&lines) {
            Caller::Trusted
        } else {
            caller
        };
        self.answer(from.get_mut(), port, path, caller)
    }

    fn record(&self, port: u16, request: &str) -> std::io::Result<()> {
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let log = self.control.join("requests");
        let mut log = File::options().create(true).append(true).open(log)?;
        log.write_all(format!("{port} {method} {path}\n").as_bytes())
    }

    fn has_token(&self, lines: &[String]) -> bool {
        let token = fs::read_to_string(self.control.join("token")).unwrap_or_default();
        let says = |line: &String| {
            line.split_once(": ").is_some_and(|(key, value)| {
                key.eq_ignore_ascii_case("authorization")
                    && !token.is_empty()
                    && value.strip_prefix("Bearer ") == Some(token.trim())
            })
        };
        lines.iter().any(says)
    }

    fn answer(&self, to: &mut impl Write, port: u16, path: &str, caller: Caller) -> std::io::Result<()> {
        match (caller, self.role) {
            (Caller::Stranger, _) => return refused(to),
            (Caller::Node, Role::Kubelet) => return forbidden(to, "system:node:lab-node"),
            (Caller::Node, Role::ApiServer) | (Caller::Trusted, _) => {}
        }
        match (path, self.role, port) {
            ("/healthz", Role::Kubelet, 10248 | 10250) => self.health(to),
            ("/pods" | "/pods/", Role::Kubelet, 10250 | 10255) => self.pods(to),
            ("/api/v1/pods", Role::ApiServer, _) => self.pods(to),
            ("/api/v1/nodes/lab-node", Role::ApiServer, _) => node(to),
            ("/healthz" | "/livez" | "/readyz", Role::ApiServer, _) => whole(to, "200 OK", TEXT, "ok"),
            _ => whole(to, "404 Not Found", TEXT, "404 page not found\n"),
        }
    }

    fn health(&self, to: &mut impl Write) -> std::io::Result<()> {
        let says = fs::read_to_string(self.control.join("healthz")).unwrap_or_default();
        match says.trim() {
            "ok" => whole(to, "200 OK", TEXT, "ok"),
            "hang" => {
                thread::sleep(FOR_EVER);
                Ok(())
            }
            wrong => whole(to, "500 Internal Server Error", TEXT, wrong),
        }
    }

    fn pods(&self, to: &mut impl Write) -> std::io::Result<()> {
        let list = fs::read_to_string(self.control.join("pods.json")).unwrap_or_default();
        let half = list.get(..list.len() / 2).unwrap_or_default();
        let named = fs::read_to_string(self.control.join("answer")).unwrap_or_default();
        match Answer::named(named.trim()).unwrap_or(Answer::Failed) {
            Answer::Right => whole(to, "200 OK", JSON, &list),
            Answer::Empty => whole(
                to,
                "200 OK",
                JSON,
                r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":null}"#,
            ),
            Answer::Garbage => whole(to, "200 OK", JSON, "<html><body>It works!</body></html>\n"),
            Answer::AnotherKind => whole(
                to,
                "200 OK",
                JSON,
                r#"{"kind":"NodeList","apiVersion":"v1","metadata":{},"items":[]}"#,
            ),
            Answer::Half => whole(to, "200 OK", JSON, half),
            Answer::CutOff => {
                let head = head("200 OK", JSON, &format!("Content-Length: {}", list.len()));
                to.write_all(&[head.as_bytes(), half.as_bytes()].concat())?;
                to.flush()?;
                // Without the end of the TLS session.
                Err(std::io::Error::other("cut off"))
            }
            Answer::Refused => whole(to, "401 Unauthorized", TEXT, "Unauthorized"),
            Answer::Forbidden => forbidden(to, "lab"),
            Answer::Failed => whole(to, "500 Internal Server Error", TEXT, "internal error"),
            Answer::Hang => {
                thread::sleep(FOR_EVER);
                Ok(())
            }
            Answer::Trickle => trickle(to, &list),
        }
    }
}

/// Who shows these certificates. The name of a node is of this form, and stands in it as it is.
fn caller(certificates: Option<&[CertificateDer<'_>]>) -> Caller {
    const NODES: &[u8] = b"system:node:";
    let Some(certificate) = certificates.and_then(<[_]>::first) else {
        return Caller::Stranger;
    };
    if certificate.windows(NODES.len()).any(|window| window == NODES) {
        Caller::Node
    } else {
        Caller::Trusted
    }
}

fn refused(to: &mut impl Write) -> std::io::Result<()> {
    whole(to, "401 Unauthorized", TEXT, "Unauthorized")
}

fn forbidden(to: &mut impl Write, user: &str) -> std::io::Result<()> {
    let body = format!("Forbidden (user={user}, verb=get, resource=nodes, subresource=proxy)");
    whole(to, "403 Forbidden", TEXT, &body)
}

/// What the API server knows of the node itself: that it is this machine.
fn node(to: &mut impl Write) -> std::io::Result<()> {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let node = serde_json::json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": "lab-node"},
        "status": {"nodeInfo": {"machineID": id.trim(), "kubeletVersion": "v1.31.0"}},
    });
    whole(to, "200 OK", JSON, &node.to_string())
}

fn head(status: &str, kind: &str, length: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}\r\nConnection: close\r\n\r\n")
}

/// As Go's server writes it: with its length if it is short, else in chunks.
fn whole(to: &mut impl Write, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    if body.len() <= CHUNK {
        let length = format!("Content-Length: {}", body.len());
        to.write_all(format!("{}{body}", head(status, kind, &length)).as_bytes())?;
    } else {
        to.write_all(head(status, kind, "Transfer-Encoding: chunked").as_bytes())?;
        for chunk in body.as_bytes().chunks(CHUNK) {
            to.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            to.write_all(chunk)?;
            to.write_all(b"\r\n")?;
        }
        to.write_all(b"0\r\n\r\n")?;
    }
    to.flush()
}

fn trickle(to: &mut impl Write, body: &str) -> std::io::Result<()> {
    let length = format!("Content-Length: {}", body.len() + 100_000);
    to.write_all(head("200 OK", "application/json", &length).as_bytes())?;
    for byte in body.as_bytes().iter().chain([b' '; 100_000].iter()) {
        to.write_all(&[*byte])?;
        to.flush()?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
