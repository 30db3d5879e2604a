//! What kubelet wrote down under its root, for its own next start.

use std::collections::BTreeSet;
use std::path::Path;

use nodemend_hostfs::{Error, Host};

use crate::testimony::Known;
use crate::uid::Uid;

const LIMIT: u64 = 64 << 20;

/// The checkpoints that name pods. Which of them there are depends on kubelet's release: pod_status_manager_state came
/// before allocated_pods_state and actuated_pods_state.
const FILES: [&str; 7] = [
    "pod_status_manager_state",
    "allocated_pods_state",
    "actuated_pods_state",
    "cpu_manager_state",
    "memory_manager_state",
    "dra_manager_state",
    "device-plugins/kubelet_internal_checkpoint",
];

/// The pods that a checkpoint names. They are those of the last time that kubelet wrote it.
pub(crate) fn look(host: &Host, root: &Path) -> Known {
    let (mut pods, mut found) = (Vec::new(), 0);
    for name in FILES {
        match host.read(&root.join(name), LIMIT) {
            Ok(bytes) => {
                found += 1;
                pods.extend(
                    uids(&bytes)
                        .into_iter()
                        .map(|uid| (uid, format!("named in {name}"))),
                );
            }
            Err(error) if error.is_not_found() || is_below_no_directory(&error) => {}
            Err(error) => return Known::silent(error.to_string()),
        }
    }
    match found {
        0 => Known::not_here("kubelet has written none"),
        _ => Known::Pods {
            pods,
            asked: format!("named in none of the {found} files"),
        },
    }
}

fn is_below_no_directory(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory)
}

/// Every UID that stands in a text. Checkpoints hold JSON in JSON, in forms that change from release to release: what
/// matters is whether the name occurs.
pub(crate) fn uids(text: &[u8]) -> BTreeSet<Uid> {
    let of_uid = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_');
    text.split(|byte| !of_uid(byte))
        .filter(|word| matches!(word.len(), 32 | 36))
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
        .collect()
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
    const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";

    #[test]
    fn a_uid_is_found_in_json_within_json_and_no_part_of_a_longer_word_is_one() {
        let text = format!(
            r#"{{"data":"{{\"entries\":{{\"{UID}\":{{\"c\":\"2-3\"}}}}}}","PodUID":"{HASH}","sha256:{HASH}{HASH}":1,
               "x":"a{HASH}","y":"{UID}-1","checksum":1234567890}}"#
        );
        let found: Vec<_> = uids(text.as_bytes())
            .into_iter()
            .map(|uid| uid.to_string())
            .collect();
        assert_eq!(found, [UID, HASH]);
    }

    #[test]
    fn every_checkpoint_is_read_and_none_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        let root = Path::new("/k");
        assert!(matches!(look(&host, root), Known::NotHere(_)));
        std::fs::create_dir_all(dir.path().join("k/device-plugins")).unwrap();
        for name in FILES {
            std::fs::write(dir.path().join("k").join(name), format!("{{\"{UID}\":1}}")).unwrap();
        }
        let Known::Pods { pods, asked } = look(&host, root) else {
            panic!("not read")
        };
        assert_eq!(pods.len(), FILES.len());
        assert_eq!(pods[0].1, "named in pod_status_manager_state");
        assert_eq!(asked, "named in none of the 7 files");
    }
}
