//! kubelet's own clean-up, era by era: for each reason why orphans stick, what it says, and that it finishes when what blocks it is gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;

use nodemend_lab::kubelet::{Era, Kubelet, Pass, Pod};
use nodemend_lab::pods::{Csi, PodDir, Volume};
use nodemend_lab::{Engine, Node, Options};

fn node() -> Node {
    let node = Node::start(Options::on(Engine::StandIn)).unwrap();
    node.kubelet_disk(64, None).unwrap();
    node.start_kubelet(&Kubelet::default()).unwrap();
    node
}

fn orphan(node: &Node) -> PodDir<'_> {
    node.pod_dir(&Pod::new("gone").unwrap()).unwrap()
}

fn only(pass: &Pass) -> &str {
    assert_eq!(pass.complaints.len(), 1, "{pass:?}");
    &pass.complaints[0]
}

/// The next round removes the directory, and there is nothing to complain of.
fn finishes(node: &Node, dir: &PodDir<'_>, era: Era) {
    let done = node.housekeeping(era).unwrap();
    assert!(done.is_clean() && done.log.is_none(), "{}: {done:?}", era.name());
    assert!(!dir.exists(), "{}", era.name());
}

/// Each era that removes volumes by rmdir.
const RMDIR: [Era; 3] = [Era::V1_20, Era::V1_22, Era::V1_30];

#[test]
fn an_orphan_without_volumes_goes_by_itself_and_known_pods_stay() {
    let node = node();
    let known = Pod::new("known").unwrap();
    let kept = node.pod_dir(&known).unwrap();
    node.list_pods(&[known]).unwrap();
    for (_, era) in Era::ALL {
        let dir = orphan(&node);
        dir.etc_hosts().unwrap();
        dir.container("app").unwrap();
        if era == Era::UpTo1_5 {
            let done = node.housekeeping(era).unwrap();
            assert!(done.wiped.contains(&dir.path), "it would remove everything");
            assert!(dir.exists(), "the lab only says so");
            continue;
        }
        finishes(&node, &dir, era);
        assert!(kept.exists());
    }
}

#[test]
fn before_1_20_any_volume_directory_is_enough_to_wait() {
    let node = node();
    for (era, more) in [
        (Era::V1_6, ""),
        (Era::V1_8, " : There were a total of 1 errors similar to this."),
    ] {
        let dir = orphan(&node);
        let empty = dir.make("volumes/kubernetes.io~secret/token").unwrap();
        let done = node.housekeeping(era).unwrap();
        let uid = &dir.pod.uid;
        let said = format!("Orphaned pod \"{uid}\" found, but volume paths are still present on disk");
        assert_eq!(only(&done), said);
        assert!(done.log.unwrap().contains(&format!("{said}{more}")));
        fs::remove_dir(node.path(&empty)).unwrap();
        finishes(&node, &dir, era);
    }
    let dir = orphan(&node);
    dir.make("volume-subpaths/pv/app/0").unwrap();
    let done = node.housekeeping(Era::V1_8).unwrap();
    assert!(only(&done).ends_with("volume subpaths are still present on disk"));
}

#[test]
fn a_leftover_record_of_a_driver_is_reason_one() {
    let node = node();
    for era in RMDIR {
        let mut dir = orphan(&node);
        let leaf = dir.volume("pv", &Volume::Csi(Csi::default())).unwrap();
        dir.unmount(&leaf).unwrap();
        let done = node.housekeeping(era).unwrap();
        if era == Era::V1_20 {
            // It asks for the leaf only, and leaves the rest to a removal of everything on one file system.
            assert!(done.is_clean() && !dir.exists(), "{done:?}");
            continue;
        }
        let uid = &dir.pod.uid;
        let said = if era == Era::V1_22 {
            "error not a directory occurred when trying to remove the volumes dir"
        } else {
            "error occurred when trying to remove the volumes dir: not a directory"
        };
        assert_eq!(only(&done), format!("orphaned pod \"{uid}\" found, but {said}"));
        let log = done.log.unwrap();
        assert!(
            log.contains(&format!("err=\"orphaned pod \\\"{uid}\\\" found")),
            "{log}"
        );
        assert!(log.ends_with("numErrs=1"), "{log}");
        let again = node.housekeeping(era).unwrap();
        assert_eq!(again.complaints, done.complaints, "for ever");
        fs::remove_file(node.path(leaf.with_file_name("vol_data.json"))).unwrap();
        finishes(&node, &dir, era);
    }
}

