//! What may be the only copy is moved, never deleted, and can be put back.

use std::fs;
use std::path::Path;

use nodemend_evidence::Outcome;
use nodemend_pods::{Class, Error, Manifest, Purge, Repair, restorable, restore};

use crate::node::{Node, Pod, bind, failed, fingerprint, mended, patiently, refused};

fn with_only_copy(node: &Node) -> Pod<'_> {
    let mut pod = node.pod(1);
    let mount = pod.csi("pv-1", None);
    fs::create_dir(mount.join("deep")).unwrap();
    fs::write(mount.join("deep/table.db"), "written while nothing was mounted").unwrap();
    let share = pod.volume("kubernetes.io~nfs", "share");
    fs::write(share.join("report"), "also").unwrap();
    pod
}

fn shelves(node: &Node) -> Vec<std::path::PathBuf> {
    vec![node.quarantine()]
}

#[test]
fn t10_t22_an_unmounted_directory_with_content_is_moved_and_comes_back_byte_for_byte() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    let volumes = pod.path.join("volumes");
    let before = fingerprint(&volumes);
    let said = mended(&pod.purge());
    assert!(
        said.contains("moved 2 volumes that may be the only copy"),
        "{said}"
    );
    assert!(!pod.is_there());

    let kept = restorable(&node.state, &shelves(&node)).unwrap();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().all(|kept| kept.item.class == Class::MaybeOnlyCopy));
    let name = kept[0].entry.clone();
    let report = patiently(|| restore(&node.state, &shelves(&node), &name, None));
    assert_eq!(report.restored.len(), 0);
    assert!(
        report.kept[0].1.contains("the pod directory is gone"),
        "{report:?}"
    );

    fs::create_dir(&pod.path).unwrap();
    let report = patiently(|| restore(&node.state, &shelves(&node), &name, None));
    assert_eq!((report.restored.len(), report.kept.len()), (2, 0), "{report:?}");
    assert_eq!(below_plugins(&fingerprint(&volumes)), below_plugins(&before));
    assert!(restorable(&node.state, &shelves(&node)).unwrap().is_empty());
    assert_eq!(fs::read_dir(node.quarantine()).unwrap().count(), 0);
}

/// Without the directories of the plugins, which a restore makes anew.
fn below_plugins(
    all: &std::collections::BTreeMap<std::path::PathBuf, String>,
) -> std::collections::BTreeMap<std::path::PathBuf, String> {
    let deep = |path: &Path| path.components().count() > 1;
    let all = all.iter().filter(|(path, _)| deep(path));
    all.map(|(path, said)| (path.clone(), said.clone())).collect()
}

#[test]
fn the_manifest_says_what_is_there() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    mended(&pod.purge());
    let kept = restorable(&node.state, &shelves(&node)).unwrap();
    let manifest = kept[0].at.with_file_name("manifest.json");
    let manifest: Manifest = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!((&manifest.uid, &manifest.pod), (&pod.uid, &pod.path));
    assert_eq!(
        manifest.items[0].place,
        Path::new("volumes/kubernetes.io~csi/pv-1")
    );
    assert_eq!(manifest.items[0].csi.as_ref().unwrap().handle, "handle-pv-1");
    assert!(manifest.by.contains(&format!("process {}", std::process::id())));
}

#[test]
fn a_place_that_is_taken_is_left_alone_and_another_directory_can_be_named() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    let before = fingerprint(&pod.path.join("volumes"));
    mended(&pod.purge());
    let mut again = node.pod(1);
    again.csi("pv-1", None);
    again.volume("kubernetes.io~nfs", "share");
    let report = patiently(|| restore(&node.state, &shelves(&node), pod.uid.as_str(), None));
    assert!(
        report
            .kept
            .iter()
            .all(|(_, why)| why.contains("the place is taken")),
        "{report:?}"
    );
    let to = node.disk().join("rescued");
    fs::create_dir(&to).unwrap();
    let report = patiently(|| restore(&node.state, &shelves(&node), pod.uid.as_str(), Some(&to)));
    assert_eq!(report.restored.len(), 2, "{report:?}");
    let rescued = fingerprint(&to.join(pod.uid.as_str()).join("volumes"));
    assert_eq!(below_plugins(&rescued), below_plugins(&before));
}

