//! A `v1` PodList, as kubelet and the API server send it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::uid::Uid;

/// kubelet writes the name that it knows a static pod's directory by into these: of a mirror pod, which has a UID of its
/// own at the API server, they name the directory (`pkg/kubelet/types/pod_update.go`).
const DIRECTORY_NAMES: [&str; 2] = ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"];

/// Whole lists only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodList {
    /// Every UID that the list knows, with a sentence. A mirror pod has two.
    pub(crate) pods: Vec<(Uid, String)>,
    /// How many items the list has.
    pub(crate) items: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: Option<ListMeta>,
    /// Go writes `null` for a list of nothing. No list at all is no answer.
    #[serde(deserialize_with = "items")]
    items: Vec<Item>,
}

fn items<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Item>, D::Error> {
    Ok(Option::<Vec<Item>>::deserialize(from)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    r#continue: Option<String>,
    remaining_item_count: Option<i64>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    phase: Option<String>,
}

impl PodList {
    /// Reads a list. The reason, if it is none, or not the whole of one.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let raw: Raw =
            serde_json::from_slice(json).map_err(|error| format!("its answer is no PodList: {error}"))?;
        if (raw.kind.as_str(), raw.api_version.as_str()) != ("PodList", "v1") {
            let (kind, version) = (short(&raw.kind), short(&raw.api_version));
            return Err(format!("its answer is a {version} {kind}, not a v1 PodList"));
        }
        let meta = raw.metadata.unwrap_or_default();
        if meta.r#continue.is_some_and(|token| !token.is_empty())
            || meta.remaining_item_count.is_some_and(|n| n > 0)
        {
            return Err("its answer is a part of a list only".to_owned());
        }
        if let Some(nameless) = raw.items.iter().find(|item| item.metadata.uid.is_empty()) {
            let name = short(&nameless.metadata.name);
            return Err(format!(
                "its answer has a pod without a UID ({name}), so it is not to be relied on"
            ));
        }
        Ok(Self {
            items: raw.items.len(),
            pods: raw.items.iter().flat_map(Item::told).collect(),
        })
    }
}

impl Item {
    /// A UID that is no name of a pod directory of ours protects none.
    fn told(&self) -> impl Iterator<Item = (Uid, String)> + '_ {
        let sentence = self.sentence();
        let annotations = self.metadata.annotations.iter().flatten();
        let named = annotations
            .filter(|(name, _)| DIRECTORY_NAMES.contains(&name.as_str()))
            .map(|(_, uid)| uid);
        let mut uids: Vec<Uid> = std::iter::once(&self.metadata.uid)
            .chain(named)
            .filter_map(|uid| uid.parse().ok())
            .collect();
        uids.sort_unstable();
        uids.dedup();
        uids.into_iter().map(move |uid| (uid, sentence.clone()))
    }

    fn sentence(&self) -> String {
        let Metadata { name, namespace, .. } = &self.metadata;
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        let phase = phase.map_or(String::new(), |phase| format!(", {}", short(phase)));
        let ending = match &self.metadata.deletion_timestamp {
            Some(time) => format!(", being deleted since {}", short(time)),
            None => String::new(),
        };
        format!("pod {}/{}{phase}{ending}", short(namespace), short(name))
    }
}

/// What others wrote, no longer than a name can be.
fn short(text: &str) -> String {
    text.chars().take(253).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
    const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn list(items: &str) -> String {
        format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":{items}}}"#)
    }

    fn uids(json: &str) -> Vec<String> {
        let list = PodList::parse(json.as_bytes()).unwrap();
        list.pods.iter().map(|(uid, _)| uid.to_string()).collect()
    }

    #[test]
    fn t15_t16_a_pod_is_known_in_every_phase() {
        for phase in ["Pending", "Running", "Succeeded", "Failed", "Unknown"] {
            let json = list(&format!(
                r#"[{{"metadata":{{"uid":"{UID}","name":"web-1","namespace":"default"}},"status":{{"phase":"{phase}"}}}}]"#
            ));
            let list = PodList::parse(json.as_bytes()).unwrap();
            assert_eq!(
                list.pods,
                [(UID.parse().unwrap(), format!("pod default/web-1, {phase}"))]
            );
        }
        let deleted = list(&format!(
            r#"[{{"metadata":{{"uid":"{UID}","name":"a","namespace":"b","deletionTimestamp":"2026-11-21T07:00:00Z"}}}}]"#
        ));
        let said = PodList::parse(deleted.as_bytes()).unwrap().pods[0].1.clone();
        assert_eq!(said, "pod b/a, being deleted since 2026-11-21T07:00:00Z");
    }

    #[test]
    fn t13_a_static_pod_is_known_by_its_hash_and_a_mirror_pod_by_its_annotations() {
        let own = list(&format!(
            r#"[{{"metadata":{{"uid":"{HASH}","annotations":{{"kubernetes.io/config.hash":"{HASH}"}}}}}}]"#
        ));
        assert_eq!(uids(&own), [HASH]);
        for annotation in DIRECTORY_NAMES {
            let mirror = list(&format!(
                r#"[{{"metadata":{{"uid":"{UID}","annotations":{{"{annotation}":"{HASH}","other":"x"}}}}}}]"#
            ));
            assert_eq!(uids(&mirror), [UID, HASH], "{annotation}");
        }
    }

    #[test]
    fn an_empty_list_is_a_list_and_no_list_is_none() {
        assert_eq!(PodList::parse(list("[]").as_bytes()).unwrap().items, 0);
        assert_eq!(PodList::parse(list("null").as_bytes()).unwrap().items, 0);
        let missing = r#"{"kind":"PodList","apiVersion":"v1","metadata":{}}"#;
        assert!(PodList::parse(missing.as_bytes()).unwrap_err().contains("items"));
    }

    #[test]
    fn a_uid_that_names_no_directory_of_ours_is_counted_and_protects_nothing() {
        let json = list(r#"[{"metadata":{"uid":"../etc"}},{"metadata":{"uid":"my-own-uid"}}]"#);
        let list = PodList::parse(json.as_bytes()).unwrap();
        assert_eq!((list.items, list.pods.len()), (2, 0));
    }

    #[test]
    fn garbage_and_half_a_list_are_no_answer() {
        let whole = list(&format!(
            r#"[{{"metadata":{{"uid":"{UID}"}}}},{{"metadata":{{"uid":"{HASH}"}}}}]"#
        ));
        for cut in 0..whole.len() {
            assert!(PodList::parse(&whole.as_bytes()[..cut]).is_err(), "{cut}");
        }
        for (json, reason) in [
            ("Unauthorized", "no PodList"),
            ("[]", "no PodList"),
            (r#"{"kind":"Status","apiVersion":"v1","items":[]}"#, "v1 Status"),
            (r#"{"kind":"PodList","apiVersion":"v2","items":[]}"#, "v2 PodList"),
            (
                r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{}}]}"#,
                "uid",
            ),
            (
                r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"uid":"","name":"x"}}]}"#,
                "without a UID (x)",
            ),
            (r#"{"kind":"PodList","apiVersion":"v1","items":[{}]}"#, "metadata"),
            (
                r#"{"kind":"PodList","apiVersion":"v1","metadata":{"continue":"abc"},"items":[]}"#,
                "a part",
            ),
            (
                r#"{"kind":"PodList","apiVersion":"v1","metadata":{"remainingItemCount":3},"items":[]}"#,
                "a part",
            ),
        ] {
            let said = PodList::parse(json.as_bytes()).unwrap_err();
            assert!(said.contains(reason), "{json}: {said}");
        }
    }
}
