//! The lab's kubelet and its pod directories are what they say they are, and leave nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_lab::kubelet::{self, Answer, Checkpoint, Era, Kubelet, Phase, Pod};
use nodemend_lab::pods::{Csi, PodCrowd, PodDir, PodScene, Volume, crowd_uid};
use nodemend_lab::tool::{Ran, soon};
use nodemend_lab::{Engine, Node, Options};
use serde_json::Value;

/// A node that is quick to make: nothing here depends on its runtime.
fn node() -> Node {
    let node = Node::start(Options::on(Engine::StandIn)).unwrap();
    node.kubelet_disk(64, None).unwrap();
    node
}

const TOKEN: &str = "--oauth2-bearer";

/// What a client gets: curl's exit code, the status, and the body.
fn get(node: &Node, url: &str, more: &[&str]) -> (i32, String, String) {
    nodemend_lab::tools::find("curl").expect("this test needs curl (package curl)");
    let usual = ["curl", "-sk", "--max-time", "2", "-w", "\n%{http_code}", url];
    let Ran { code, stdout, .. } = node.ran(&[usual.as_slice(), more].concat()).unwrap();
    let (body, status) = stdout.rsplit_once('\n').unwrap_or_default();
    (code, status.to_owned(), body.to_owned())
}

fn uids(body: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(body).unwrap();
    let items = list["items"].as_array().unwrap();
    let uid = |item: &Value| item["metadata"]["uid"].as_str().unwrap().to_owned();
    items.iter().map(uid).collect()
}

#[test]
fn kubelet_lists_its_pods_to_those_who_may_read_them() {
    let node = node();
    let how = Kubelet {
        control_plane: true,
        ..Kubelet::default()
    };
    let pid = node.start_kubelet(&how).unwrap();
    let comm = node.read(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(comm, "kubelet\n");
    let argv = node.process(pid).unwrap().argv;
    assert_eq!(argv[0], "/usr/bin/kubelet");
    assert!(
        argv.contains(&"--root-dir=/var/lib/kubelet".to_owned()),
        "{argv:?}"
    );
    assert!(argv.contains(&"--config=/var/lib/kubelet/config.yaml".to_owned()));

    let pods = [
        Pod::new("web").unwrap(),
        Pod::of_manifest("etcd"),
        Pod::new("done").unwrap().in_phase(Phase::Failed),
    ];
    node.list_pods(&pods).unwrap();
    let url = "https://127.0.0.1:10250/pods";
    assert_eq!(get(&node, url, &[]).1, "401");
    assert_eq!(get(&node, url, &[TOKEN, "another"]).1, "401");
    let token = node.read(kubelet::TOKEN).unwrap();
    let (_, status, body) = get(&node, url, &[TOKEN, &token]);
    assert_eq!(status, "200");
    assert_eq!(uids(&body), pods.each_ref().map(|pod| pod.uid.clone()));
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        list["items"][1]["metadata"]["annotations"]["kubernetes.io/config.hash"],
        pods[1].uid.as_str()
    );
    assert_eq!(pods[1].uid.len(), 32);
    assert_eq!(list["items"][2]["status"]["phase"], "Failed");

    let certificate = [
        "--cert",
        kubelet::ASKING_CERTIFICATE,
        "--key",
        "/etc/kubernetes/pki/apiserver-kubelet-client.key",
    ];
    assert_eq!(get(&node, url, &certificate).1, "200");
    let of_the_node = get(&node, url, &["--cert", kubelet::CLIENT_CERTIFICATE]);
    assert_eq!(of_the_node.1, "403", "as of a real one: {of_the_node:?}");
    let pinned = [
        "--cacert",
        kubelet::SERVING_CERTIFICATE,
        "--resolve",
        "lab-node:10250:127.0.0.1",
        TOKEN,
        &token,
    ];
    let named = node
        .ran(
            &[
                ["curl", "-s", "https://lab-node:10250/healthz"].as_slice(),
                &pinned,
            ]
            .concat(),
        )
        .unwrap();
    assert_eq!(named.stdout, "ok", "its certificate names the node: {named}");

    // More than Go writes in one piece.
    let many: Vec<Pod> = (0..200).map(|n| Pod::new(&format!("pod-{n}")).unwrap()).collect();
    node.list_pods(&many).unwrap();
    assert_eq!(uids(&get(&node, url, &[TOKEN, &token]).2).len(), 200);
    assert!(node.kubelet_was_asked().contains(&"10250 GET /pods".to_owned()));
}