#[test]
fn one_thing_of_several_can_be_put_back_and_a_wrong_name_is_told() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    mended(&pod.purge());
    fs::create_dir(&pod.path).unwrap();
    let entry = restorable(&node.state, &shelves(&node)).unwrap()[0].entry.clone();
    let known = patiently(|| match restore(&node.state, &shelves(&node), "nonsense", None) {
        Err(Error::NotKept { known, .. }) => Ok(known),
        Err(error) => Err(error.to_string()),
        Ok(report) => Err(format!("{report:?}")),
    });
    assert_eq!(known, entry);
    let report = patiently(|| restore(&node.state, &shelves(&node), &format!("{entry}/1"), None));
    assert_eq!(report.restored.len(), 1);
    assert!(pod.path.join("volumes/kubernetes.io~nfs/share/report").exists());
    assert_eq!(restorable(&node.state, &shelves(&node)).unwrap().len(), 1);
}

#[test]
fn t10_what_was_below_a_mount_is_kept_too() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~nfs", "share");
    fs::write(leaf.join("below"), "written before it was mounted").unwrap();
    let data = node.data("pv");
    let before = fingerprint(&node.behind);
    bind(&data, &leaf);
    mended(&pod.purge());
    assert!(!pod.is_there());
    let kept = restorable(&node.state, &shelves(&node)).unwrap();
    let below = fs::read_to_string(kept[0].at.join("below")).unwrap();
    assert_eq!(below, "written before it was mounted");
    assert_eq!(fingerprint(&node.behind), before);
}

#[test]
fn t6_no_mount_moves_along_into_the_quarantine() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    let inside = pod.path.join("volumes/kubernetes.io~csi/pv-1/mount/deep/inside");
    fs::create_dir(&inside).unwrap();
    bind(&node.data("pv"), &inside);
    let before = fingerprint(&node.behind);
    mended(&pod.purge());
    assert!(crate::node::mounted_below(&node.root).is_empty());
    assert_eq!(fingerprint(&node.behind), before);
    assert_eq!(restorable(&node.state, &shelves(&node)).unwrap().len(), 2);
}

#[test]
fn t6_what_is_mounted_in_the_quarantine_by_now_is_not_put_back() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    mended(&pod.purge());
    fs::create_dir(&pod.path).unwrap();
    let kept = restorable(&node.state, &shelves(&node)).unwrap();
    bind(&node.data("pv"), &kept[0].at.join("mount"));
    let report = patiently(|| restore(&node.state, &shelves(&node), &kept[0].entry, None));
    assert_eq!(report.kept.len(), 1, "{report:?}");
    assert!(
        report.kept[0].1.contains("something is mounted here"),
        "{report:?}"
    );
}

#[test]
fn t26_a_quarantine_in_pods_or_on_another_mount_is_refused_before_anything_changes() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    let other_disk = node.ground.as_ref().unwrap().directory().unwrap();
    let link = node.disk().join("link");
    std::os::unix::fs::symlink(node.root.join("pods"), &link).unwrap();
    for (place, why) in [
        (node.root.join("pods/quarantine"), "is in pods/"),
        (link.join("quarantine"), "is in pods/"),
        (pod.path.join("quarantine"), "is in pods/"),
        (other_disk, "is not on the mount"),
    ] {
        let before = fingerprint(&pod.path.join("volumes"));
        let outcome = pod.repair(&Repair::Purge(Purge {
            quarantine: Some(place),
            ..Purge::default()
        }));
        refused(&outcome, why);
        assert_eq!(fingerprint(&pod.path.join("volumes")), before);
    }
    assert_eq!(fs::read_dir(node.root.join("pods")).unwrap().count(), 1);
}

#[test]
fn a_signal_ends_the_run_between_pods() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    node.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(pod.purge(), Outcome::NotTried);
    assert!(pod.is_there());
}

#[test]
fn what_stays_after_a_move_is_said_and_a_second_run_carries_on() {
    let node = Node::new();
    let pod = with_only_copy(&node);
    let stuck = pod.volume("kubernetes.io~configmap", "conf").join("stuck");
    fs::write(&stuck, "x").unwrap();
    crate::node::run(std::process::Command::new("chattr").arg("+i").arg(&stuck));
    failed(&pod.purge(), "immutable");
    assert_eq!(restorable(&node.state, &shelves(&node)).unwrap().len(), 2);
    crate::node::run(std::process::Command::new("chattr").arg("-i").arg(&stuck));
    mended(&pod.purge());
    assert!(!pod.is_there());
    assert_eq!(restorable(&node.state, &shelves(&node)).unwrap().len(), 2);
}

