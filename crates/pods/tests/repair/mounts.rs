//! Purging what has mounts: each byte behind them stays, and nothing is taken from anybody.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::node::{Node, Pod, bind, failed, fingerprint, mended, mounted_below, refused, tmpfs};

/// Runs a script that says `ready` and then waits for its end.
pub(crate) fn started(script: &str, arguments: &[&Path]) -> Ended {
    let mut child = Command::new("sh")
        .args(["-c", &format!("{script}\necho ready\nexec sleep 600"), "sh"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    Ended(child)
}

pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn t1_what_is_behind_a_bind_mount_of_the_same_file_system_stays() {
    let node = Node::new();
    let mut pod = node.pod(1);
    let data = node.data("pv");
    let before = fingerprint(&node.behind);
    bind(&data, &pod.volume("kubernetes.io~local-volume", "pv"));
    bind(&data.join("deep"), &{
        let subpath = pod.subpath("pv");
        fs::create_dir(&subpath).unwrap();
        subpath
    });
    bind(&data, &pod.csi("pv-1", None));
    let said = mended(&pod.purge());
    assert!(!pod.is_there(), "{said}");
    assert_eq!(fingerprint(&node.behind), before);
    assert!(mounted_below(&node.root).is_empty());
}

#[test]
fn t2_stacked_mounts_are_all_unmounted() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~local-volume", "pv");
    for name in ["a", "b", "a", "c"] {
        bind(&node.data(name), &leaf);
    }
    let over = pod.path.join("volumes/kubernetes.io~local-volume");
    bind(&node.data("d"), &over);
    let before = fingerprint(&node.behind);
    mended(&pod.purge());
    assert!(!pod.is_there());
    assert_eq!(fingerprint(&node.behind), before);
}

#[test]
fn t3_a_file_behind_a_bind_mount_is_neither_emptied_nor_removed() {
    let node = Node::new();
    let pod = node.pod(1);
    let file = node.data("pv").join("table.db");
    let before = fingerprint(&node.behind);
    let subpath = pod.subpath("pv");
    fs::write(&subpath, "").unwrap();
    bind(&file, &subpath);
    refused(&pod.unblock(), "something is mounted on");
    mended(&pod.purge());
    assert!(!pod.is_there());
    assert_eq!(fingerprint(&node.behind), before);
}

#[test]
fn t4_mounts_deep_inside_an_empty_dir_are_found() {
    let node = Node::new();
    let pod = node.pod(1);
    let deep = pod.volume("kubernetes.io~empty-dir", "shared").join("a/b/c d");
    fs::create_dir_all(&deep).unwrap();
    bind(&node.data("pv"), &deep);
    bind(&node.data("other"), &deep.join("deep"));
    let disk = node
        .ground
        .as_ref()
        .unwrap()
        .disk(nodemend_lab::disk::Format::Ext4, 32)
        .unwrap();
    fs::write(disk.join("file"), "on a disk").unwrap();
    let place = pod.volume("kubernetes.io~empty-dir", "shared").join("disk");
    fs::create_dir(&place).unwrap();
    bind(&disk, &place);
    let before = (fingerprint(&node.behind), fingerprint(&disk));
    refused(&pod.purge(), "--accept-ephemeral");
    mended(&pod.purge_accepting());
    assert!(!pod.is_there());
    assert_eq!((fingerprint(&node.behind), fingerprint(&disk)), before);
}

#[test]
fn t5_a_mount_that_only_another_namespace_sees_keeps_the_pod() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~local-volume", "pv");
    let data = node.data("pv");
    let other = started(
        r#"exec unshare -m --propagation private sh -c 'mount --bind "$1" "$2"; echo ready; exec sleep 600' sh "$1" "$2""#,
        &[&data, &leaf],
    );
    let pid = other.0.id();
    let table = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(table().contains("local-volume/pv"), "{}", table());
    for outcome in [pod.unblock(), pod.purge()] {
        refused(&outcome, &format!("of process {pid} ("));
    }
    assert!(table().contains("local-volume/pv"), "it was torn out");
    assert!(leaf.exists());
}

#[test]
fn t5_something_of_the_pod_that_is_mounted_elsewhere_keeps_it() {
    let node = Node::new();
    let pod = node.pod(1);
    let elsewhere = node.disk().join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    bind(&pod.path.join("etc-hosts"), &elsewhere);
    refused(&pod.purge(), "is something of it, mounted here");
    assert!(pod.path.join("etc-hosts").exists());
}

