//! TLS as kubelet and the API server are asked over it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier,
};

/// A client certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Identity {
    /// Of PEM, which may hold both, as `kubelet-client-current.pem` does.
    pub(crate) fn parse(certificate: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("no certificate: {error}"))?;
        if chain.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("no private key: {error}"))?;
        Ok(Self { chain, key })
    }

    /// The node that the certificate is for: its common name is `system:node:<name>`
    /// (Kubernetes, "Using Node Authorization").
    pub(crate) fn node(&self) -> Option<String> {
        let name = self
            .chain
            .first()
            .and_then(|certificate| common_name(certificate, "system:node:"))?;
        Some(name.strip_prefix("system:node:")?.to_owned())
    }
}

/// The common name that begins so, of the issuer or the subject. Read without a parser for certificates: it only tells
/// what to ask for, and the API server lets a node ask for nothing but itself.
fn common_name(certificate: &[u8], prefix: &str) -> Option<String> {
    /// The object identifier 2.5.4.3, with its tag and length.
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let mut windows = certificate.windows(COMMON_NAME.len()).enumerate();
    windows.find_map(|(at, window)| {
        let rest = certificate
            .get(at + COMMON_NAME.len()..)
            .filter(|_| window == COMMON_NAME)?;
        // A tag of a string, and a length of one byte: common names have at most 64 characters.
        let (&[_, length], text) = rest.split_first_chunk::<2>()?;
        let text = std::str::from_utf8(text.get(..usize::from(length))?).ok()?;
        text.starts_with(prefix).then(|| text.to_owned())
    })
}

/// For kubelet, whose certificate is its own: that the port is held by the kubelet process is what says who answers.
pub(crate) fn of_process(identity: Option<&Identity>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = builder(provider)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    finish(builder, identity)
}

/// For a server that these authorities vouch for.
pub(crate) fn by_authority(
    authorities: &[u8],
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        let authority = authority.map_err(|error| format!("certificate authority: {error}"))?;
        roots
            .add(authority)
            .map_err(|error| format!("certificate authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("it names no certificate authority".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    finish(builder(provider)?.with_root_certificates(roots), identity)
}

fn builder(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

fn finish(
    builder: ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, String> {
    Ok(Arc::new(match identity.cloned() {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("client certificate: {error}"))?,
    }))
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn pem(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node-1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn the_node_is_named_by_its_certificate() {
        let (certificate, key) = pem("system:node:node-1.example.org");
        let both = format!("{certificate}{key}");
        let identity = Identity::parse(both.as_bytes(), both.as_bytes()).unwrap();
        assert_eq!(identity.node().as_deref(), Some("node-1.example.org"));
        let (certificate, key) = pem("kubernetes-admin");
        assert_eq!(
            Identity::parse(certificate.as_bytes(), key.as_bytes())
                .unwrap()
                .node(),
            None
        );
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let (certificate, key) = pem("x");
        assert!(
            Identity::parse(b"", key.as_bytes())
                .unwrap_err()
                .contains("no certificate")
        );
        assert!(
            Identity::parse(certificate.as_bytes(), b"")
                .unwrap_err()
                .contains("no private key")
        );
        assert!(
            by_authority(b"", None)
                .unwrap_err()
                .contains("no certificate authority")
        );
        assert!(common_name(&[0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0xff, b's'], "s").is_none());
    }
}
