//! Purging what has no mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};

use crate::node::{Node, failed, fingerprint, mended, refused, run};

#[test]
fn what_kubelet_makes_again_goes() {
    let node = Node::new();
    let pod = node.pod(1);
    for plugin in ["secret", "projected", "configmap", "downward-api"] {
        let leaf = pod.volume(&format!("kubernetes.io~{plugin}"), "conf");
        fs::create_dir(leaf.join("..2024")).unwrap();
        fs::write(leaf.join("..2024/key"), "value").unwrap();
        symlink("..2024", leaf.join("..data")).unwrap();
    }
    fs::create_dir_all(pod.path.join("containers/app")).unwrap();
    fs::write(pod.path.join("containers/app/0123abcd"), "last words").unwrap();
    mended(&pod.purge());
    assert!(!pod.is_there());
}

#[test]
fn t20_nothing_is_followed_and_nothing_is_opened() {
    let node = Node::new();
    let pod = node.pod(1);
    let data = node.data("outside");
    let leaf = pod.volume("kubernetes.io~empty-dir", "scratch");
    symlink(&data, leaf.join("directory")).unwrap();
    symlink("/", leaf.join("root")).unwrap();
    fs::hard_link(data.join("table.db"), leaf.join("second-name")).unwrap();
    rustix::fs::mknodat(CWD, leaf.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        leaf.join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        null,
    )
    .unwrap();
    let before = fingerprint(&data);
    refused(&pod.purge(), "--accept-ephemeral");
    mended(&pod.purge_accepting());
    assert!(!pod.is_there());
    assert_eq!(fingerprint(&data), before);
}

#[test]
fn t20_what_is_immutable_stays_and_is_named() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~empty-dir", "scratch");
    fs::write(leaf.join("file"), "x").unwrap();
    run(Command::new("chattr").arg("+i").arg(leaf.join("file")));
    failed(&pod.purge_accepting(), "scratch/file");
    assert!(leaf.join("file").exists());
    run(Command::new("chattr").arg("-i").arg(leaf.join("file")));
    mended(&pod.purge_accepting());
}

#[test]
fn t20_a_symlink_in_place_of_a_directory_is_removed_and_not_followed() {
    let node = Node::new();
    let pod = node.pod(1);
    let data = node.data("outside");
    let before = fingerprint(&node.behind);
    symlink(&data, pod.path.join("volume-subpaths")).unwrap();
    fs::create_dir(pod.path.join("volumes/kubernetes.io~csi")).unwrap();
    symlink(&data, pod.path.join("volumes/kubernetes.io~csi/pv-1")).unwrap();
    mended(&pod.purge());
    assert!(!pod.is_there());
    assert_eq!(fingerprint(&node.behind), before);
}

#[test]
fn a_file_that_kubelet_did_not_put_there_is_moved_and_not_removed() {
    let node = Node::new();
    let pod = node.pod(1);
    fs::write(pod.path.join("notes.txt"), "by hand").unwrap();
    fs::create_dir(pod.path.join("volumes/kubernetes.io~nfs")).unwrap();
    fs::write(pod.path.join("volumes/kubernetes.io~nfs/file"), "by hand").unwrap();
    let subpath = pod.subpath("pv");
    fs::write(&subpath, "written to an unmounted subpath").unwrap();
    let said = mended(&pod.purge());
    assert!(said.contains("moved 3 volumes"), "{said}");
    let kept = nodemend_pods::restorable(&node.state, &[node.quarantine()]).unwrap();
    let mut texts: Vec<_> = kept
        .iter()
        .map(|kept| fs::read_to_string(&kept.at).unwrap())
        .collect();
    texts.sort();
    assert_eq!(texts, ["by hand", "by hand", "written to an unmounted subpath"]);
}

#[test]
fn a_driver_that_was_never_told_of_its_inline_volume_is_named() {
    let node = Node::new();
    let mut pod = node.pod(1);
    pod.csi("inline", None);
    pod.csi.get_mut("inline").unwrap().lifecycle = "Ephemeral".to_owned();
    let said = mended(&pod.purge());
    assert!(said.contains("the driver csi.example.com was not told"), "{said}");
    assert!(said.contains("vol_data.json was copied"), "{said}");
}

#[test]
fn every_step_is_in_the_journal_before_it_happens() {
    let node = Node::new();
    let mut pod = node.pod(1);
    fs::write(pod.csi("pv-1", None).join("data"), "x").unwrap();
    crate::node::bind(&node.data("pv"), &pod.volume("kubernetes.io~local-volume", "pv"));
    mended(&pod.purge());
    let journal = fs::read_to_string(node.state.path().join("journal.jsonl")).unwrap();
    let steps: Vec<String> = journal
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["pod"], pod.uid.as_str());
            line["step"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(steps, ["unmount", "quarantine", "removeTree"]);
}
