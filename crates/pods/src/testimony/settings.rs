//! What kubelet was told, by its flags and its configuration file.
//!
//! Flags win over the file (`pkg/kubelet/…/server.go`, `kubeletConfigFlagPrecedence`); of a drop-in directory, what comes
//! later wins.

use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;
use yaml_rust2::{Yaml, YamlLoader};

use crate::testimony::process::Kubelet;

const CONFIG_LIMIT: u64 = 4 << 20;
/// Where distributions keep the file, if no running kubelet tells. The first is below kubelet's root.
const CONFIGS: [&str; 3] = [
    "/etc/kubernetes/kubelet/config.json",
    "/etc/kubernetes/kubelet/kubelet-config.json",
    "/etc/kubernetes/kubelet.yaml",
];
/// Where kubeadm keeps manifests, which is where they are if nobody tells.
const USUAL_MANIFESTS: &str = "/etc/kubernetes/manifests";

/// What bears on pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `--pod-manifest-path`, staticPodPath.
    pub(crate) manifests: Option<PathBuf>,
    /// `--manifest-url`, staticPodURL.
    pub(crate) manifest_url: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) read_only_port: Option<u16>,
    pub(crate) healthz_port: Option<u16>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) hostname_override: Option<String>,
    pub(crate) cert_dir: Option<PathBuf>,
    /// Why it is not known where static pods come from.
    pub(crate) doubt: Option<String>,
}

impl Settings {
    /// Of the kubelet that runs; else of the files where they usually are.
    pub(crate) fn of(host: &Host, root: &Path, kubelet: Option<&Kubelet>) -> Self {
        let flags = Flags::of(kubelet.map_or(&[][..], |kubelet| &kubelet.arguments));
        let mut settings = Self::default();
        let files = match (kubelet, flags.path("config")) {
            (_, Some(file)) => vec![file],
            // A kubelet without a configuration file has flags alone.
            (Some(_), None) => Vec::new(),
            (None, None) => usual(host, root),
        };
        let drop_ins = flags
            .path("config-dir")
            .map(|dir| drop_ins(host, &dir))
            .unwrap_or_else(|| Ok(Vec::new()));
        match drop_ins {
            Ok(more) => files
                .into_iter()
                .chain(more)
                .for_each(|file| settings.enter_file(host, &file)),
            Err(reason) => settings.doubt = Some(reason),
        }
        settings.enter_flags(&flags);
        if kubelet.is_none() && settings.manifests.is_none() && settings.manifest_url.is_none() {
            settings.manifests = Some(USUAL_MANIFESTS.into());
        }
        settings
    }

    fn enter_file(&mut self, host: &Host, file: &Path) {
        let read = host.read(file, CONFIG_LIMIT).map_err(|error| error.to_string());
        let parsed =
            read.and_then(|bytes| parse(&bytes).map_err(|reason| format!("{}: {reason}", file.display())));
        match parsed {
            Ok(document) => self.enter_document(&document),
            Err(reason) => self.doubt = Some(reason),
        }
    }

    fn enter_document(&mut self, document: &Yaml) {
        let text = |key: &str| {
            document[key]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let port = |key: &str| document[key].as_i64().and_then(|port| u16::try_from(port).ok());
        self.manifests = text("staticPodPath").map(PathBuf::from).or(self.manifests.take());
        self.manifest_url = text("staticPodURL").or(self.manifest_url.take());
        self.port = port("port").or(self.port);
        self.read_only_port = port("readOnlyPort").or(self.read_only_port);
        self.healthz_port = port("healthzPort").or(self.healthz_port);
    }

    fn enter_flags(&mut self, flags: &Flags) {
        let port = |name: &str| flags.text(name).and_then(|port| port.parse().ok());
        self.manifests = flags.path("pod-manifest-path").or(self.manifests.take());
        self.manifest_url = flags.text("manifest-url").or(self.manifest_url.take());
        self.port = port("port").or(self.port);
        self.read_only_port = port("read-only-port").or(self.read_only_port);
        self.healthz_port = port("healthz-port").or(self.healthz_port);
        self.kubeconfig = flags.path("kubeconfig");
        self.hostname_override = flags.text("hostname-override");
        self.cert_dir = flags.path("cert-dir");
    }
}

fn usual(host: &Host, root: &Path) -> Vec<PathBuf> {
    let first = root.join("config.yaml");
    let all = std::iter::once(first).chain(CONFIGS.iter().map(PathBuf::from));
    all.filter(|path| host.open(path).is_ok()).take(1).collect()
}

fn drop_ins(host: &Host, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let names = host.list(dir).map_err(|error| error.to_string())?;
    let names = names
        .into_iter()
        .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "conf"));
    Ok(names.map(|name| dir.join(name)).collect())
}

