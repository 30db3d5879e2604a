//! What is mounted in a pod directory, or of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nodemend_lab::disk::Format;
use nodemend_lab::old_kernel::Kernel;
use nodemend_pods::{Class, Content, Layout, LayoutOptions, PodDir, Tie};

use crate::room::{Dead, Elsewhere, ONE, Room, TWO, bind, counted, fill, look, tmpfs, told};

/// Tie, mount point and whether another namespace has it.
fn mounts(pod: &PodDir) -> Vec<(Tie, PathBuf, bool)> {
    let told = |mount: &nodemend_pods::PodMount| {
        (mount.tie, mount.mount.mountpoint.clone(), mount.seen_by.is_some())
    };
    pod.mounts.iter().map(told).collect()
}

const LOCAL: &str = "volumes/kubernetes.io~local-volume/pv";

#[test]
fn t1_a_bind_mount_of_the_same_file_system_is_a_mount() {
    let room = Room::new();
    fill(&room.disk.join("data"), &["precious"]);
    let leaf = room.dir(LOCAL, &[]);
    bind(&room.disk.join("data"), &leaf);
    let pod = room.first();
    assert_eq!(told(&pod, LOCAL), (Class::DurableElsewhere, Content::Mounted));
    assert_eq!(mounts(&pod), [(Tie::In, leaf, false)]);
    assert_eq!(&*pod.mounts[0].mount.root, Path::new("/data"));
}

#[test]
fn t2_stacked_mounts_are_told_each() {
    let room = Room::new();
    fill(&room.disk.join("data"), &["precious"]);
    let leaf = room.dir(LOCAL, &["below both"]);
    bind(&room.disk.join("data"), &leaf);
    tmpfs(&leaf);
    let pod = room.first();
    let stack = [(Tie::In, leaf.clone(), false), (Tie::In, leaf, false)];
    assert_eq!(mounts(&pod), stack);
    assert_eq!(
        told(&pod, LOCAL),
        (Class::Ephemeral, Content::Mounted),
        "the tmpfs would be lost"
    );
}

#[test]
fn t3_a_file_that_is_bound_onto_a_subpath_is_a_mount() {
    let room = Room::new();
    fill(&room.disk.join("data"), &["my.cnf"]);
    let dir = room.dir("volume-subpaths/conf/main", &[]);
    fs::write(dir.join("0"), "").unwrap();
    fs::write(dir.join("1"), "").unwrap();
    bind(&room.disk.join("data/my.cnf"), &dir.join("0"));
    let pod = room.first();
    let mounted = (Class::DurableElsewhere, Content::Mounted);
    assert_eq!(told(&pod, "volume-subpaths/conf/main/0"), mounted);
    let left = (Class::NothingLost, Content::Other("an empty file".to_owned()));
    assert_eq!(told(&pod, "volume-subpaths/conf/main/1"), left);
}

#[test]
fn t4_what_is_mounted_inside_an_empty_dir_is_counted_as_one_entry_and_not_entered() {
    let room = Room::new();
    fill(&room.disk.join("data"), &["precious", "too"]);
    let deep = room.dir("volumes/kubernetes.io~empty-dir/x/a/b", &["file"]);
    for name in ["bind", "dead"] {
        fs::create_dir(deep.join(name)).unwrap();
    }
    fs::write(deep.join("bound"), "").unwrap();
    bind(&room.disk.join("data"), &deep.join("bind"));
    bind(&room.disk.join("data/too"), &deep.join("bound"));
    let _dead = Dead::mount(&deep.join("dead"));
    let pod = room.first();
    let (class, content) = told(&pod, "volumes/kubernetes.io~empty-dir/x");
    assert_eq!((class, counted(&content)), (Class::Ephemeral, (6, 7)));
    let expected = ["bind", "bound", "dead"].map(|name| (Tie::In, deep.join(name), false));
    assert_eq!(mounts(&pod), expected);
    assert_eq!(pod.unread, Vec::<String>::new());
}

#[test]
fn t5_a_mount_that_only_another_namespace_has_is_found_with_who_has_it() {
    let room = Room::new();
    let leaf = room.dir(LOCAL, &[]);
    let shell = Elsewhere::with(&format!("mount -t tmpfs x {}", leaf.display()));
    let pod = room.first();
    assert_eq!(mounts(&pod), [(Tie::In, leaf, true)]);
    let seer = pod.mounts[0].seen_by.as_ref().unwrap();
    assert_eq!((seer.pid, seer.comm.as_str()), (shell.pid(), "sh"));
    assert_eq!(
        told(&pod, LOCAL),
        (Class::NothingLost, Content::Empty),
        "what lies here is empty"
    );
}

