//! What kubelet's port may be asked with.

use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;

use crate::testimony::Access;
use crate::testimony::http::Token;
use crate::testimony::settings::Settings;
use crate::testimony::tls::Identity;

const LIMIT: u64 = 1 << 20;

/// Of the API server, which may ask every kubelet; on control plane nodes of kubeadm.
const OF_API_SERVER: (&str, &str) = (
    "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
    "/etc/kubernetes/pki/apiserver-kubelet-client.key",
);
/// Of kubelet itself, below its root: certificate and key in one file.
const OF_KUBELET: &str = "kubelet-client-current.pem";

/// One way to ask.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Where they come from, for the reader.
    pub(crate) from: String,
    pub(crate) identity: Option<Identity>,
    pub(crate) token: Option<Token>,
}

/// Those that were given; else every one that lies on the node, and then none at all.
pub(crate) fn all(
    host: &Host,
    access: &Access,
    root: &Path,
    settings: &Settings,
) -> Result<Vec<Credentials>, String> {
    if let Some(given) = given(host, access)? {
        return Ok(vec![given]);
    }
    let cert_dir = settings.cert_dir.clone().unwrap_or_else(|| root.join("pki"));
    let own = cert_dir.join(OF_KUBELET);
    let (certificate, key) = OF_API_SERVER;
    let on_the_node = [(Path::new(certificate), Path::new(key)), (&own, &own)];
    let mut all: Vec<_> = on_the_node
        .into_iter()
        .filter_map(|(certificate, key)| identity(host, certificate, key).ok())
        .collect();
    all.push(Credentials {
        from: "no credentials".to_owned(),
        identity: None,
        token: None,
    });
    Ok(all)
}

fn given(host: &Host, access: &Access) -> Result<Option<Credentials>, String> {
    let token = access
        .token_file
        .as_deref()
        .map(|path| token(host, path))
        .transpose()?;
    let given = match &access.client_cert {
        Some(certificate) => Some(identity(
            host,
            certificate,
            access.client_key.as_ref().unwrap_or(certificate),
        )?),
        None => None,
    };
    Ok(match (given, token) {
        (Some(identity), token) => Some(Credentials { token, ..identity }),
        (None, Some(token)) => Some(Credentials {
            from: path_of(access.token_file.as_ref()),
            identity: None,
            token: Some(token),
        }),
        (None, None) => None,
    })
}

fn path_of(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

/// A bearer token in a file.
pub(crate) fn token(host: &Host, path: &Path) -> Result<Token, String> {
    let bytes = host.read(path, LIMIT).map_err(|error| error.to_string())?;
    Token::parse(&String::from_utf8_lossy(&bytes)).map_err(|reason| format!("{}: {reason}", path.display()))
}

fn identity(host: &Host, certificate: &Path, key: &Path) -> Result<Credentials, String> {
    let read = |path: &Path| host.read(path, LIMIT).map_err(|error| error.to_string());
    let identity = Identity::parse(&read(certificate)?, &read(key)?)
        .map_err(|reason| format!("{}: {reason}", certificate.display()))?;
    Ok(Credentials {
        from: certificate.display().to_string(),
        identity: Some(identity),
        token: None,
    })
}
