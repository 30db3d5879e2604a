//! A run that is killed at any moment loses nothing, and another one carries on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nodemend_evidence::Outcome;
use nodemend_pods::{Purge, Repair, restorable, restore};

use crate::node::{Node, Pod, apply_all, bind, fingerprint, mounted_below, patiently};

const PODS: u32 = 12;
const VOLUMES: u32 = 3;
const ROUNDS: u32 = 12;
const DISK: &str = "NODEMEND_TEST_DISK";

fn content(pod: u32, volume: u32) -> String {
    format!("the only copy of volume {volume} of pod {pod}")
}

fn pods(node: &Node) -> Vec<Pod<'_>> {
    (0..PODS)
        .map(|number| {
            let mut pod = node.pod(number);
            for volume in 0..VOLUMES {
                pod.csi(&format!("pv-{volume}"), None);
            }
            pod
        })
        .collect()
}

/// In the child: purges everything that is there.
#[test]
#[ignore = "started by the test below"]
fn the_run_that_is_killed() {
    let Some(disk) = std::env::var_os(DISK) else {
        return;
    };
    let node = Node::at(Path::new(&disk));
    drop(purge_all(&node));
}

fn purge_all(node: &Node) -> Vec<Outcome> {
    let there: Vec<Pod<'_>> = (0..PODS).filter_map(|number| found(node, number)).collect();
    let known: Vec<&Pod<'_>> = there.iter().collect();
    let orphans = there.iter().map(Pod::orphan).collect();
    let repair = Repair::Purge(Purge::default());
    apply_all(node, orphans, &known, &repair)
}

/// A pod whose directory is there, as it is, with what a survey says of its volumes.
fn found(node: &Node, number: u32) -> Option<Pod<'_>> {
    let uid: nodemend_pods::Uid = format!("0c9a8c4e-3a51-4c0e-9d1c-{number:012x}").parse().unwrap();
    let path = node.root.join("pods").join(uid.as_str());
    let mut pod = Pod {
        node,
        uid,
        path,
        csi: BTreeMap::new(),
    };
    for volume in 0..VOLUMES {
        let name = format!("pv-{volume}");
        let record = pod
            .path
            .join("volumes/kubernetes.io~csi")
            .join(&name)
            .join("vol_data.json");
        if record.exists() {
            pod.csi(&name, None);
        }
    }
    pod.is_there().then_some(pod)
}

/// Every file with data, by its content, wherever it is.
fn data(dir: &Path, all: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            data(&path, all);
        } else if path.file_name().unwrap() == "data" {
            all.push((fs::read_to_string(&path).unwrap(), path));
        }
    }
}

#[test]
fn sigkill_at_any_moment_loses_nothing_and_everything_can_be_put_back() {
    let mut seed = 12_345_u64;
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        let node = Node::new();
        for (number, pod) in (0..).zip(pods(&node)) {
            for volume in 0..VOLUMES {
                let mount = pod
                    .path
                    .join(format!("volumes/kubernetes.io~csi/pv-{volume}/mount"));
                fs::create_dir_all(mount.join("deep")).unwrap();
                fs::write(mount.join("deep/data"), content(number, volume)).unwrap();
            }
            let data = node.data(&format!("pv-{number}"));
            bind(&data, &pod.volume("kubernetes.io~local-volume", "pv"));
        }
        let behind = fingerprint(&node.behind);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::the_run_that_is_killed", "--ignored"])
            .env(DISK, node.disk())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        wait_for_start(&node);
        std::thread::sleep(Duration::from_micros((seed >> 33) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        all_there_once(&node, round);
        cut_short += u32::from(fs::read_dir(node.root.join("pods")).unwrap().count() > 0);

        let outcomes = purge_all(&node);
        let all_gone = outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Mended(_)));
        assert!(all_gone, "{outcomes:?}");
        all_there_once(&node, round);
        assert_eq!(fs::read_dir(node.root.join("pods")).unwrap().count(), 0);
        assert!(mounted_below(&node.root).is_empty());
        assert_eq!(fingerprint(&node.behind), behind);
        give_back(&node);
    }
    assert!(cut_short >= ROUNDS / 2, "{cut_short} runs were cut short");
}

/// Until the child has written its first step down, or has ended without one.
fn wait_for_start(node: &Node) {
    let journal = node.state.path().join("journal.jsonl");
    for _ in 0..2000 {
        if fs::metadata(&journal).is_ok_and(|file| file.len() > 0) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("the child did nothing");
}

fn all_there_once(node: &Node, round: u32) {
    let mut all = Vec::new();
    data(&node.root, &mut all);
    let mut contents: Vec<_> = all.iter().map(|(content, _)| content.clone()).collect();
    contents.sort();
    let mut wanted: Vec<_> = (0..PODS)
        .flat_map(|pod| (0..VOLUMES).map(move |volume| content(pod, volume)))
        .collect();
    wanted.sort();
    assert_eq!(contents, wanted, "round {round}");
}

fn give_back(node: &Node) {
    let shelves = [node.quarantine()];
    let kept = restorable(&node.state, &shelves).unwrap();
    assert_eq!(u32::try_from(kept.len()).unwrap(), PODS * VOLUMES);
    for number in 0..PODS {
        let uid = format!("0c9a8c4e-3a51-4c0e-9d1c-{number:012x}");
        let pod = node.root.join("pods").join(&uid);
        fs::create_dir(&pod).unwrap();
        let report = patiently(|| restore(&node.state, &shelves, &uid, None));
        assert_eq!(
            u32::try_from(report.restored.len()).unwrap(),
            VOLUMES,
            "{report:?}"
        );
        for volume in 0..VOLUMES {
            let file = pod.join(format!("volumes/kubernetes.io~csi/pv-{volume}/mount/deep/data"));
            assert_eq!(fs::read_to_string(file).unwrap(), content(number, volume));
        }
    }
}