/// A pod whose purge copied the record of a volume, and whose directory kubelet has made again.
fn with_kept_record(node: &Node) -> (Pod<'_>, std::path::PathBuf) {
    let mut pod = node.pod(1);
    let record = pod.csi("pv-1", None).with_file_name("vol_data.json");
    mended(&pod.purge());
    assert_eq!(restorable(&node.state, &shelves(node)).unwrap().len(), 1);
    fs::create_dir(&pod.path).unwrap();
    (pod, record)
}

#[test]
fn a_record_that_was_copied_twice_is_put_back_once() {
    let node = Node::new();
    let (pod, record) = with_kept_record(&node);
    // The first run was killed behind its copy, so a second one made another.
    let mut again = node.pod(1);
    again.csi("pv-1", None);
    mended(&again.purge());
    let kept = restorable(&node.state, &shelves(&node)).unwrap();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let copy = fs::read(&kept[0].at).unwrap();
    fs::create_dir(&pod.path).unwrap();
    let report = patiently(|| restore(&node.state, &shelves(&node), pod.uid.as_str(), None));
    assert_eq!((report.restored.len(), report.kept.len()), (2, 0), "{report:?}");
    assert!(report.restored.iter().all(|(_, to)| *to == record));
    assert_eq!(fs::read(&record).unwrap(), copy);
    assert!(restorable(&node.state, &shelves(&node)).unwrap().is_empty());
}

#[test]
fn a_record_that_is_not_the_same_stays_with_the_one_at_its_place_and_both_are_named() {
    let node = Node::new();
    let (pod, record) = with_kept_record(&node);
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    for there in [r#"{"volumeHandle":"another"}"#, ""] {
        fs::write(&record, there).unwrap();
        let before = fingerprint(&pod.path);
        let kept = restorable(&node.state, &shelves(&node)).unwrap()[0].at.clone();
        let copy = fs::read(&kept).unwrap();
        let report = patiently(|| restore(&node.state, &shelves(&node), pod.uid.as_str(), None));
        assert_eq!((report.restored.len(), report.kept.len()), (0, 1), "{report:?}");
        let (at, why) = &report.kept[0];
        assert_eq!(*at, kept);
        for path in [&kept, &record] {
            assert!(why.contains(&path.display().to_string()), "{why}");
        }
        assert_eq!(fingerprint(&pod.path), before);
        assert_eq!(fs::read(&kept).unwrap(), copy);
    }
}

#[test]
fn a_symlink_at_the_place_of_a_record_is_not_compared_but_left() {
    let node = Node::new();
    let (pod, record) = with_kept_record(&node);
    let kept = restorable(&node.state, &shelves(&node)).unwrap()[0].at.clone();
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&kept, &record).unwrap();
    let report = patiently(|| restore(&node.state, &shelves(&node), pod.uid.as_str(), None));
    assert!(report.kept[0].1.contains("the place is taken"), "{report:?}");
    assert!(kept.exists() && record.is_symlink());
}

#[test]
fn a_volume_whose_name_is_no_text_is_moved_and_comes_back_under_that_name() {
    use std::os::unix::ffi::OsStrExt;
    let node = Node::new();
    let pod = node.pod(1);
    let name = std::ffi::OsStr::from_bytes(b"pv-\xff\n\\x");
    let leaf = pod.path.join("volumes/kubernetes.io~nfs").join(name);
    fs::create_dir_all(&leaf).unwrap();
    fs::write(leaf.join("data"), "the only copy").unwrap();
    mended(&pod.purge());
    let kept = restorable(&node.state, &shelves(&node)).unwrap();
    assert_eq!(kept[0].was, leaf);
    let json = serde_json::to_value(&kept).unwrap();
    let was = json[0]["was"].as_str().unwrap();
    assert!(was.ends_with("/pv-\\xff\n\\x5cx"), "{was}");
    fs::create_dir(&pod.path).unwrap();
    let report = patiently(|| restore(&node.state, &shelves(&node), pod.uid.as_str(), None));
    assert!(report.kept.is_empty(), "{report:?}");
    assert_eq!(fs::read_to_string(leaf.join("data")).unwrap(), "the only copy");
}