#[test]
fn t7_t8_a_holder_is_named_and_nothing_is_unmounted_lazily() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~local-volume", "pv");
    bind(&node.data("pv"), &leaf);
    fs::write(pod.volume("kubernetes.io~configmap", "conf").join("x"), "x").unwrap();
    let before = fingerprint(&pod.path);
    let holder = started(r#"cd "$1""#, &[&leaf]);
    let outcome = pod.purge();
    failed(&outcome, &format!("busy: process {} (", holder.0.id()));
    assert_eq!(fingerprint(&pod.path), before);
    assert_eq!(mounted_below(&pod.path), [leaf]);
    drop(holder);
    mended(&pod.purge());
    assert!(!pod.is_there());
}

#[test]
fn t8_t9_a_fuse_that_never_answers_holds_up_nothing_and_neither_does_one_that_died() {
    let node = Node::new();
    for died in [false, true] {
        purge_with_fuse(&node.pod(1), died);
    }
}

fn purge_with_fuse(pod: &Pod<'_>, died: bool) {
    let leaf = pod.volume("kubernetes.io~csi", "pv");
    fs::create_dir(leaf.join("mount")).unwrap();
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(
        Some("dead"),
        &leaf.join("mount"),
        Some("fuse"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    if died {
        drop(device);
        let error = fs::read_dir(leaf.join("mount")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    }
    let start = Instant::now();
    refused(&pod.unblock(), "something is mounted on");
    mended(&pod.purge());
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
    assert!(!pod.is_there());
}

#[test]
fn t12_another_pod_of_the_same_volume_and_the_global_mount_stay() {
    let node = Node::new();
    let (old, new) = (node.pod(1), node.pod(2));
    let disk = node
        .ground
        .as_ref()
        .unwrap()
        .disk(nodemend_lab::disk::Format::Ext4, 32)
        .unwrap();
    fs::write(disk.join("file"), "in use").unwrap();
    let global = node.root.join("plugins/kubernetes.io/rbd/mounts/image");
    fs::create_dir_all(&global).unwrap();
    bind(&disk, &global);
    for pod in [&old, &new] {
        bind(&global, &pod.volume("kubernetes.io~rbd", "pv"));
    }
    mended(&old.purge());
    assert!(!old.is_there());
    let in_new = new.path.join("volumes/kubernetes.io~rbd/pv");
    assert_eq!(mounted_below(&node.root), [global.clone(), in_new.clone()]);
    for place in [&global, &in_new] {
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "in use");
    }
}

#[test]
fn t24_what_is_in_memory_is_lost_by_an_unmount_and_so_needs_a_word() {
    let node = Node::new();
    let pod = node.pod(1);
    let secret = pod.volume("kubernetes.io~secret", "token");
    tmpfs(&secret);
    fs::write(secret.join("token"), "made by the API server").unwrap();
    let cache = pod.volume("kubernetes.io~empty-dir", "cache");
    tmpfs(&cache);
    fs::write(cache.join("file"), vec![1; 3000]).unwrap();
    refused(&pod.purge(), "1 entries with 3000 bytes");
    refused(&pod.purge(), "in memory");
    assert!(cache.join("file").exists());
    mended(&pod.purge_accepting());
    assert!(!pod.is_there());
}

#[test]
fn t24_a_secret_in_memory_needs_no_word_also_with_its_subpath() {
    let node = Node::new();
    let pod = node.pod(1);
    let secret = pod.volume("kubernetes.io~secret", "token");
    tmpfs(&secret);
    fs::write(secret.join("token"), "made by the API server").unwrap();
    let subpath = pod.subpath("token");
    fs::write(&subpath, "").unwrap();
    bind(&secret.join("token"), &subpath);
    mended(&pod.purge());
    assert!(!pod.is_there());
}

#[test]
fn t27_a_namespace_that_follows_ours_loses_the_mount_with_us() {
    let node = Node::new();
    mount_change(node.disk(), MountPropagationFlags::SHARED).unwrap();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~local-volume", "pv");
    bind(&node.data("pv"), &leaf);
    let before = fingerprint(&node.behind);
    let other = started(
        "exec unshare -m --propagation slave sh -c 'echo ready; exec sleep 600'",
        &[],
    );
    let pid = other.0.id();
    let table = || fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(table().contains("local-volume/pv"));
    mended(&pod.purge());
    assert!(!table().contains("local-volume/pv"));
    assert_eq!(fingerprint(&node.behind), before);
}

#[test]
fn t27_a_namespace_with_a_copy_of_its_own_keeps_the_pod() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~local-volume", "pv");
    bind(&node.data("pv"), &leaf);
    let other = started(
        "exec unshare -m --propagation private sh -c 'echo ready; exec sleep 600'",
        &[],
    );
    let pid = other.0.id();
    refused(&pod.purge(), &format!("of process {pid} ("));
    assert_eq!(mounted_below(&pod.path), [leaf]);
}
