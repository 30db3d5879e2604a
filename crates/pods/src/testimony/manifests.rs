//! Where static pods come from.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nodemend_hostfs::{Error, Host};

use crate::testimony::Known;
use crate::testimony::checkpoints::uids;
use crate::testimony::settings::Settings;

const MANIFEST_LIMIT: u64 = 4 << 20;

/// The UIDs that stand in manifests. A manifest without one makes a directory whose name nobody can compute without
/// kubelet's own code, so that manifests exist is what counts.
pub(crate) fn look(host: &Host, settings: &Settings) -> Known {
    if let Some(doubt) = &settings.doubt {
        return Known::silent(format!("nobody can say where static pods come from: {doubt}"));
    }
    let url = settings
        .manifest_url
        .as_ref()
        .map(|_| "a staticPodURL is configured");
    let Some(path) = &settings.manifests else {
        return match url {
            Some(url) => answer(Vec::new(), url.to_owned()),
            None => {
                Known::not_here("kubelet has no static pods: neither staticPodPath nor staticPodURL is set")
            }
        };
    };
    match read(host, path) {
        Ok((0, _)) if url.is_none() => Known::not_here(format!("{}: no manifests there", path.display())),
        Ok((count, pods)) => {
            let asked = format!("{count} manifests in {}", path.display());
            answer(
                pods,
                url.map_or(asked.clone(), |url| format!("{asked}, and {url}")),
            )
        }
        Err(error) => Known::silent(error.to_string()),
    }
}

fn answer(pods: Vec<(crate::uid::Uid, String)>, asked: String) -> Known {
    Known::Pods { pods, asked }
}

/// How many manifests there are, and the UIDs in them. kubelet takes a file or a directory, of which it leaves out what
/// is hidden and what lies deeper (`pkg/kubelet/config/file.go`).
fn read(host: &Host, path: &Path) -> Result<(usize, Vec<(crate::uid::Uid, String)>), Error> {
    let files = match host.list(path) {
        Ok(names) => names
            .into_iter()
            .filter(|name| !name.as_bytes().starts_with(b"."))
            .map(|name| path.join(name))
            .collect(),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotADirectory => {
            vec![path.to_owned()]
        }
        Err(error) if error.is_not_found() => return Ok((0, Vec::new())),
        Err(error) => return Err(error),
    };
    let (mut count, mut pods) = (0, Vec::new());
    for file in files {
        match host.read(&file, MANIFEST_LIMIT) {
            Ok(bytes) => {
                count += 1;
                let said = format!("named in {}", file.display());
                pods.extend(uids(&bytes).into_iter().map(|uid| (uid, said.clone())));
            }
            Err(Error::NotAFile { .. }) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok((count, pods))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a failed unwrap is a failed test"
    )]

    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

    fn look_at(files: &[(&str, &str)], settings: &Settings) -> Known {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        look(&Host::at(dir.path()), settings)
    }

    fn in_dir() -> Settings {
        Settings {
            manifests: Some("/m".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn t13_manifests_are_counted_and_the_uids_in_them_are_known() {
        let text = format!("metadata:\n  name: etcd\n  uid: \"{UID}\"\n");
        let said = look_at(
            &[
                ("m/etcd.yaml", &text),
                ("m/api.yaml", "{}"),
                ("m/.api.swp", "x"),
                ("m/d/x", ""),
            ],
            &in_dir(),
        );
        let Known::Pods { pods, asked } = said else {
            panic!("{said:?}")
        };
        assert_eq!(asked, "2 manifests in /m");
        assert_eq!(pods, [(UID.parse().unwrap(), "named in /m/etcd.yaml".to_owned())]);
        let file = look_at(&[("m", "{}")], &in_dir());
        assert!(matches!(file, Known::Pods { asked, .. } if asked == "1 manifests in /m"));
    }

    #[test]
    fn t13_a_node_without_static_pods_says_so() {
        for (files, settings) in [
            (&[][..], Settings::default()),
            (&[], in_dir()),
            (&[("m/.keep", "")], in_dir()),
        ] {
            assert!(
                matches!(look_at(files, &settings), Known::NotHere(_)),
                "{files:?}"
            );
        }
    }

    #[test]
    fn t13_a_url_or_a_configuration_that_nobody_read_may_bring_static_pods() {
        let url = Settings {
            manifest_url: Some("https://x/y".into()),
            ..in_dir()
        };
        assert!(matches!(look_at(&[], &url), Known::Pods { asked, .. } if asked.contains("staticPodURL")));
        let doubt = Settings {
            doubt: Some("/etc/k.yaml: cut".into()),
            ..in_dir()
        };
        assert!(matches!(look_at(&[], &doubt), Known::Silent(_)));
    }
}
