//! When an empty answer cannot be relied on.
//!
//! A runtime that has just come up, or has lost its records, lists nothing although pods run.

use std::path::PathBuf;
use std::time::Duration;

use crate::cgroups::Adrift;
use crate::knowledge::{Record, RecordKind};
use crate::shims::{Keeper, Shim};
use crate::sources::Asked;

/// A runtime that is younger than this may not have read its records yet.
const YOUTH: Duration = Duration::from_secs(60);

/// What was asked of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Cri,
    Containerd(Asked),
}

/// Who was asked, and who else was.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) question: Question,
    /// The socket, in the form of [`crate::ownership::in_run`].
    pub(crate) socket: PathBuf,
    /// The sockets of the other endpoints.
    pub(crate) others: Vec<PathBuf>,
    /// How long the runtime has been running.
    pub(crate) age: Result<Duration, String>,
}

/// What runs, whatever the runtimes say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running<'a> {
    pub(crate) shims: &'a [Shim],
    pub(crate) adrift: Option<Adrift>,
}

/// Why these records, if there are none, say nothing.
pub(crate) fn doubt(asking: &Asking, records: &[Record], running: &Running<'_>) -> Option<String> {
    if !is_empty(asking.question, records) {
        return None;
    }
    too_young(&asking.age)
        .or_else(|| lost(asking, running.shims))
        .or_else(|| forgotten(asking.question, running.adrift.as_ref()))
}

fn is_empty(question: Question, records: &[Record]) -> bool {
    match question {
        Question::Cri => !records.iter().any(|record| record.kind == RecordKind::Sandbox),
        Question::Containerd(_) => records.is_empty(),
    }
}

fn too_young(age: &Result<Duration, String>) -> Option<String> {
    match age {
        Ok(age) if *age >= YOUTH => None,
        Ok(age) => Some(format!(
            "it came up {} s ago and knows nothing yet; repeat when it has run for {} s",
            age.as_secs(),
            YOUTH.as_secs()
        )),
        Err(reason) => Some(format!(
            "it lists nothing, and nobody can tell for how long it has run: {reason}"
        )),
    }
}

fn lost(asking: &Asking, shims: &[Shim]) -> Option<String> {
    let mut its_own = shims.iter().filter(|shim| is_its_own(asking, shim));
    let first = its_own.next()?;
    let count = 1 + its_own.count();
    let run = if count == 1 {
        "1 shim runs".to_owned()
    } else {
        format!("{count} shims run")
    };
    Some(format!(
        "it lists nothing, but {run} (first: pid {}, id {}): its records may have been lost",
        first.pid, first.id
    ))
}

/// Shims can be killed, and the containers run on.
fn forgotten(question: Question, adrift: Option<&Adrift>) -> Option<String> {
    let adrift = adrift.filter(|_| question == Question::Cri)?;
    let run = if adrift.count == 1 {
        "1 container runs that no runtime knows".to_owned()
    } else {
        format!("{} containers run that no runtime knows", adrift.count)
    };
    Some(format!(
        "it lists nothing, but {run} (first: pid {}, id {}): its records may have been lost",
        adrift.pid, adrift.id
    ))
}

