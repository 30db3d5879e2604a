//! One question over HTTP, bounded in time and size.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The most that is read of an answer, in bytes: a node's 110 pods take about one of them.
const ANSWER: usize = 64 << 20;
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
pub(crate) struct Token(HeaderValue);

impl Token {
    /// Of the text in a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let token = text.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err("no bearer token in it".to_owned());
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_invalid| "no bearer token in it".to_owned())?;
        value.set_sensitive(true);
        Ok(Self(value))
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
    match &server.tls {
        None => exchange(stream, server, path).await,
        Some(tls) => {
            let stream = TlsConnector::from(Arc::clone(&tls.config))
                .connect(tls.name.clone(), stream)
                .await
                .map_err(|error| format!("{}: no TLS: {error}", server.address))?;
            exchange(stream, server, path).await
        }
    }
}

async fn exchange<S>(stream: S, server: &Server, path: &str) -> Result<Vec<u8>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broke = |error: hyper::Error| format!("{}: {}", server.address, chain(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broke)?;
    let driver = Driver(tokio::spawn(connection));
    let answer = sender.send_request(request(server, path)?).await.map_err(broke)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER).collect().await;
    drop(driver);
    let body =
        body.map_err(|error| format!("its answer broke off, or is larger than {ANSWER} bytes: {error}"))?;
    weigh(status, &body.to_bytes())
}

/// The connection's own task, ended with the question.
struct Driver<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn request(server: &Server, path: &str) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut request = Request::get(path)
        .header(HOST, &server.host)
        .header(ACCEPT, "application/json");
    // In the clear anybody on the way could read it.
    if let Some(token) = server.token.as_ref().filter(|_| server.tls.is_some()) {
        request = request.header(AUTHORIZATION, &token.0);
    }
    request
        .body(Empty::new())
        .map_err(|error| Failure::Failed(error.to_string()))
}

fn weigh(status: StatusCode, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let told = || {
        let text: String = String::from_utf8_lossy(body).chars().take(WORDS).collect();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("it answers {status}: {text}")
    };
    match status {
        StatusCode::OK => Ok(body.to_vec()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Denied(told())),
        _ => Err(Failure::Failed(told())),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_never_shown() {
        assert_eq!(format!("{:?}", Token::parse(" abc.def\n").unwrap()), "Token");
        for bad in ["", "\n", "two words", "a\nb", "\u{7f}"] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_200_is_an_answer() {
        assert_eq!(weigh(StatusCode::OK, b"{}"), Ok(b"{}".to_vec()));
        assert_eq!(
            weigh(StatusCode::UNAUTHORIZED, b"Unauthorized"),
            Err(Failure::Denied(
                "it answers 401 Unauthorized: Unauthorized".into()
            ))
        );
        assert!(matches!(
            weigh(StatusCode::FORBIDDEN, b""),
            Err(Failure::Denied(_))
        ));
        for status in [
            StatusCode::NOT_FOUND,
            StatusCode::NO_CONTENT,
            StatusCode::MOVED_PERMANENTLY,
        ] {
            assert!(
                matches!(weigh(status, b"[]"), Err(Failure::Failed(_))),
                "{status}"
            );
        }
    }
}