#[test]
fn kubelet_answers_as_it_is_told() {
    let node = node();
    let how = Kubelet {
        read_only_port: true,
        ..Kubelet::default()
    };
    node.start_kubelet(&how).unwrap();
    node.list_pods(&[Pod::new("one").unwrap(), Pod::new("two").unwrap()])
        .unwrap();
    let token = node.read(kubelet::TOKEN).unwrap();
    let plain = "http://127.0.0.1:10255/pods";
    let asked = |url| get(&node, url, &[TOKEN, &token]);
    for (name, answer) in Answer::ALL {
        node.kubelet_answers(answer).unwrap();
        for url in ["https://127.0.0.1:10250/pods", plain] {
            let (code, status, body) = asked(url);
            let parsed = serde_json::from_str::<Value>(&body).ok();
            let says = format!("{name}: {code} {status} {body}");
            match answer {
                Answer::Right => assert_eq!(uids(&body).len(), 2, "{says}"),
                Answer::Empty => assert!(parsed.unwrap()["items"].is_null(), "{says}"),
                Answer::Garbage | Answer::Half => {
                    assert!(code == 0 && status == "200" && parsed.is_none(), "{says}")
                }
                Answer::AnotherKind => assert_eq!(parsed.unwrap()["kind"], "NodeList", "{says}"),
                Answer::CutOff => assert!(code == 18 || code == 56, "{says}"),
                Answer::Refused => assert_eq!(status, "401", "{says}"),
                Answer::Forbidden => assert_eq!(status, "403", "{says}"),
                Answer::Failed => assert_eq!(status, "500", "{says}"),
                Answer::Hang => assert_eq!((code, status.as_str()), (28, "000"), "{says}"),
                Answer::Trickle => assert_eq!((code, status.as_str()), (28, "200"), "{says}"),
            }
        }
    }
    let health = "http://127.0.0.1:10248/healthz";
    assert_eq!(asked(health).2, "ok");
    node.kubelet_health("PLEG is not healthy").unwrap();
    assert_eq!(asked(health).1, "500");
    node.kubelet_health("hang").unwrap();
    assert_eq!(asked(health).0, 28);
}

#[test]
fn the_api_server_mirrors_static_pods_under_other_uids() {
    let node = node();
    node.start_kubelet(&Kubelet::default()).unwrap();
    let (pod, of_manifest) = (Pod::new("web").unwrap(), Pod::of_manifest("etcd"));
    node.list_pods(&[pod.clone(), of_manifest.clone()]).unwrap();
    let url = "https://127.0.0.1:6443/api/v1/pods?fieldSelector=spec.nodeName%3Dlab-node";
    assert_eq!(get(&node, url, &[]).0, 7, "nobody listens unless asked to");
    node.start_api_server().unwrap();
    assert_eq!(get(&node, url, &[]).1, "401");
    let (_, _, body) = get(&node, url, &["--cert", kubelet::CLIENT_CERTIFICATE]);
    let seen = uids(&body);
    assert!(
        seen.contains(&pod.uid) && !seen.contains(&of_manifest.uid),
        "{body}"
    );
    let list: Value = serde_json::from_str(&body).unwrap();
    let mirror = &list["items"][1]["metadata"]["annotations"]["kubernetes.io/config.mirror"];
    assert_eq!(mirror, of_manifest.uid.as_str());
}

#[test]
fn records_of_kubelet_hold_the_uids() {
    let node = node();
    node.start_kubelet(&Kubelet::default()).unwrap();
    let pod = Pod::new("web").unwrap();
    for which in Checkpoint::ALL {
        node.checkpoint(which, &[&pod.uid]).unwrap();
        let text = node.read(Path::new(kubelet::ROOT).join(which.file())).unwrap();
        assert!(text.contains(&pod.uid), "{which:?}: {text}");
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{which:?}: {text}");
    }
}

fn kinds(node: &Node, dir: &PodDir<'_>) -> Vec<(String, String)> {
    let mounts = node.mounts_below(&dir.path).unwrap().into_iter();
    let below = |at: &Path| at.strip_prefix(&dir.path).unwrap().display().to_string();
    mounts.map(|mount| (below(&mount.at), mount.kind)).collect()
}

