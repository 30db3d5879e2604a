//! The default repair: what stops kubelet goes, and nothing that holds anything.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use nodemend_evidence::Outcome;
use nodemend_pods::{restorable, restore};

use crate::node::{Node, bind, fingerprint, mended, patiently, refused};

#[test]
fn an_empty_leaf_and_an_empty_subpath_go_and_all_else_stays() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~nfs", "share");
    let subpath = pod.subpath("share");
    fs::write(&subpath, "").unwrap();
    mended(&pod.unblock());
    assert!(!leaf.exists() && !subpath.exists());
    assert!(
        !pod.path.join("volume-subpaths").exists(),
        "kubelet 1.13 to 1.19 stops at it"
    );
    assert!(
        pod.path.join("volumes").exists(),
        "kubelet before 1.8 complains without it"
    );
    assert!(pod.path.join("etc-hosts").exists());
}

#[test]
fn a_leftover_record_goes_and_can_be_put_back_byte_for_byte() {
    let node = Node::new();
    let mut pod = node.pod(1);
    let mount = pod.csi("pv-1", None);
    let record = mount.with_file_name("vol_data.json");
    let before = fs::read(&record).unwrap();
    let said = mended(&pod.unblock());
    assert!(said.contains("vol_data.json was copied to"), "{said}");
    assert!(!record.exists() && !mount.parent().unwrap().exists());

    let kept = restorable(&node.state, &[]).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].was, record);
    let report = patiently(|| restore(&node.state, &[], pod.uid.as_str(), None));
    assert_eq!(report.restored.len(), 1, "{report:?}");
    assert_eq!(fs::read(&record).unwrap(), before);
    assert!(restorable(&node.state, &[]).unwrap().is_empty());
}

#[test]
fn t11_the_record_of_a_volume_that_is_still_staged_stays() {
    let node = Node::new();
    let mut pod = node.pod(1);
    let global = node
        .root
        .join("plugins/kubernetes.io/csi/csi.example.com/5feceb66/globalmount");
    let mount = pod.csi("pv-1", Some(&global));
    let before = fingerprint(&node.root);
    refused(&pod.unblock(), "still staged at");
    refused(&pod.purge(), "still staged at");
    assert_eq!(fingerprint(&node.root), before);
    assert!(mount.with_file_name("vol_data.json").exists());
}

#[test]
fn t11_a_record_that_nobody_understands_stays() {
    let node = Node::new();
    let mut pod = node.pod(1);
    let mount = pod.csi("pv-1", None);
    pod.csi.clear();
    refused(&pod.unblock(), "could not be understood");
    refused(&pod.purge(), "could not be understood");
    assert!(mount.with_file_name("vol_data.json").exists());
}

#[test]
fn nothing_with_content_is_touched_and_the_reason_is_said() {
    let node = Node::new();
    for (number, plugin) in [
        "kubernetes.io~configmap",
        "kubernetes.io~empty-dir",
        "vendor~driver",
    ]
    .iter()
    .enumerate()
    {
        let pod = node.pod(u32::try_from(number).unwrap());
        pod.volume("kubernetes.io~nfs", "empty");
        fs::write(pod.volume(plugin, "full").join("file"), "x").unwrap();
        let before = fingerprint(&pod.path);
        refused(&pod.unblock(), "full holds 1 entries");
        assert_eq!(fingerprint(&pod.path), before);
    }
}

#[test]
fn kubelet_is_not_let_loose_on_what_it_would_remove_with_the_directory() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~nfs", "share");
    fs::write(pod.path.join("notes.txt"), "by hand").unwrap();
    refused(&pod.unblock(), "notes.txt is a file");
    assert!(leaf.exists());
}

#[test]
fn nothing_mounted_is_touched() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~local-volume", "pv");
    let data = node.data("pv");
    let before = fingerprint(&data);
    bind(&data, &leaf);
    refused(&pod.unblock(), "something is mounted on");
    assert_eq!(fingerprint(&leaf), before);
}

#[test]
fn a_pod_in_which_nothing_stops_kubelet_is_left_to_kubelet() {
    let node = Node::new();
    refused(&node.pod(1).unblock(), "is kubelet running?");
}

#[test]
fn t14_a_directory_that_was_made_anew_is_left_alone() {
    let node = Node::new();
    let pod = node.pod(1);
    pod.volume("kubernetes.io~nfs", "share");
    let orphan = pod.orphan();
    fs::rename(&pod.path, node.disk().join("old")).unwrap();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~nfs", "share");
    let outcome = crate::node::apply_all(&node, vec![orphan], &[&pod], &nodemend_pods::Repair::Unblock);
    refused(&outcome[0], "not the same object");
    assert!(leaf.exists());
}

#[test]
fn t25_kubelet_may_remove_the_same_things_at_the_same_time() {
    let node = Node::new();
    let pods: Vec<_> = (0..200)
        .map(|number| {
            let mut pod = node.pod(number);
            pod.csi("pv-1", None);
            pod.volume("kubernetes.io~nfs", "share");
            pod
        })
        .collect();
    let gone = node.pod(1000);
    let orphan = gone.orphan();
    fs::remove_dir_all(&gone.path).unwrap();
    let mut all: Vec<_> = pods.iter().map(|pod| pod.orphan()).collect();
    all.push(orphan);
    let mut known: Vec<_> = pods.iter().collect();
    known.push(&gone);
    let done = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for pod in pods.iter().rev() {
                    let _ = fs::remove_dir(pod.path.join("volumes/kubernetes.io~nfs/share"));
                    let csi = pod.path.join("volumes/kubernetes.io~csi/pv-1");
                    let _ = fs::remove_dir(csi.join("mount"));
                    if fs::remove_dir(&csi).is_ok() || !csi.exists() {
                        let _ = fs::remove_dir_all(&pod.path);
                    }
                }
            }
        });
        let outcomes = crate::node::apply_all(&node, all, &known, &nodemend_pods::Repair::Unblock);
        done.store(true, Ordering::Relaxed);
        outcomes
    });
    assert_eq!(outcomes.last(), Some(&Outcome::AlreadyGone));
    for outcome in outcomes {
        let fine = match &outcome {
            Outcome::Mended(_) | Outcome::AlreadyGone => true,
            Outcome::Refused(why) => why.contains("nothing in it stops kubelet"),
            Outcome::Failed(_) | Outcome::NotTried => false,
        };
        assert!(fine, "{outcome:?}");
    }
    let left: Vec<_> = pods
        .iter()
        .filter(|pod| pod.path.join("volumes/kubernetes.io~csi/pv-1").exists())
        .collect();
    assert!(left.is_empty(), "{}", left.len());
}
