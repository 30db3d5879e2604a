//! One question over HTTP/1.1, bounded in time and size.
//!
//! Written out, as it is so little: one GET on a connection of its own. An answer must say how long it is, by a length or in
//! chunks; one that only ends could have been cut.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The most that is read of an answer, in bytes: a node's 110 pods take about one of them.
const ANSWER: usize = 64 << 20;
/// The most of its head, in bytes.
const HEAD: usize = 64 << 10;
/// The most of an error's text that is repeated, in characters.
const WORDS: usize = 120;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// What it is called, for the header.
    pub(crate) host: String,
    /// None for HTTP without TLS.
    pub(crate) tls: Option<Tls>,
    /// A bearer token. Only sent over TLS.
    pub(crate) token: Option<Token>,
}

/// How the server is to be known.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// A bearer token, which is never shown.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// Of the text in a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let token = text.trim();
        let plain = |byte: u8| byte.is_ascii_graphic();
        if token.is_empty() || !token.bytes().all(plain) {
            return Err("no bearer token in it".to_owned());
        }
        Ok(Self(token.to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// 401 or 403: other credentials may be taken.
    Denied(String),
    /// Anything else.
    Failed(String),
}

impl Failure {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Denied(reason) | Self::Failed(reason) => reason,
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// The body of a 200. Whoever asks keeps the time: this waits for as long as it takes.
pub(crate) async fn get(server: &Server, path: &str) -> Result<Vec<u8>, Failure> {
    let stream = TcpStream::connect(server.address)
        .await
        .map_err(|error| format!("cannot connect to {}: {error}", server.address))?;
    let question = request(server, path)?;
    let (status, body) = match &server.tls {
        None => exchange(stream, &question).await,
        Some(tls) => {
            let stream = TlsConnector::from(Arc::clone(&tls.config))
                .connect(tls.name.clone(), stream)
                .await
                .map_err(|error| format!("{}: no TLS: {error}", server.address))?;
            exchange(stream, &question).await
        }
    }?;
    weigh(&status, body)
}

fn request(server: &Server, path: &str) -> Result<String, String> {
    let harmful = |text: &str| text.bytes().any(|byte| !byte.is_ascii_graphic());
    if harmful(path) || harmful(&server.host) {
        return Err(format!("{path} cannot be asked for at {}", server.host));
    }
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\nconnection: close\r\n",
        server.host
    );
    // In the clear anybody on the way could read it.
    if let Some(Token(token)) = server.token.as_ref().filter(|_| server.tls.is_some()) {
        head.push_str(&format!("authorization: Bearer {token}\r\n"));
    }
    Ok(head + "\r\n")
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &str,
) -> Result<(String, Vec<u8>), String> {
    let broke = |error: std::io::Error| format!("its answer broke off: {error}");
    stream.write_all(question.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut incoming = Incoming {
        stream,
        buffer: Vec::new(),
    };
    let head = incoming.head().await?;
    let (status, length) = understood(&head)?;
    let body = match length {
        Length::Known(length) => incoming.take(length).await?,
        Length::Chunked => incoming.chunks().await?,
    };
    Ok((status, body))
}

/// How an answer says where it ends.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    Known(usize),
    Chunked,
}

/// The status and the length in a head.
fn understood(head: &str) -> Result<(String, Length), String> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| first.strip_prefix("HTTP/1.0 "));
    let status = status.ok_or("its answer is no HTTP")?.trim().to_owned();
    let (mut length, mut chunked) = (None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let said: usize = value
                .parse()
                .map_err(|_not_one| "its answer has no length".to_owned())?;
            if length.is_some_and(|length| length != said) {
                return Err("its answer has two lengths".to_owned());
            }
            length = Some(said);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(format!("its answer is encoded as {}", words(value.as_bytes())));
            }
            chunked = true;
        }
    }
    match (chunked, length) {
        (true, _) => Ok((status, Length::Chunked)),
        (false, Some(length)) => Ok((status, Length::Known(length))),
        (false, None) => Err("its answer does not say how long it is".to_owned()),
    }
}

/// What comes in, as far as it was read.
struct Incoming<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Incoming<S> {
    /// Reads more; that there is none is an error.
    async fn more(&mut self) -> Result<(), String> {
        let read = self.stream.read_buf(&mut self.buffer).await;
        match read.map_err(|error| format!("its answer broke off: {error}"))? {
            0 => Err("its answer broke off".to_owned()),
            _ => Ok(()),
        }
    }

    /// Everything before this mark, which is taken out as well.
    async fn until(&mut self, mark: &[u8], limit: usize) -> Result<String, String> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                let text = String::from_utf8_lossy(self.buffer.get(..at).unwrap_or_default()).into_owned();
                self.buffer.drain(..at + mark.len());
                return Ok(text);
            }
            if self.buffer.len() > limit {
                return Err("its answer is no HTTP".to_owned());
            }
            self.more().await?;
        }
    }

    async fn head(&mut self) -> Result<String, String> {
        self.until(b"\r\n\r\n", HEAD).await
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        if length > ANSWER {
            return Err(format!("its answer is larger than {ANSWER} bytes"));
        }
        while self.buffer.len() < length {
            self.more().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n", HEAD).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_not_one| "its answer has no chunks".to_owned())?;
            if size == 0 {
                return Ok(body);
            }
            if body.len().saturating_add(size) > ANSWER {
                return Err(format!("its answer is larger than {ANSWER} bytes"));
            }
            body.extend(self.take(size).await?);
            if self.take(2).await? != b"\r\n" {
                return Err("its answer has no chunks".to_owned());
            }
        }
    }
}

fn weigh(status: &str, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let told = || format!("it answers {}: {}", words(status.as_bytes()), words(&body));
    match status.split(' ').next() {
        Some("200") => Ok(body),
        Some("401" | "403") => Err(Failure::Denied(told())),
        _ => Err(Failure::Failed(told())),
    }
}

/// The beginning of a text, in one line.
fn words(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(WORDS).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