#[test]
fn t5_a_container_that_has_the_hosts_file_of_a_pod_has_something_of_it() {
    let room = Room::new();
    room.dir("", &["etc-hosts"]);
    let from = room.pod(ONE).join("etc-hosts");
    let _shell = Elsewhere::with(&format!("mount --bind {} /etc/hosts", from.display()));
    let pod = room.first();
    assert_eq!(mounts(&pod), [(Tie::From, PathBuf::from("/etc/hosts"), true)]);
}

#[test]
fn what_is_bound_out_of_a_pod_is_of_it_on_every_file_system() {
    for format in Format::ALL {
        let room = Room::on(format, 320);
        let hosts = room.dir("", &["etc-hosts"]).join("etc-hosts");
        let out = room.ground.directory().unwrap().join("out");
        fs::write(&out, "").unwrap();
        bind(&hosts, &out);
        // That of a btrfs has its subvolume in front of it, and a device that lstat does not know.
        let leaf = room.dir(LOCAL, &[]);
        fill(&room.disk.join("data"), &["precious"]);
        bind(&room.disk.join("data"), &leaf);
        let pod = room.first();
        assert_eq!(
            mounts(&pod),
            [(Tie::From, out, false), (Tie::In, leaf, false)],
            "{format:?}"
        );
    }
}

#[test]
fn a_root_in_a_subvolume_is_told_by_the_mount_table_and_not_by_device_numbers() {
    let mut room = Room::on(Format::Btrfs, 320);
    let made = |args: &[&str]| {
        assert!(
            Command::new("btrfs")
                .args(args)
                .output()
                .unwrap()
                .status
                .success()
        )
    };
    let sub = room.disk.join("sub");
    made(&["subvolume", "create", sub.to_str().unwrap()]);
    room.root = sub.join("kubelet");
    let hosts = room.dir("", &["etc-hosts"]).join("etc-hosts");
    let out = room.ground.directory().unwrap().join("out");
    fs::write(&out, "").unwrap();
    bind(&hosts, &out);
    let pod = room.first();
    assert_eq!(mounts(&pod), [(Tie::From, out, false)]);
    assert_eq!(
        pod.mounts[0].mount.root.to_str().unwrap(),
        format!("/sub/kubelet/pods/{ONE}/etc-hosts")
    );
}

#[test]
fn t9_a_dead_file_system_is_not_asked_wherever_it_is_mounted() {
    let room = Room::new();
    for below in [
        "volumes/kubernetes.io~nfs/share",
        "volumes/kubernetes.io~csi/pvc/mount",
        "volumes/kubernetes.io~csi/whole",
        "volume-subpaths/share/main/0",
        "volumes/vendor~plugin",
        "containers",
        "odd",
    ] {
        room.dir(below, &[]);
    }
    let dead: Vec<Dead> = [
        "volumes/kubernetes.io~nfs/share",
        "volumes/kubernetes.io~csi/pvc/mount",
        "volumes/kubernetes.io~csi/whole",
        "volume-subpaths/share/main/0",
        "volumes/vendor~plugin",
        "containers",
        "odd",
    ]
    .map(|below| Dead::mount(&room.pod(ONE).join(below)))
    .into();
    let pod = room.first();
    assert_eq!(pod.mounts.len(), dead.len());
    assert_eq!(pod.unread, Vec::<String>::new());
    for below in [
        "volumes/kubernetes.io~nfs/share",
        "volumes/kubernetes.io~csi/pvc/mount",
        "volumes/kubernetes.io~csi/whole",
        "volume-subpaths/share/main/0",
    ] {
        assert_eq!(
            told(&pod, below),
            (Class::DurableElsewhere, Content::Mounted),
            "{below}"
        );
    }
}

#[test]
fn t9_a_dead_file_system_in_the_place_of_a_pod_is_a_stranger() {
    let room = Room::new();
    room.dir("", &[]);
    fs::create_dir(room.pod(TWO)).unwrap();
    let _dead = Dead::mount(&room.pod(TWO));
    let layout = room.look();
    assert_eq!(layout.pods.len(), 1);
    assert_eq!(
        layout.strangers,
        [(room.pod(TWO), "something is mounted on it".to_owned())]
    );
}