#[test]
fn volumes_are_mounted_as_their_plugins_do() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("web").unwrap()).unwrap();
    dir.furnish().unwrap();
    let expected = [
        ("kubernetes.io~secret/secret", "tmpfs"),
        ("kubernetes.io~projected/token", "tmpfs"),
        ("kubernetes.io~downward-api/podinfo", "tmpfs"),
        ("kubernetes.io~empty-dir/shm", "tmpfs"),
        ("kubernetes.io~local-volume/local-pv", "ext4"),
        ("kubernetes.io~nfs/nfs-pv", "tmpfs"),
        ("kubernetes.io~csi/csi-pv/mount", "ext4"),
        ("kubernetes.io~csi/csi-old-pv/mount", "ext4"),
        ("ceph.rook.io~rook/flex", "tmpfs"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(at, kind)| (format!("volumes/{at}"), (*kind).to_owned()))
        .collect();
    assert_eq!(kinds(&node, &dir), expected);

    let mounts = node.mounts().unwrap();
    let device = |at: &Path| {
        mounts
            .iter()
            .rfind(|mount| mount.at == *at)
            .unwrap()
            .device
            .clone()
    };
    let root = device(Path::new(kubelet::ROOT));
    assert_eq!(
        device(&dir.leaf("local-pv", &Volume::Local)),
        root,
        "a bind of the same file system"
    );
    let csi = Volume::Csi(Csi::default());
    assert_ne!(device(&dir.leaf("csi-pv", &csi)), root);
    let staged = Csi::default().global_mount("csi-pv").unwrap();
    assert_eq!(device(&staged), device(&dir.leaf("csi-pv", &csi)));
    let config = dir.leaf("config", &Volume::ConfigMap);
    let key = node
        .exec(&["cat", &config.join("key").to_string_lossy()])
        .unwrap();
    assert_eq!(key, "value\n");
    let record = node
        .read(dir.path.join("volumes/kubernetes.io~csi/csi-pv/vol_data.json"))
        .unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["volumeHandle"], Csi::handle("csi-pv"));

    let before = node.bytes(&dir.stores).unwrap();
    node.same_bytes(&dir.stores, &before).unwrap();
    node.write(dir.leaf("nfs-pv", &Volume::Nfs).join("data"), "changed")
        .unwrap();
    assert!(node.same_bytes(&dir.stores, &before).is_err());
}

#[test]
fn a_driver_that_does_not_mount_keeps_its_data_in_the_directory() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("web").unwrap()).unwrap();
    let csi = Volume::Csi(Csi::unmounted());
    let leaf = dir.volume("plain", &csi).unwrap();
    let flex = dir.volume("flex", &Volume::FlexUnmounted).unwrap();
    assert!(kinds(&node, &dir).is_empty());
    for leaf in [leaf, flex] {
        assert_eq!(node.read(leaf.join("data")).unwrap(), "the only copy\n");
    }
}

#[test]
fn subpaths_are_bound_as_directories_and_as_files() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("web").unwrap()).unwrap();
    let local = dir.volume("pv", &Volume::Local).unwrap();
    let a_dir = dir.subpath("pv", 0, &local.join("sub")).unwrap();
    let a_file = dir.subpath("pv", 1, &local.join("data")).unwrap();
    assert_eq!(node.read(a_dir.join("below")).unwrap(), "data of a subpath\n");
    assert!(node.read(&a_file).unwrap().starts_with("the data of"));
    let mounts = node.mounts_below(dir.path.join("volume-subpaths")).unwrap();
    assert_eq!(mounts.len(), 2);
    dir.unmount(&a_file).unwrap();
    assert_eq!(node.read(&a_file).unwrap(), "");
}

#[test]
fn a_block_volume_is_a_device_with_a_lock() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("db").unwrap()).unwrap();
    let link = dir.block_volume("block-pv").unwrap();
    let file = fs::read_link(node.path(&link)).unwrap();
    let read = node.exec(&["head", "-c", "22", &file.to_string_lossy()]).unwrap();
    assert_eq!(read, "data of a block device");
    let loops = node
        .exec(&["losetup", "--list", "--noheadings", "--output", "BACK-FILE"])
        .unwrap();
    assert!(loops.contains(&dir.pod.uid), "{loops}");
    let before = node.bytes(&dir.stores).unwrap();
    node.shell(&format!(
        "printf X | dd of={} bs=1 count=1 conv=notrunc,fsync 2>&1",
        file.display()
    ))
    .unwrap();
    assert!(
        node.same_bytes(&dir.stores, &before).is_err(),
        "a byte of the device is seen"
    );
}

