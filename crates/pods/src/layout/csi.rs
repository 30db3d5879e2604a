//! What kubelet wrote down of a CSI volume, and where its global mount would be.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::volume::CsiVolume;

/// More than any `vol_data.json` holds, in bytes.
pub(crate) const LARGEST: usize = 64 << 10;

/// The keys of `vol_data.json` that are of use here (`pkg/volume/csi/csi_plugin.go`, `volDataKey`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct VolData {
    driver_name: String,
    volume_handle: String,
    volume_lifecycle_mode: String,
    #[serde(rename = "specVolID")]
    spec_vol_id: String,
}

/// A record, with the places where the global mount would be, relative to kubelet's root.
#[derive(Debug)]
pub(crate) struct Record {
    /// Without its global mount.
    pub(crate) csi: CsiVolume,
    /// By the sum of the handle, and as older kubelets had it.
    pub(crate) places: [PathBuf; 2],
}

/// Parses a `vol_data.json`. None if it is none, or says neither driver nor handle.
pub(crate) fn parse(bytes: &[u8]) -> Option<Record> {
    let data: VolData = serde_json::from_slice(bytes).ok()?;
    if data.driver_name.is_empty() || data.volume_handle.is_empty() {
        return None;
    }
    let above = Path::new("plugins/kubernetes.io/csi");
    // Compared with paths of the mount table only, so a driver named `../..` names nothing.
    let places = [
        above
            .join(&data.driver_name)
            .join(sum(&data.volume_handle))
            .join("globalmount"),
        above.join("pv").join(&data.spec_vol_id).join("globalmount"),
    ];
    Some(Record {
        csi: CsiVolume {
            driver: data.driver_name,
            handle: data.volume_handle,
            lifecycle: data.volume_lifecycle_mode,
            global_mount: None,
        },
        places,
    })
}

/// SHA-256 in lower-case hex (`csi_attacher.go`, `makeDeviceMountPath`).
fn sum(handle: &str) -> String {
    Sha256::digest(handle)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_record_names_its_driver_and_both_places_of_its_global_mount() {
        let json = br#"{"attachmentID":"csi-1","driverName":"ebs.csi.aws.com","nodeName":"n","seLinuxMountContext":"",
            "specVolID":"pvc-7","volumeHandle":"abc","volumeLifecycleMode":"Persistent"}"#;
        let record = parse(json).unwrap();
        assert_eq!(
            (record.csi.driver.as_str(), record.csi.handle.as_str()),
            ("ebs.csi.aws.com", "abc")
        );
        assert_eq!(record.csi.lifecycle, "Persistent");
        assert_eq!(
            record.places,
            [
                PathBuf::from(
                    "plugins/kubernetes.io/csi/ebs.csi.aws.com/\
                     ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/globalmount"
                ),
                PathBuf::from("plugins/kubernetes.io/csi/pv/pvc-7/globalmount"),
            ]
        );
    }

    #[test]
    fn what_is_no_record_is_none() {
        let deep = "[".repeat(LARGEST);
        for bytes in [
            "",
            "{",
            "null",
            "[]",
            "{}",
            r#"{"driverName":7,"volumeHandle":"h"}"#,
            r#"{"driverName":"d"}"#,
            deep.as_str(),
        ] {
            assert!(parse(bytes.as_bytes()).is_none(), "{bytes:.20}");
        }
        assert!(parse(b"\xff\xfe").is_none());
    }
}