/// The shims that the answer should account for. Of the CRI: those of Kubernetes, unless another runtime that was
/// asked as well started them.
fn is_its_own(asking: &Asking, shim: &Shim) -> bool {
    match (&shim.keeper, asking.question) {
        (Keeper::Containerd { address, .. }, Question::Containerd(Asked::Containers)) => address
            .as_ref()
            .is_some_and(|address| crate::ownership::in_run(address) == asking.socket),
        (Keeper::Containerd { namespace, address }, Question::Cri) => {
            let address = address.as_ref().map(|address| crate::ownership::in_run(address));
            let of_another = address.is_some_and(|address| asking.others.contains(&address));
            namespace.as_deref() == Some("k8s.io") && !of_another
        }
        (Keeper::Crio, Question::Cri) => asking
            .socket
            .iter()
            .any(|part| part == "crio" || part == "crio.sock"),
        (Keeper::Containerd { .. } | Keeper::Crio, Question::Containerd(_)) | (Keeper::Other, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "/run/containerd/containerd.sock";
    const K3S: &str = "/run/k3s/containerd/containerd.sock";
    const CONTAINERS: Question = Question::Containerd(Asked::Containers);
    const TASKS: Question = Question::Containerd(Asked::Tasks);

    fn shim(namespace: &str, address: &str) -> Shim {
        let keeper = Keeper::Containerd {
            namespace: Some(namespace.into()),
            address: Some(address.into()),
        };
        Shim {
            pid: 7,
            id: "8f3a".into(),
            keeper,
        }
    }

    fn asking(question: Question, socket: &str, others: &[&str]) -> Asking {
        let others = others.iter().map(PathBuf::from).collect();
        Asking {
            question,
            socket: socket.into(),
            others,
            age: Ok(Duration::from_secs(3600)),
        }
    }

    fn doubt(asking: &Asking, records: &[Record], shims: &[Shim]) -> Option<String> {
        let running = Running { shims, adrift: None };
        super::doubt(asking, records, &running)
    }

    fn record(kind: RecordKind) -> Record {
        Record {
            kind,
            ..shim("k8s.io", RUN).record()
        }
    }

    #[test]
    fn an_empty_answer_of_a_runtime_that_lost_its_records_counts_for_nothing() {
        let crio = Shim {
            keeper: Keeper::Crio,
            ..shim("", "")
        };
        let podman = Shim {
            keeper: Keeper::Other,
            ..shim("", "")
        };
        let cases = [
            // T07: metadata wiped, pods run.
            (asking(Question::Cri, RUN, &[]), vec![shim("k8s.io", RUN)], true),
            (
                asking(Question::Cri, RUN, &[]),
                vec![shim("k8s.io", "/var/run/containerd/containerd.sock")],
                true,
            ),
            (
                asking(CONTAINERS, RUN, &[]),
                vec![shim("moby", "/var/run/containerd/containerd.sock")],
                true,
            ),
            (asking(Question::Cri, RUN, &[]), vec![shim("moby", RUN)], false),
            (asking(TASKS, RUN, &[]), vec![shim("k8s.io", RUN)], false),
            // T20: two containerds. The other one was asked, and answers for its own.
            (
                asking(Question::Cri, RUN, &[K3S]),
                vec![shim("k8s.io", K3S)],
                false,
            ),
            (asking(CONTAINERS, RUN, &[K3S]), vec![shim("k8s.io", K3S)], false),
            // It was not asked: perhaps it is this one, under an older name.
            (asking(Question::Cri, RUN, &[]), vec![shim("k8s.io", K3S)], true),
            (
                asking(Question::Cri, "/run/crio/crio.sock", &[]),
                vec![crio.clone()],
                true,
            ),
            (asking(Question::Cri, RUN, &[]), vec![crio, podman], false),
            (asking(Question::Cri, RUN, &[]), vec![], false),
        ];
        for (asking, shims, doubted) in cases {
            assert_eq!(
                doubt(&asking, &[], &shims).is_some(),
                doubted,
                "{asking:?} {shims:?}"
            );
        }
    }

    #[test]
    fn the_reason_names_a_shim_to_look_at() {
        let shims = [shim("k8s.io", RUN), shim("k8s.io", RUN)];
        assert_eq!(
            doubt(&asking(Question::Cri, RUN, &[]), &[], &shims).unwrap(),
            "it lists nothing, but 2 shims run (first: pid 7, id 8f3a): its records may have been lost"
        );
    }

    #[test]
    fn a_list_of_containers_without_sandboxes_is_empty_to_the_cri_only() {
        let shims = [shim("k8s.io", RUN)];
        let containers = [record(RecordKind::Container)];
        assert!(doubt(&asking(Question::Cri, RUN, &[]), &containers, &shims).is_some());
        assert!(doubt(&asking(CONTAINERS, RUN, &[]), &containers, &shims).is_none());
        assert!(
            doubt(
                &asking(Question::Cri, RUN, &[]),
                &[record(RecordKind::Sandbox)],
                &shims
            )
            .is_none()
        );
    }

    #[test]
    fn a_runtime_that_has_just_come_up_knows_nothing_yet() {
        // T03: restarting. Whatever was asked, and even without shims.
        for question in [
            Question::Cri,
            CONTAINERS,
            TASKS,
            Question::Containerd(Asked::Sandboxes),
        ] {
            let young = |age| Asking {
                age,
                ..asking(question, RUN, &[])
            };
            let reason = doubt(&young(Ok(Duration::from_secs(59))), &[], &[]).unwrap();
            assert!(
                reason.starts_with("it came up 59 s ago and knows nothing yet"),
                "{reason}"
            );
            assert!(doubt(&young(Err("gone".into())), &[], &[]).is_some());
            assert_eq!(doubt(&young(Ok(Duration::from_secs(60))), &[], &[]), None);
            assert_eq!(
                doubt(&young(Ok(Duration::ZERO)), &[record(RecordKind::Sandbox)], &[]),
                None
            );
        }
    }

    #[test]
    fn containers_that_outlived_their_shims_count_against_the_cri() {
        let adrift = Adrift {
            count: 2,
            pid: 9,
            id: "8f3a".into(),
        };
        let running = Running {
            shims: &[],
            adrift: Some(adrift),
        };
        let reason = super::doubt(&asking(Question::Cri, RUN, &[]), &[], &running).unwrap();
        let wanted = "it lists nothing, but 2 containers run that no runtime knows (first: pid 9, id 8f3a): its \
                      records may have been lost";
        assert_eq!(reason, wanted);
        let known = [record(RecordKind::Sandbox)];
        assert_eq!(
            super::doubt(&asking(Question::Cri, RUN, &[]), &known, &running),
            None
        );
        assert_eq!(super::doubt(&asking(CONTAINERS, RUN, &[]), &[], &running), None);
    }
}
