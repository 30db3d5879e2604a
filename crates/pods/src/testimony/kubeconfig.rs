//! The kubeconfig that kubelet itself uses.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nodemend_hostfs::Host;
use yaml_rust2::Yaml;

use crate::testimony::credentials;
use crate::testimony::http::Token;
use crate::testimony::settings::parse;
use crate::testimony::tls::Identity;

const LIMIT: u64 = 4 << 20;

/// Where kubelet's kubeconfig is, if its flags do not tell: of kubeadm; of managed clusters; of k3s, rke2, k0s and microk8s.
pub(crate) const USUAL: [&str; 6] = [
    "/etc/kubernetes/kubelet.conf",
    "/var/lib/kubelet/kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
    "/var/lib/k0s/kubelet.conf",
    "/var/snap/microk8s/current/credentials/kubelet.config",
];

/// Whom to ask, and as whom.
#[derive(Debug)]
pub(crate) struct Kubeconfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Before every path.
    pub(crate) prefix: String,
    /// What its certificate must be for, if not `host`.
    pub(crate) server_name: Option<String>,
    pub(crate) authorities: Vec<u8>,
    pub(crate) identity: Option<Identity>,
    pub(crate) token: Option<Token>,
}

impl Kubeconfig {
    /// Reads the one that the flags name, or the first that is where it usually is.
    pub(crate) fn find(host: &Host, named: Option<&PathBuf>) -> Result<Self, String> {
        let usual = || {
            USUAL
                .iter()
                .map(PathBuf::from)
                .find(|path| host.open(path).is_ok())
        };
        let path = named.cloned().or_else(usual);
        let path = path.ok_or_else(|| {
            format!(
                "no kubeconfig of kubelet was found; looked at {}",
                USUAL.join(", ")
            )
        })?;
        Self::read(host, &path).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    fn read(host: &Host, path: &Path) -> Result<Self, String> {
        let bytes = host.read(path, LIMIT).map_err(|error| error.to_string())?;
        let document = parse(&bytes)?;
        let context = named(&document, "contexts", text(&document["current-context"])?)?["context"].clone();
        let cluster = named(&document, "clusters", text(&context["cluster"])?)?["cluster"].clone();
        let user = named(&document, "users", text(&context["user"])?)?["user"].clone();
        if cluster["insecure-skip-tls-verify"].as_bool() == Some(true) {
            return Err(
                "it tells not to check who answers, and an answer of somebody else would prove nothing"
                    .to_owned(),
            );
        }
        if let Some(proxy) = cluster["proxy-url"].as_str() {
            return Err(format!(
                "the API server is behind a proxy ({proxy}), which is not asked"
            ));
        }
        let files = Files {
            host,
            dir: path.parent().unwrap_or(Path::new("/")),
        };
        let (name, port, prefix) = server(text(&cluster["server"])?)?;
        let authorities = files.bytes(&cluster, "certificate-authority")?;
        let identity = match (
            files.bytes(&user, "client-certificate")?,
            files.bytes(&user, "client-key")?,
        ) {
            (Some(certificate), key) => Some(Identity::parse(
                &certificate,
                key.as_ref().unwrap_or(&certificate),
            )?),
            (None, _) => None,
        };
        let token = files.token(&user)?;
        if identity.is_none() && token.is_none() {
            return Err(
                "it has neither a client certificate nor a token (commands that make one are not run)"
                    .to_owned(),
            );
        }
        Ok(Self {
            host: name,
            port,
            prefix,
            server_name: cluster["tls-server-name"].as_str().map(str::to_owned),
            authorities: authorities.ok_or("it names no certificate authority")?,
            identity,
            token,
        })
    }
}

fn text(value: &Yaml) -> Result<&str, String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| "not of the form of a kubeconfig".to_owned())
}

/// The entry of that name in a list of named entries.
fn named<'a>(document: &'a Yaml, list: &str, name: &str) -> Result<&'a Yaml, String> {
    let entries = document[list].as_vec().map_or(&[][..], Vec::as_slice);
    let found = entries.iter().find(|entry| entry["name"].as_str() == Some(name));
    found.ok_or_else(|| format!("it has nothing named {name} among its {list}"))
}

