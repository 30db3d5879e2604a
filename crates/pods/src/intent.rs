//! What a repair would do to a pod directory, and what would be lost with it, in words.

use crate::apply::{Purge, Repair};
use crate::loss::Loss;
use crate::mount::Tie;
use crate::pod::PodDir;
use crate::volume::{Class, Content};

impl Repair {
    /// One sentence for the plan. `now` is when the directory was seen, in seconds since 1970.
    pub fn intent(&self, pod: &PodDir, now: i64) -> String {
        let loss = Loss::of(pod, now);
        match self {
            Self::Unblock => unblock(pod, &loss),
            Self::Purge(options) => purge(pod, options, &loss),
        }
    }
}

fn unblock(pod: &PodDir, loss: &Loss) -> String {
    let mounts = mounted(pod);
    let filled = pod
        .volumes
        .iter()
        .any(|volume| matches!(volume.content, Content::Files { .. }));
    match (mounts, filled, loss.is_nothing()) {
        (0, false, true) => {
            "remove the empty directories and stale records that keep kubelet from removing it; lost: nothing"
                .to_owned()
        }
        (0, ..) => {
            format!("nothing, as it is not empty: --purge says what becomes of it; would be lost: {loss}")
        }
        _ => format!(
            "nothing, as {} in it: --purge unmounts; would be lost: {loss}",
            are(mounts)
        ),
    }
}

fn are(mounts: usize) -> String {
    if mounts == 1 {
        "1 mount is".to_owned()
    } else {
        format!("{mounts} mounts are")
    }
}

fn mounted(pod: &PodDir) -> usize {
    pod.mounts
        .iter()
        .filter(|mount| mount.seen_by.is_none() && mount.tie == Tie::In)
        .count()
}

fn purge(pod: &PodDir, options: &Purge, loss: &Loss) -> String {
    let mut steps = Vec::new();
    if mounted(pod) > 0 {
        steps.push(format!("unmount {}", mounted(pod)));
    }
    let copies = pod
        .volumes
        .iter()
        .filter(|volume| volume.class == Class::MaybeOnlyCopy && !is_empty(&volume.content));
    let copies = copies.count();
    if copies > 0 {
        steps.push(format!(
            "move {copies} volumes that may be the only copy to the quarantine"
        ));
    }
    let ephemeral = loss.ephemeral.entries > 0 || loss.in_memory > 0;
    let lost = match (&options.archive, options.accept_ephemeral, ephemeral) {
        (_, _, false) => "lost: nothing".to_owned(),
        (Some(dir), _, true) => {
            steps.push(format!("archive what ends with the pod to {}", dir.display()));
            "lost: nothing".to_owned()
        }
        (None, true, true) => format!("lost for good: {loss}"),
        (None, false, true) => {
            return format!(
                "nothing: it takes --accept-ephemeral or --archive DIR, for it would lose: {loss}"
            );
        }
    };
    if !pod.outside.is_empty() {
        let links = pod.outside.len();
        steps.push(format!(
            "take {links} device files of its block volumes out of plugins/"
        ));
    }
    steps.push("remove the directory with the pod's logs and empty cgroups".to_owned());
    format!("{}; {lost}", steps.join(", "))
}

fn is_empty(content: &Content) -> bool {
    matches!(content, Content::Empty)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use nodemend_hostfs::FileId;

    use super::*;
    use crate::pod::PodIdentity;
    use crate::volume::{Part, Volume};

    fn pod(class: Class, content: Content) -> PodDir {
        let uid: crate::uid::Uid = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11".parse().unwrap();
        PodDir {
            uid: uid.clone(),
            path: "/k/pods/0c".into(),
            identity: PodIdentity {
                uid,
                dir: FileId::default(),
                mount: 1,
            },
            name: None,
            changed: 0,
            volumes: vec![Volume {
                plugin: "kubernetes.io/empty-dir".into(),
                name: "a".into(),
                path: "volumes/kubernetes.io~empty-dir/a".into(),
                part: Part::Volume,
                class,
                content,
                csi: None,
            }],
            mounts: Vec::new(),
            strange: Vec::new(),
            outside: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn files() -> Content {
        Content::Files {
            entries: 3,
            bytes: 2048,
            newest: 0,
            more: false,
        }
    }

    #[test]
    fn t24_what_a_repair_would_lose_is_said_before() {
        let purge = |accept_ephemeral, archive: Option<&str>| {
            Repair::Purge(Purge {
                accept_ephemeral,
                archive: archive.map(Into::into),
                quarantine: None,
            })
        };
        let ephemeral = pod(Class::Ephemeral, files());
        let empty = pod(Class::NothingLost, Content::Empty);
        let only = pod(Class::MaybeOnlyCopy, files());
        let of = "of emptyDir and its like 3 files, 2.0 KiB, newest change 1 min ago";
        let end = "remove the directory with the pod's logs and empty cgroups";
        for (repair, pod, wanted) in [
            (
                Repair::Unblock,
                &empty,
                "remove the empty directories and stale records that keep kubelet from removing it; lost: nothing".to_owned(),
            ),
            (
                Repair::Unblock,
                &ephemeral,
                format!("nothing, as it is not empty: --purge says what becomes of it; would be lost: {of}"),
            ),
            (
                purge(false, None),
                &ephemeral,
                format!("nothing: it takes --accept-ephemeral or --archive DIR, for it would lose: {of}"),
            ),
            (purge(true, None), &ephemeral, format!("{end}; lost for good: {of}")),
            (
                purge(false, Some("/a")),
                &ephemeral,
                format!("archive what ends with the pod to /a, {end}; lost: nothing"),
            ),
            (
                purge(true, None),
                &only,
                format!("move 1 volumes that may be the only copy to the quarantine, {end}; lost: nothing"),
            ),
        ] {
            assert_eq!(repair.intent(pod, 60), wanted);
        }
    }
}