#[test]
fn files_that_were_left_are_reason_two() {
    let node = node();
    for era in RMDIR {
        let mut dir = orphan(&node);
        let leaf = dir.volume("scratch", &Volume::EmptyDir).unwrap();
        let done = node.housekeeping(era).unwrap();
        let at = format!(
            "failed to rmdir() volume at path {}: directory not empty",
            leaf.display()
        );
        assert!(only(&done).ends_with(&at), "{done:?}");
        fs::remove_dir_all(node.path(&leaf)).unwrap();
        finishes(&node, &dir, era);
    }
}

#[test]
fn what_is_still_mounted_is_reason_three_and_the_log_is_silent() {
    let node = node();
    for era in RMDIR {
        let mut dir = orphan(&node);
        let leaf = dir.volume("nfs", &Volume::Nfs).unwrap();
        let before = node.bytes(&dir.stores).unwrap();
        let done = node.housekeeping(era).unwrap();
        assert!(done.complaints.is_empty() && done.log.is_none(), "{done:?}");
        assert!(
            done.whispers[0].contains("volumes are not cleaned up"),
            "{done:?}"
        );
        dir.unmount(&leaf).unwrap();
        finishes(&node, &dir, era);
        node.same_bytes(&dir.stores, &before).unwrap();
    }
}

#[test]
fn a_file_as_a_subpath_is_reason_four_until_1_30() {
    let node = node();
    for era in [Era::V1_22, Era::V1_30] {
        let dir = orphan(&node);
        dir.write("volume-subpaths/config/app/0", "").unwrap();
        if era == Era::V1_30 {
            finishes(&node, &dir, era);
            continue;
        }
        let done = node.housekeeping(era).unwrap();
        let file = dir.path.join("volume-subpaths/config/app/0");
        let why = format!(
            "failed to rmdir() subpath at path {}: not a directory",
            file.display()
        );
        assert!(only(&done).ends_with(&why), "{done:?}");
        fs::remove_file(node.path(&file)).unwrap();
        finishes(&node, &dir, era);
    }
}

#[test]
fn a_mount_that_kubelet_does_not_see_is_reason_five() {
    let node = node();
    for (era, leaf) in [(Era::V1_22, "local"), (Era::V1_30, "scratch")] {
        let mut dir = orphan(&node);
        // A bind of the same file system escapes the comparison of devices; a mount deeper than the leaf escapes both.
        let (at, volume) = if leaf == "local" {
            let at = dir.volume(leaf, &Volume::Local).unwrap();
            (at.clone(), at)
        } else {
            let scratch = dir.volume(leaf, &Volume::EmptyDir).unwrap();
            fs::remove_file(node.path(scratch.join("scratch"))).unwrap();
            fs::remove_file(node.path(scratch.join("deep/er/file"))).unwrap();
            (dir.nest_bind(&scratch).unwrap(), scratch)
        };
        let before = node.bytes(&dir.stores).unwrap();
        let done = node.housekeeping(era).unwrap();
        assert!(!done.complaints.is_empty() && dir.exists(), "{done:?}");
        let why = if leaf == "local" {
            "device or resource busy"
        } else {
            "directory not empty"
        };
        assert!(done.complaints[0].ends_with(why), "{done:?}");
        dir.unmount(&at).unwrap();
        if leaf != "local" {
            fs::remove_dir_all(node.path(&volume)).unwrap();
        }
        finishes(&node, &dir, era);
        node.same_bytes(&dir.stores, &before).unwrap();
    }
}

#[test]
fn every_name_is_a_pod_to_kubelet() {
    let node = node();
    let quarantine = orphan(&node).path.with_file_name("quarantine");
    node.write(
        quarantine.join("volumes/kubernetes.io~nfs/pv/data"),
        "the only copy\n",
    )
    .unwrap();
    let done = node.housekeeping(Era::V1_30).unwrap();
    assert!(
        only(&done).starts_with("orphaned pod \"quarantine\" found"),
        "{done:?}"
    );
    node.write(quarantine.join("of-the-rest"), "").unwrap();
    fs::remove_dir_all(node.path(quarantine.join("volumes"))).unwrap();
    assert!(node.housekeeping(Era::V1_30).unwrap().is_clean());
    assert!(!node.path(&quarantine).exists());
}
