//! The UID of a pod, as a directory name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The UID of a pod: a UUID in its canonical spelling, or, of a static pod, 32 lower hex digits (an MD5 sum that kubelet
/// makes of the manifest; `pkg/kubelet/config/common.go`, `applyDefaults`). Nothing else is a pod directory of ours, although
/// kubelet itself takes every name in `pods/` for a UID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Uid(Arc<str>);

impl Uid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it has the form that kubelet gives to static pods without a `metadata.uid`.
    pub fn is_static(&self) -> bool {
        self.0.len() == 32
    }

    /// As it stands in the name of a systemd slice, where `-` separates levels
    /// (`pkg/kubelet/cm/cgroup_manager_linux.go`, `escapeSystemdCgroupName`).
    pub fn in_slice(&self) -> String {
        self.0.replace('-', "_")
    }
}

/// Says what a UID looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pod UID: neither a lower-case UUID nor 32 lower-case hex digits")]
pub struct NotAUid;

impl FromStr for Uid {
    type Err = NotAUid;

    fn from_str(text: &str) -> Result<Self, NotAUid> {
        let hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let parts: Vec<&str> = text.split('-').collect();
        let is_one = match parts[..] {
            [only] => hex(only, 32),
            [a, b, c, d, e] => hex(a, 8) && hex(b, 4) && hex(c, 4) && hex(d, 4) && hex(e, 12),
            _ => false,
        };
        is_one.then(|| Self(text.into())).ok_or(NotAUid)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn t19_only_a_uid_is_a_uid() {
        for good in [
            "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11",
            "d41d8cd98f00b204e9800998ecf8427e",
        ] {
            assert_eq!(good.parse::<Uid>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "*",
            "a/b",
            "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b1",
            "0C9A8C4E-3A51-4C0E-9D1C-5A2F6F0F6B11",
        ] {
            assert_eq!(bad.parse::<Uid>(), Err(NotAUid), "{bad}");
        }
    }
}
