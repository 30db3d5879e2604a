use std::ffi::OsStr;
use std::path::PathBuf;

use nodemend_hostfs::FileId;
use nodemend_hostfs::mountinfo::Mount;

use super::*;
use crate::healthz::Healthz;
use crate::look::{Estimate, Images, RootFacts, RunningPod, StoredImage};
use crate::service::ServiceState;
use crate::settings::{Origin, Settings};

const ROOT: &str = "/var/lib/containerd";

/// containerd crash-loops, and nothing else is odd.
fn broken() -> Look {
    let up = ServiceState {
        active: Some("activating".to_owned()),
        kill_mode: Some("process".to_owned()),
        ..ServiceState::default()
    };
    Look {
        settings: Settings {
            config: None,
            root: ROOT.into(),
            state: "/run/containerd".into(),
            socket: "/run/containerd/containerd.sock".into(),
            program: "/usr/bin/containerd".into(),
            origin: Origin::Default,
            elsewhere: Vec::new(),
            cri_disabled: false,
        },
        containerd: up.clone(),
        kubelet: Some(up),
        healthz: Healthz::default(),
        health: Health::Broken {
            why: vec!["restarted 300 times".to_owned()],
        },
        findings: Vec::new(),
        estimate: Estimate {
            entries: Amount::About(3_800_000),
            bytes: Amount::Unknown("not counted".to_owned()),
            snapshots: Amount::Exactly(200),
            filesystem_inodes: None,
            filesystem_bytes: None,
        },
        root: Some(RootFacts {
            path: ROOT.into(),
            id: FileId { dev: 1, ino: 2 },
            mount_id: 30,
            is_mount_point: false,
            filesystem: "ext4".to_owned(),
            owner: (0, 0),
            mode: 0o711,
            selinux: None,
            free_bytes: 1 << 30,
            free_inodes: None,
            total_bytes: 1 << 40,
            total_inodes: None,
        }),
        images: None,
        databases: Vec::new(),
        pods: Vec::new(),
        pods_unseen: Vec::new(),
        mounts_below: Vec::new(),
        mounts_of_root: Vec::new(),
    }
}

fn with_pod() -> Look {
    let pod = RunningPod {
        sandbox: "a".repeat(64),
        namespace: Some("k8s.io".to_owned()),
        pod: None,
        shims: vec![7],
        containers: Vec::new(),
        processes: 1,
        sources: Vec::new(),
    };
    Look {
        pods: vec![pod],
        ..broken()
    }
}

fn order() -> Order {
    Order {
        state_dir: PathBuf::from("/var/lib/nodemend"),
        ..Order::default()
    }
}

fn reasons(look: &Look, order: &Order) -> Vec<Reason> {
    plan(look, order)
        .refusals
        .into_iter()
        .map(|refusal| refusal.reason)
        .collect()
}

#[test]
fn a_broken_containerd_without_pods_gets_all_eight_steps() {
    let plan = plan(&broken(), &order());
    assert_eq!(plan.needed, Needed::Yes);
    assert_eq!(plan.refusals, []);
    assert_eq!(plan.steps.len(), 8);
    assert_eq!(plan.pods, Some(PodChoice::None));
    assert_eq!(plan.steps[7].seconds, Some((30, 101)), "3.8 million entries");
}

#[test]
fn a_healthy_one_has_nothing_to_mend_unless_the_operator_insists() {
    let look = Look {
        health: Health::Healthy {
            runtime: "containerd 1.7.24".to_owned(),
            age: 4000,
        },
        ..with_pod()
    };
    let calm = plan(&look, &order());
    assert_eq!((calm.needed, calm.steps.len()), (Needed::No, 0));
    assert_eq!(calm.refusals, []);
    let insisting = Order {
        even_if_healthy: true,
        pods: Some(PodChoice::Reap),
        ..order()
    };
    assert_eq!(plan(&look, &insisting).needed, Needed::Yes);
}

#[test]
fn an_unknown_health_is_refused_with_its_reason() {
    let look = Look {
        health: Health::Unknown {
            why: vec!["systemctl does not answer".to_owned()],
        },
        ..broken()
    };
    let plan = plan(&look, &order());
    assert_eq!(plan.needed, Needed::Unknown);
    assert_eq!(plan.refusals[0].reason, Reason::HealthUnknown);
    assert!(plan.refusals[0].detail.contains("systemctl does not answer"));
}

#[test]
fn running_pods_need_a_word_from_the_operator() {
    assert_eq!(reasons(&with_pod(), &order()), [Reason::PodsUndecided]);
    let unseen = Look {
        pods_unseen: vec!["process 9 cannot be read".to_owned()],
        ..broken()
    };
    assert_eq!(
        reasons(&unseen, &order()),
        [Reason::PodsUndecided],
        "there may be some"
    );
    for choice in [PodChoice::Keep, PodChoice::Reap] {
        let said = Order {
            pods: Some(choice),
            ..order()
        };
        assert_eq!(reasons(&with_pod(), &said), []);
    }
}