/// One document of YAML, of which JSON is a part.
pub(crate) fn parse(bytes: &[u8]) -> Result<Yaml, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
    match documents.into_iter().next() {
        Some(document) if document.as_hash().is_some() => Ok(document),
        _ => Err("no mapping of names to values".to_owned()),
    }
}

/// A command line, as pflag reads it.
#[derive(Debug, Default)]
struct Flags(Vec<(String, String)>);

impl Flags {
    fn of(arguments: &[String]) -> Self {
        let mut flags = Vec::new();
        let mut words = arguments.iter().skip(1).peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else {
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => {
                    let value = words.next_if(|next| !next.starts_with("--"));
                    (flag, value.cloned().unwrap_or_default())
                }
            };
            // k3s hands these on.
            match (name, value.split_once('=')) {
                ("kubelet-arg", Some((name, value))) => flags.push((name.to_owned(), value.to_owned())),
                _ => flags.push((name.to_owned(), value)),
            }
        }
        Self(flags)
    }

    /// The last one counts.
    fn text(&self, name: &str) -> Option<String> {
        let found = self.0.iter().rfind(|(known, _)| known == name);
        found
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::time::Duration;

    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    fn settings(files: &[(&str, &str)], line: Option<&str>) -> Settings {
        let (_dir, host) = host(files);
        let kubelet = line.map(|line| Kubelet {
            pid: 1,
            comm: "kubelet".into(),
            since: Duration::ZERO,
            arguments: line.split(' ').map(str::to_owned).collect(),
        });
        Settings::of(&host, Path::new("/var/lib/kubelet"), kubelet.as_ref())
    }

    const KUBEADM: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
        staticPodPath: /etc/kubernetes/manifests\nhealthzPort: 10248\nreadOnlyPort: 0\nauthentication:\n  anonymous:\n    enabled: false\n";

    #[test]
    fn flags_win_over_the_file_and_drop_ins_over_the_file() {
        let files = [
            ("etc/k.yaml", KUBEADM),
            ("etc/d/10-a.conf", "port: 11250\nhealthzPort: 1\n"),
            ("etc/d/20-b.conf", "healthzPort: 2\n"),
            ("etc/d/README", "]]"),
        ];
        let line = "/usr/bin/kubelet --config=/etc/k.yaml --config-dir /etc/d --read-only-port=10255 --v 2 \
                    --hostname-override=node-1 --kubeconfig=/etc/kubernetes/kubelet.conf";
        let said = settings(&files, Some(line));
        assert_eq!(
            said.manifests.as_deref(),
            Some(Path::new("/etc/kubernetes/manifests"))
        );
        assert_eq!(
            (said.port, said.read_only_port, said.healthz_port),
            (Some(11250), Some(10255), Some(2))
        );
        assert_eq!(said.hostname_override.as_deref(), Some("node-1"));
        assert_eq!(said.doubt, None);
    }

    #[test]
    fn a_configuration_in_json_is_one_in_yaml() {
        let files = [("etc/k.json", r#"{"staticPodURL":"https://x/y","port":10250}"#)];
        let said = settings(&files, Some("kubelet --config /etc/k.json"));
        assert_eq!(said.manifest_url.as_deref(), Some("https://x/y"));
    }

    #[test]
    fn k3s_hands_flags_on() {
        let said = settings(
            &[],
            Some("k3s server --kubelet-arg=pod-manifest-path=/srv/m --kubelet-arg read-only-port=10255"),
        );
        assert_eq!(said.manifests.as_deref(), Some(Path::new("/srv/m")));
        assert_eq!(said.read_only_port, Some(10255));
    }

    #[test]
    fn t13_without_a_kubelet_the_usual_manifests_are_looked_at() {
        let said = settings(&[], None);
        assert_eq!(said.manifests.as_deref(), Some(Path::new(USUAL_MANIFESTS)));
        let said = settings(
            &[("var/lib/kubelet/config.yaml", "staticPodPath: /srv/m\n")],
            None,
        );
        assert_eq!(said.manifests.as_deref(), Some(Path::new("/srv/m")));
        assert_eq!(settings(&[], Some("kubelet --v=2")).manifests, None);
    }

    #[test]
    fn a_configuration_that_cannot_be_read_leaves_static_pods_open() {
        for text in ["staticPodPath: [", "- a\n- b\n", ""] {
            let said = settings(&[("etc/k.yaml", text)], Some("kubelet --config=/etc/k.yaml"));
            assert!(said.doubt.unwrap().starts_with("/etc/k.yaml: "), "{text}");
        }
        assert!(
            settings(&[], Some("kubelet --config=/etc/k.yaml"))
                .doubt
                .is_some()
        );
    }
}
