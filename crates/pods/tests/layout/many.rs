//! A node with very many pod directories.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nodemend_hostfs::Host;
use nodemend_pods::{LayoutOptions, layout};
use nodemend_procns::Census;

use crate::room::{Room, tmpfs};

fn uid(at: usize) -> String {
    format!("{at:08x}-3a51-4c0e-9d1c-5a2f6f0f6b11")
}

/// So many pods, and of each so many secrets mounted.
fn node(room: &Room, pods: usize, mounts: usize) {
    tmpfs(&room.root.join("pods"));
    for at in 0..pods {
        let pod = room.pod(&uid(at));
        for volume in 0..mounts {
            let leaf = pod.join(format!("volumes/kubernetes.io~secret/kube-api-access-{volume}"));
            fs::create_dir_all(&leaf).unwrap();
            tmpfs(&leaf);
        }
        fs::create_dir_all(pod.join("volumes/kubernetes.io~empty-dir/x")).unwrap();
        fs::create_dir_all(pod.join("containers/main")).unwrap();
        fs::write(pod.join("containers/main/0123abcd"), "").unwrap();
        fs::write(
            pod.join("etc-hosts"),
            "# Kubernetes-managed hosts file.\n10.0.0.9\tshop-0\n",
        )
        .unwrap();
    }
}

fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap()
        .to_owned()
}

/// The processor's time that this process has used: on a busy machine, the clock on the wall says little.
fn worked() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let used = usage.user_time() + usage.system_time();
    Duration::from_micros(used.num_microseconds().try_into().unwrap())
}

fn measured(pods: usize, mounts: usize) -> (usize, usize, usize) {
    let room = Room::new();
    node(&room, pods, mounts);
    let host = Host::local();
    let census = Census::take(&host).unwrap();
    let options = LayoutOptions {
        kubelet_root: Some(room.root.clone()),
        ..LayoutOptions::default()
    };
    let before = peak();
    let (start, worked_before) = (Instant::now(), worked());
    let layout = layout(&host, &options, &census).unwrap();
    println!(
        "{pods} pods, {} mounts: {:?}, of the processor {:?}; before: {before}, after: {}",
        pods * mounts,
        start.elapsed(),
        worked() - worked_before,
        peak()
    );
    assert_eq!(layout.unread, Vec::<String>::new());
    (
        layout.pods.len(),
        layout.pods.iter().map(|pod| pod.mounts.len()).sum(),
        layout.pods.iter().map(|pod| pod.volumes.len()).sum(),
    )
}

#[test]
fn twice_the_pods_give_twice_the_findings() {
    assert_eq!(measured(100, 2), (100, 200, 300));
    assert_eq!(measured(200, 2), (200, 400, 600));
}

/// Issue 4's size. Run it in a release build, with `--ignored --nocapture`, for its time and memory.
#[test]
#[ignore = "50,000 mounts take a minute to make"]
fn ten_thousand_pods_with_fifty_thousand_mounts() {
    assert_eq!(measured(10_000, 5), (10_000, 50_000, 60_000));
}