#[test]
fn pods_cannot_be_kept_where_systemd_ends_them_with_containerd() {
    let keep = Order {
        pods: Some(PodChoice::Keep),
        ..order()
    };
    let mut look = with_pod();
    look.containerd.kill_mode = Some("control-group".to_owned());
    assert_eq!(reasons(&look, &keep), [Reason::PodsNotKept]);
    let reap = Order {
        pods: Some(PodChoice::Reap),
        ..order()
    };
    assert_eq!(reasons(&look, &reap), []);
}

#[test]
fn what_must_not_go_with_the_root_is_refused() {
    let mut look = broken();
    look.settings.state = format!("{ROOT}/state").into();
    assert_eq!(reasons(&look, &order()), [Reason::InRoot]);
    let inside = Order {
        state_dir: format!("{ROOT}/nodemend").into(),
        ..order()
    };
    assert_eq!(reasons(&broken(), &inside), [Reason::InRoot]);
    let mut dockers = broken();
    dockers.settings.cri_disabled = true;
    assert_eq!(reasons(&dockers, &order()), [Reason::NoCri]);
    let none = Look {
        root: None,
        ..broken()
    };
    assert_eq!(reasons(&none, &order()), [Reason::NoRoot]);
}

#[test]
fn somebodys_disk_below_the_root_is_refused_and_containerds_mounts_are_not() {
    let mount = |at: &str| Mount {
        id: 50,
        parent: 30,
        dev: (8, 17),
        root: Path::new("/").into(),
        mountpoint: format!("{ROOT}/{at}").into(),
        fstype: "ext4".into(),
        source: OsStr::new("/dev/sdb1").into(),
        options: OsStr::new("rw").into(),
    };
    let look = Look {
        mounts_below: vec![
            mount("tmpmounts/containerd-mount1"),
            mount("io.containerd.content.v1.content"),
        ],
        ..broken()
    };
    let plan = plan(&look, &order());
    assert_eq!(plan.refusals.len(), 1);
    assert!(
        plan.refusals[0].detail.contains("/dev/sdb1"),
        "{}",
        plan.refusals[0].detail
    );
}

fn image(name: &str, bytes: u64, lacks: Option<&str>) -> StoredImage {
    StoredImage {
        names: [(name.to_owned(), std::collections::BTreeMap::new())].into(),
        target: format!("sha256:{name}"),
        media_type: String::new(),
        size: 1,
        blobs: [("sha256:shared".to_owned(), 3 << 20), (name.to_owned(), bytes)].into(),
        lacks: lacks.map(str::to_owned),
    }
}

fn with_images() -> Look {
    Look {
        images: Some(Images {
            images: vec![
                image("a", 5 << 20, None),
                image("b", 1 << 20, None),
                image("c", 0, Some("a layer is gone")),
            ],
            faults: Vec::new(),
            unnamed: None,
        }),
        ..broken()
    }
}

fn keeping(images: ImageChoice) -> Order {
    Order { images, ..order() }
}

fn named(names: &[&str]) -> Order {
    keeping(ImageChoice::Named(
        names.iter().map(|name| (*name).to_owned()).collect(),
    ))
}

#[test]
fn the_plan_counts_the_images_and_what_they_share_once() {
    let step = |order: &Order| plan(&with_images(), order).steps[5].what.join("\n");
    let all = step(&keeping(ImageChoice::All));
    assert!(all.contains("2 of 3 images are carried over: 9 MiB"), "{all}");
    assert!(all.contains("c is not carried over: a layer is gone"), "{all}");
    let one = step(&named(&["b"]));
    assert!(one.contains("1 of 3 images are carried over: 4 MiB"), "{one}");
    assert!(!step(&order()).contains("carried over"));
}

#[test]
fn images_that_cannot_be_kept_are_refused_and_only_if_they_were_asked_for() {
    let look = with_images();
    assert_eq!(reasons(&look, &keeping(ImageChoice::All)), []);
    assert_eq!(reasons(&look, &named(&["a", "b"])), []);
    assert_eq!(reasons(&look, &named(&["a", "no"])), [Reason::ImagesNotKept]);
    assert_eq!(reasons(&look, &named(&["c"])), [Reason::ImagesNotKept]);
    let lost = Look {
        images: Some(Images {
            unnamed: Some("meta.db is torn".to_owned()),
            ..Images::default()
        }),
        ..broken()
    };
    for order in [named(&["a"]), keeping(ImageChoice::All)] {
        let refusal = plan(&lost, &order).refusals.remove(0);
        assert_eq!(refusal.reason, Reason::ImagesNotKept);
        assert!(refusal.detail.contains("meta.db is torn"));
    }
    assert_eq!(reasons(&lost, &order()), []);
}