/// `https://host[:port][/prefix]`.
fn server(url: &str) -> Result<(String, u16, String), String> {
    let wrong = || format!("{url} is no address of an API server over TLS");
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority
            .split_once(':')
            .map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(443), |port| port.parse().map_err(|_not_one| wrong()))?;
    if host.is_empty() || host.contains(['@', '?', '#']) || prefix.contains(['?', '#', ' ']) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port, prefix.trim_end_matches('/').to_owned()))
}

/// The files that a kubeconfig names, relative to itself.
struct Files<'a> {
    host: &'a Host,
    dir: &'a Path,
}

impl Files<'_> {
    /// `<key>-data`, in base64, wins over `<key>`, a file.
    fn bytes(&self, from: &Yaml, key: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(data) = from[&*format!("{key}-data")].as_str() {
            let bytes = STANDARD
                .decode(data.trim())
                .map_err(|error| format!("{key}-data: {error}"))?;
            return Ok(Some(bytes));
        }
        let Some(path) = from[key].as_str() else {
            return Ok(None);
        };
        self.host
            .read(&self.dir.join(path), LIMIT)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    fn token(&self, user: &Yaml) -> Result<Option<Token>, String> {
        match (user["tokenFile"].as_str(), user["token"].as_str()) {
            (Some(path), _) => credentials::token(self.host, &self.dir.join(path)).map(Some),
            (None, Some(token)) => Token::parse(token).map(Some),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_server_is_named_by_host_port_and_prefix() {
        for (url, host, port, prefix) in [
            ("https://10.0.0.1:6443", "10.0.0.1", 6443, ""),
            ("https://api.example.org", "api.example.org", 443, ""),
            ("https://[fd00::1]:6443/", "fd00::1", 6443, ""),
            (
                "https://rancher.example.org/k8s/clusters/c-1",
                "rancher.example.org",
                443,
                "/k8s/clusters/c-1",
            ),
        ] {
            assert_eq!(
                server(url).unwrap(),
                (host.to_owned(), port, prefix.to_owned()),
                "{url}"
            );
        }
        for bad in [
            "http://10.0.0.1",
            "10.0.0.1:6443",
            "https://",
            "https://a:b",
            "https://u@a",
            "https://a/?x",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    const CONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
        contexts:\n- name: c\n  context: {cluster: k, user: u}\n\
        clusters:\n- name: k\n  cluster:\n    server: https://10.0.0.1:6443\n    certificate-authority-data: Q0E=\n\
        users:\n- name: u\n  user:\n    tokenFile: token\n";

    fn read(config: &str) -> Result<Kubeconfig, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("k")).unwrap();
        std::fs::write(dir.path().join("k/config"), config).unwrap();
        std::fs::write(dir.path().join("k/token"), "abc\n").unwrap();
        Kubeconfig::find(&Host::at(dir.path()), Some(&"/k/config".into()))
    }

    #[test]
    fn files_are_named_relative_to_the_kubeconfig() {
        let config = read(CONFIG).unwrap();
        assert_eq!((config.host.as_str(), config.port), ("10.0.0.1", 6443));
        assert_eq!(config.authorities, b"CA");
        assert!(config.token.is_some() && config.identity.is_none());
    }

    #[test]
    fn what_would_prove_nothing_is_not_asked() {
        for (from, to, reason) in [
            (
                "    certificate-authority-data: Q0E=\n",
                "    insecure-skip-tls-verify: true\n",
                "who answers",
            ),
            (
                "    certificate-authority-data: Q0E=\n",
                "",
                "no certificate authority",
            ),
            (
                "    certificate-authority-data: Q0E=\n",
                "    proxy-url: http://p\n",
                "proxy",
            ),
            ("    tokenFile: token\n", "    exec: {command: aws}\n", "neither"),
            ("    tokenFile: token\n", "    tokenFile: none\n", "/k/none"),
            ("name: u\n", "name: v\n", "nothing named u among its users"),
            ("https://", "http://", "over TLS"),
            ("Q0E=", "*", "/k/config"),
        ] {
            let said = read(&CONFIG.replace(from, to)).unwrap_err();
            assert!(said.contains(reason), "{to}: {said}");
        }
    }
}