#[test]
fn t9_a_root_on_a_file_system_that_may_not_answer_is_left_alone() {
    let room = Room::new();
    let at = room.ground.directory().unwrap();
    let _dead = Dead::mount(&at);
    let layout = room.look_at(&at);
    assert_eq!((layout.root, layout.pods), (at, vec![]));
    assert!(layout.unread[0].contains("may not answer"), "{:?}", layout.unread);
    let _other = Dead::mount(&room.root.join("pods"));
    let layout = room.look();
    assert_eq!(layout.pods, []);
    assert!(layout.unread[0].contains("may not answer"), "{:?}", layout.unread);
}

#[test]
fn t21_names_with_spaces_and_removed_sources_are_understood() {
    let room = Room::new();
    let odd = "volumes/kubernetes.io~empty-dir/a b\n\\c";
    let leaf = room.dir(odd, &[]);
    tmpfs(&leaf);
    let out = room.ground.directory().unwrap().join("out");
    fs::write(&out, "").unwrap();
    let hosts = room.dir("", &["etc-hosts"]).join("etc-hosts");
    bind(&hosts, &out);
    fs::remove_file(&hosts).unwrap();
    let pod = room.first();
    assert_eq!(mounts(&pod), [(Tie::In, leaf, false), (Tie::From, out, false)]);
    assert!(
        pod.mounts[1].mount.root.ends_with("etc-hosts/deleted"),
        "//deleted, by components"
    );
    assert_eq!(told(&pod, odd), (Class::Ephemeral, Content::Mounted));
}

#[test]
fn t24_a_memory_empty_dir_is_data_and_a_memory_secret_is_not() {
    let room = Room::new();
    for (plugin, class) in [
        ("empty-dir", Class::Ephemeral),
        ("secret", Class::NothingLost),
        ("projected", Class::NothingLost),
        ("csi", Class::Ephemeral),
    ] {
        let below = format!("volumes/kubernetes.io~{plugin}/{plugin}");
        let leaf = room.dir(&below, &[]);
        tmpfs(&leaf);
        let sub = format!("volume-subpaths/{plugin}/main/0");
        let sub_leaf = room.dir(&sub, &[]);
        bind(&leaf, &sub_leaf);
        let pod = room.first();
        assert_eq!(told(&pod, &below), (class, Content::Mounted), "{plugin}");
        assert_eq!(
            told(&pod, &sub),
            (class, Content::Mounted),
            "{plugin}: a subpath of it"
        );
    }
}

#[test]
fn a_local_volume_in_memory_that_is_mounted_elsewhere_too_is_kept_there() {
    let room = Room::new();
    let elsewhere = room.ground.directory().unwrap();
    tmpfs(&elsewhere);
    let leaf = room.dir(LOCAL, &[]);
    bind(&elsewhere, &leaf);
    assert_eq!(
        told(&room.first(), LOCAL),
        (Class::DurableElsewhere, Content::Mounted)
    );
}

#[test]
fn on_older_kernels_the_same_is_found() {
    let room = Room::new();
    fill(&room.disk.join("data"), &["precious"]);
    let leaf = room.dir(LOCAL, &[]);
    bind(&room.disk.join("data"), &leaf);
    let nested = room.dir("volumes/kubernetes.io~empty-dir/x/nested", &[]);
    let _dead = Dead::mount(&nested);
    let now = room.look();
    for kernel in Kernel::OTHERS {
        let mut old = look_on(kernel, &room);
        // statx tells the birth.
        Arc::make_mut(&mut old.pods[0]).changed = now.pods[0].changed;
        assert_eq!(old, now, "{kernel:?}");
    }
}

/// By a program that is started there: a thread cannot start others on a kernel that suddenly lacks what it began with.
fn look_on(kernel: Kernel, room: &Room) -> Layout {
    let out = room.ground.directory().unwrap().join("layout.json");
    let program = std::env::current_exe().unwrap();
    thread::scope(|scope| {
        let looked = scope.spawn(|| {
            kernel.enter().unwrap();
            Command::new(program)
                .args(["--ignored", "--exact", "mounted::looked_at_by_another_process"])
                .env("KUBELET_ROOT", &room.root)
                .env("LAYOUT", &out)
                .output()
                .unwrap()
        });
        let output = looked.join().unwrap();
        assert!(output.status.success(), "{kernel:?}: {output:?}");
    });
    serde_json::from_slice(&fs::read(out).unwrap()).unwrap()
}

#[test]
#[ignore = "run by the test above, on an old kernel"]
fn looked_at_by_another_process() {
    let options = LayoutOptions {
        kubelet_root: std::env::var_os("KUBELET_ROOT").map(PathBuf::from),
        ..LayoutOptions::default()
    };
    let json = serde_json::to_vec(&look(&options)).unwrap();
    fs::write(std::env::var_os("LAYOUT").unwrap(), json).unwrap();
}