#[test]
fn mounts_are_stacked_nested_hung_and_seen_by_others_only() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("odd").unwrap()).unwrap();
    let scratch = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    let secret = dir.volume("secret", &Volume::Secret).unwrap();
    dir.stack(&secret).unwrap();
    assert!(node.read(secret.join("key")).is_err(), "covered");
    dir.nest_bind(&scratch).unwrap();
    dir.nest_overlay(&scratch).unwrap();
    let hung = scratch.join("hung");
    let holder = dir.hang(&hung).unwrap();
    let inner = hung.join("x").to_string_lossy().into_owned();
    let ask = ["timeout", "--signal", "KILL", "0.5", "stat", &inner];
    assert_eq!(node.ran(&ask).unwrap().code, 137, "nobody answers");

    let private = dir.make("volumes/kubernetes.io~csi/pv/mount").unwrap();
    let other = dir.elsewhere(&private).unwrap();
    assert!(node.mounts_below(&private).unwrap().is_empty());
    let seen = node.mounts_seen_by(other).unwrap();
    let pods = seen.iter().filter(|mount| mount.at.starts_with(kubelet::PODS));
    let pods: Vec<_> = pods.map(|mount| &mount.at).collect();
    assert_eq!(pods, [&private], "nothing else of what was mounted before");
    dir.etc_hosts().unwrap();
    let container = dir.hosts_in_a_container().unwrap();
    let bound = node.mounts_seen_by(container).unwrap();
    let source = format!("pods/{}/etc-hosts", dir.pod.uid);
    assert!(
        bound.iter().any(|mount| mount.root.ends_with(&source)),
        "{bound:?}"
    );

    let expected = [
        ("volumes/kubernetes.io~secret/secret", "tmpfs"),
        ("volumes/kubernetes.io~secret/secret", "tmpfs"),
        ("volumes/kubernetes.io~empty-dir/scratch/deep/er/nested", "ext4"),
        (
            "volumes/kubernetes.io~empty-dir/scratch/overlay/merged",
            "overlay",
        ),
        ("volumes/kubernetes.io~empty-dir/scratch/hung", "fuse"),
    ];
    assert_eq!(
        kinds(&node, &dir),
        expected.map(|(at, kind)| (at.to_owned(), kind.to_owned()))
    );
    // Reads through every mount but the one that hangs.
    let whole = [
        dir.stores.as_slice(),
        &[nodemend_lab::pods::Store::Tree(dir.path.clone())],
    ]
    .concat();
    let before = node.bytes(&whole).unwrap();
    node.same_bytes(&whole, &before).unwrap();
    dir.end_hang(holder).unwrap();
    let dead = node.ran(&["stat", &hung.join("x").to_string_lossy()]).unwrap();
    assert!(dead.stderr.contains("not connected"), "{dead}");
}

#[test]
fn a_pod_leaves_traces_beside_its_directory() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("gone").unwrap()).unwrap();
    let link = dir.logs("app").unwrap();
    let log = fs::read_link(node.path(&link)).unwrap();
    assert!(log.starts_with(dir.pod.log_dir()), "{log:?}");
    let cgroups = dir.cgroups().unwrap();
    assert!(cgroups.iter().all(|dir| dir.is_dir()));
    let pid = dir.process().unwrap();
    let of_the_process = node.read(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(of_the_process.contains(&format!("/kubepods/burstable/pod{}", dir.pod.uid)));
    let held = node.read(cgroups[0].join("cgroup.procs")).unwrap();
    assert_eq!(held.lines().count(), 1);
    node.kill(&[pid]).unwrap();
    node.stop();
    assert!(!cgroups.iter().any(|dir| dir.exists()), "the janitor takes them");
}

