//! A server over TLS for the tests: it asks for a client certificate, and takes any or none.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a stand-in says, and what it does with its connection after it.
#[derive(Clone)]
pub(crate) struct Says {
    pub(crate) head: &'static str,
    pub(crate) body: String,
    pub(crate) hang: bool,
}

/// A 200 with this body.
pub(crate) fn ok(body: &str) -> Says {
    Says {
        head: "200 OK",
        body: body.to_owned(),
        hang: false,
    }
}

/// Answers what is asked for a path. Gives where it listens, and each request as it came, with whether a certificate was shown.
pub(crate) fn serve(
    certificate: &str,
    key: &str,
    answer: impl Fn(&str) -> Says + Send + 'static,
) -> (SocketAddr, Receiver<String>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(connection, stream);
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
                request.push(byte[0]);
            }
            let shown = tls.conn.peer_certificates().is_some();
            let request = String::from_utf8_lossy(&request).into_owned();
            drop(tell.send(format!("{request}certificate: {shown}")));
            let says = answer(request.split(' ').nth(1).unwrap_or_default());
            if says.hang {
                std::thread::sleep(Duration::from_secs(30));
            }
            let head = format!(
                "HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n",
                says.head,
                says.body.len()
            );
            drop(
                tls.write_all(head.as_bytes())
                    .and_then(|()| tls.write_all(says.body.as_bytes())),
            );
            drop(tls.flush());
            tls.conn.send_close_notify();
            drop(tls.flush());
        }
    });
    (address, asked)
}

/// Asks for a client certificate and takes any.
#[derive(Debug)]
struct AnyClient;

impl rustls::server::danger::ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::server::danger::ClientCertVerified, rustls::Error> {
        Ok(rustls::server::danger::ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