#[test]
fn kubelets_root_is_seen_twice_and_copies_follow_it_when_told() {
    let node = node();
    node.share_kubelet_root().unwrap();
    let mut dir = node.pod_dir(&Pod::new("web").unwrap()).unwrap();
    let leaf = dir.volume("secret", &Volume::Secret).unwrap();
    // A copy of the mount namespace, as systemd gives to services with a PrivateTmp.
    let copy = node
        .spawn(&[
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "sleep",
            "infinity",
        ])
        .unwrap();
    let seen = |at: &Path| {
        let mounts = node.mounts_seen_by(copy).unwrap_or_default();
        mounts.iter().any(|mount| mount.at == *at)
    };
    soon("a copy of the mounts", || seen(&leaf)).unwrap();
    dir.unmount(&leaf).unwrap();
    assert!(!seen(&leaf), "it vanishes in the copy");
    let again = dir.volume("token", &Volume::Projected).unwrap();
    node.see_kubelet_root_at("/run/lab/secure/kubelet").unwrap();
    let below = again.strip_prefix(kubelet::ROOT).unwrap();
    let twice = Path::new("/run/lab/secure/kubelet").join(below);
    assert_eq!(node.mounts_below(&twice).unwrap().len(), 1);
}

#[test]
fn pods_in_every_state_have_their_directories() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    assert_eq!(node.names(kubelet::PODS).len(), 4);
    for dir in scene.must_stay() {
        assert_eq!(node.mounts_below(&dir).unwrap().len(), 9, "{dir:?}");
    }
    let sandboxes = node.list_sandboxes().unwrap();
    assert_eq!(sandboxes.iter().filter(|(_, ready)| *ready).count(), 1);
    assert_eq!(sandboxes.len(), 2);
    let before = node.bytes(&scene.kept).unwrap();
    node.same_bytes(&scene.kept, &before).unwrap();
    let orphan = scene.orphan("gone").unwrap();
    assert!(orphan.exists());
    let done = node.housekeeping(Era::V1_30).unwrap();
    assert!(done.is_clean() && !orphan.exists(), "{done:?}");
    node.same_bytes(&scene.kept, &before).unwrap();
}

/// The owner that is killed in the next test.
#[test]
#[ignore = "run by nothing_of_pod_directories_stays_when_the_owner_is_killed"]
fn owner_of_pod_directories_that_will_be_killed() {
    let node = node();
    let mut dir = node.pod_dir(&Pod::new("odd").unwrap()).unwrap();
    dir.furnish().unwrap();
    dir.block_volume("block-pv").unwrap();
    dir.hang(&dir.path.join("volumes/kubernetes.io~empty-dir/scratch/hung"))
        .unwrap();
    dir.elsewhere(&dir.path.join("volumes/kubernetes.io~csi/pv/mount"))
        .unwrap();
    node.start_kubelet(&Kubelet::default()).unwrap();
    println!("OWNED {} {}", dir.pod.uid, node.cgroup());
    sleep(Duration::from_secs(120));
}

/// The files behind the machine's loop devices that have one of these in their names.
fn loops(names: &[&str]) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    devices
        .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok())
        .filter(|file| names.iter().any(|name| file.contains(name)))
        .collect()
}

#[test]
fn nothing_of_pod_directories_stays_when_the_owner_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "owner_of_pod_directories_that_will_be_killed",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let line = lines.find_map(|line| line.split_once("OWNED ").map(|(_, rest)| rest.to_owned()));
    let line = line.expect("the owner could not make a node");
    let (uid, node) = line.split_once(' ').unwrap();
    // kubelet's disk, two staged volumes, a device, and its lock.
    assert_eq!(loops(&[uid, node]).len(), 5);
    owner.kill().unwrap();
    owner.wait().unwrap();
    soon("all loop devices free", || loops(&[uid, node]).is_empty()).unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(uid));
    assert!(!Path::new(kubelet::ROOT).exists() || fs::read_dir(kubelet::ROOT).unwrap().next().is_none());
}

#[test]
fn a_crowd_has_as_many_mounts_as_asked_for() {
    let node = Node::start(Options::on(Engine::StandIn)).unwrap();
    node.kubelet_disk(64, Some(20_000)).unwrap();
    node.start_kubelet(&Kubelet::default()).unwrap();
    let begun = Instant::now();
    let crowd = PodCrowd {
        pods: 500,
        known: 50,
        mounts_each: 5,
    };
    node.pod_crowd(crowd).unwrap();
    println!("made in {:?}", begun.elapsed());
    assert_eq!(node.names(kubelet::PODS).len(), 500);
    assert_eq!(node.mounts_below(kubelet::PODS).unwrap().len(), 2500);
    let token = node.read(kubelet::TOKEN).unwrap();
    let listed = uids(&get(&node, "https://127.0.0.1:10250/pods", &[TOKEN, &token]).2);
    assert_eq!(listed.len(), 50);
    assert!(listed.contains(&crowd_uid(49)) && !listed.contains(&crowd_uid(50)));
}
