//! What lies in a pod directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nodemend_pods::{Class, Content, LayoutOptions, Part};

use crate::room::{ONE, Room, bind, counted, look, tmpfs, told, volume};

#[test]
fn every_part_of_a_pod_directory_is_found_with_its_class() {
    let room = Room::new();
    room.dir("volumes/kubernetes.io~configmap/conf", &["a"]);
    room.dir("volumes/kubernetes.io~empty-dir/scratch/deep", &["a", "b"]);
    room.dir("volumes/ceph.rook.io~rook/db", &[]);
    room.dir("volumes/kubernetes.io~nfs/share", &["only copy"]);
    room.dir("volume-subpaths/db/main/0", &[]);
    room.dir("plugins/kubernetes.io~empty-dir/wrapped_conf", &[]);
    fs::write(
        room.pod(ONE)
            .join("plugins/kubernetes.io~empty-dir/wrapped_conf/ready"),
        "",
    )
    .unwrap();
    room.dir("containers/main", &["0123abcd"]);
    room.dir("lost", &["a"]);
    room.dir("", &["userns", "notes"]);
    let pod = room.first();
    let all: Vec<_> = pod
        .volumes
        .iter()
        .map(|volume| {
            (
                volume.part,
                volume.plugin.as_str(),
                volume.name.as_str(),
                volume.class,
            )
        })
        .collect();
    assert_eq!(
        all,
        [
            (
                Part::PluginData,
                "kubernetes.io/empty-dir",
                "wrapped_conf",
                Class::NothingLost
            ),
            (Part::Subpath, "subpath", "db/main/0", Class::NothingLost),
            (Part::Volume, "ceph.rook.io/rook", "db", Class::NothingLost),
            (
                Part::Volume,
                "kubernetes.io/configmap",
                "conf",
                Class::NothingLost
            ),
            (
                Part::Volume,
                "kubernetes.io/empty-dir",
                "scratch",
                Class::Ephemeral
            ),
            (Part::Volume, "kubernetes.io/nfs", "share", Class::MaybeOnlyCopy),
        ]
    );
    let scratch = &volume(&pod, "volumes/kubernetes.io~empty-dir/scratch").content;
    assert_eq!(counted(scratch), (3, 14), "one directory and two files");
    assert_eq!(pod.strange, ["lost", "notes"].map(Path::new));
    assert_eq!((pod.unread, pod.mounts), (vec![], vec![]));
}

#[test]
fn t10_an_unmounted_directory_that_is_not_empty_may_be_the_only_copy() {
    let room = Room::new();
    room.dir("volumes/kubernetes.io~csi/pvc-1/mount", &["database"]);
    let pod = room.first();
    let (class, content) = told(&pod, "volumes/kubernetes.io~csi/pvc-1/mount");
    assert_eq!((class, counted(&content)), (Class::MaybeOnlyCopy, (1, 7)));
}

const RECORD: &str =
    r#"{"driverName":"d","volumeHandle":"abc","specVolID":"pvc-1","volumeLifecycleMode":"Persistent"}"#;
const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn t22_a_driver_that_does_not_mount_keeps_its_data_in_the_directory() {
    let room = Room::new();
    room.dir("volumes/kubernetes.io~csi/pvc-1/mount", &["database"]);
    fs::write(
        room.pod(ONE)
            .join("volumes/kubernetes.io~csi/pvc-1/vol_data.json"),
        RECORD,
    )
    .unwrap();
    let pod = room.first();
    let volume = volume(&pod, "volumes/kubernetes.io~csi/pvc-1/mount");
    assert_eq!(
        (volume.class, volume.name.as_str()),
        (Class::MaybeOnlyCopy, "pvc-1")
    );
    let csi = volume.csi.as_ref().unwrap();
    assert_eq!(
        (csi.driver.as_str(), csi.handle.as_str(), &csi.global_mount),
        ("d", "abc", &None)
    );
}

#[test]
fn t11_a_record_is_told_with_the_global_mount_that_still_lives_in_either_place() {
    for place in [format!("d/{SUM}"), "pv/pvc-1".to_owned()] {
        let room = Room::new();
        room.dir("volumes/kubernetes.io~csi/pvc-1", &[]);
        fs::write(
            room.pod(ONE)
                .join("volumes/kubernetes.io~csi/pvc-1/vol_data.json"),
            RECORD,
        )
        .unwrap();
        let below = Path::new("plugins/kubernetes.io/csi")
            .join(place)
            .join("globalmount");
        fs::create_dir_all(room.root.join(&below)).unwrap();
        let leaf = "volumes/kubernetes.io~csi/pvc-1/mount";
        let global = |pod| volume(&pod, leaf).csi.clone().unwrap().global_mount;
        assert_eq!(global(room.first()), None, "a directory is no mount");
        tmpfs(&room.root.join(&below));
        assert_eq!(global(room.first()), Some(below));
        assert_eq!(told(&room.first(), leaf), (Class::NothingLost, Content::Empty));
    }
}

#[test]
fn a_record_that_says_nothing_is_reported_and_a_hostile_one_is_data() {
    let room = Room::new();
    let dir = room.dir("volumes/kubernetes.io~csi/pvc-1", &["notes"]);
    let record = dir.join("vol_data.json");
    for text in ["", "{", "{\"driverName\":\"../../../etc\"}", &"[".repeat(70_000)] {
        fs::write(&record, text).unwrap();
        let pod = room.first();
        let leaf = volume(&pod, "volumes/kubernetes.io~csi/pvc-1/mount");
        assert_eq!((leaf.class, &leaf.csi), (Class::NothingLost, &None));
        let below = Path::new("volumes/kubernetes.io~csi/pvc-1");
        assert!(pod.strange.contains(&below.join("notes")));
        assert!(
            pod.strange.contains(&below.join("vol_data.json")),
            "{text:.9} {:?}",
            pod.strange
        );
    }
    fs::remove_file(&record).unwrap();
    nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(
        room.first()
            .strange
            .contains(&"volumes/kubernetes.io~csi/pvc-1/vol_data.json".into())
    );
}

#[test]
fn t23_a_block_volume_is_a_link_that_is_not_followed() {
    let room = Room::new();
    let dir = room.dir("volumeDevices/kubernetes.io~csi", &[]);
    symlink("/dev/loop-that-nobody-opens", dir.join("pvc-9")).unwrap();
    let pod = room.first();
    let leaf = volume(&pod, "volumeDevices/kubernetes.io~csi/pvc-9");
    assert_eq!((leaf.part, leaf.class), (Part::Device, Class::DurableElsewhere));
    let link = Content::Other("a symlink to /dev/loop-that-nobody-opens".to_owned());
    assert_eq!(leaf.content, link);
}

#[test]
fn t23_a_device_file_that_is_bound_into_the_pod_is_a_mount() {
    let room = Room::new();
    let dir = room.dir("volumeDevices/kubernetes.io~csi", &["pvc-9"]);
    bind(Path::new("/dev/null"), &dir.join("pvc-9"));
    let told = told(&room.first(), "volumeDevices/kubernetes.io~csi/pvc-9");
    assert_eq!(told, (Class::DurableElsewhere, Content::Mounted));
}

#[test]
fn t20_links_fifos_and_devices_in_an_empty_dir_are_counted_and_not_opened() {
    let room = Room::new();
    let dir = room.dir("volumes/kubernetes.io~empty-dir/x", &["file"]);
    symlink("/", dir.join("link")).unwrap();
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::hard_link(dir.join("file"), dir.join("again")).unwrap();
    let (class, content) = told(&room.first(), "volumes/kubernetes.io~empty-dir/x");
    assert_eq!((class, counted(&content)), (Class::Ephemeral, (4, 14)));
}

#[test]
fn counting_ends_at_its_bounds_and_says_that_there_is_more() {
    let room = Room::new();
    let dir = room.dir("volumes/kubernetes.io~empty-dir/wide", &[]);
    (0..300).for_each(|file| fs::write(dir.join(file.to_string()), "x").unwrap());
    let deep = (0..200).map(|_| "d").collect::<Vec<_>>().join("/");
    room.dir(&format!("volumes/kubernetes.io~empty-dir/deep/{deep}"), &[]);
    let bounded = |options: LayoutOptions| {
        let layout = look(&LayoutOptions {
            kubelet_root: Some(room.root.clone()),
            ..options
        });
        let entries = |path| match told(&layout.pods[0], path).1 {
            Content::Files { entries, more, .. } => (entries, more),
            other => panic!("{other:?}"),
        };
        [
            entries("volumes/kubernetes.io~empty-dir/wide"),
            entries("volumes/kubernetes.io~empty-dir/deep"),
        ]
    };
    assert_eq!(bounded(LayoutOptions::default()), [(300, false), (64, true)]);
    let few = LayoutOptions {
        count_entries: 10,
        ..LayoutOptions::default()
    };
    assert_eq!(bounded(few), [(10, true), (10, true)]);
    let no_time = LayoutOptions {
        count_all: Duration::ZERO,
        ..LayoutOptions::default()
    };
    assert_eq!(
        bounded(no_time),
        [(1, true), (1, true)],
        "still told from an empty one"
    );
}

#[test]
fn the_name_is_that_of_the_hosts_file_if_there_are_no_logs() {
    let room = Room::new();
    room.dir("", &[]);
    let hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.0.0.9\tshop-0\n";
    fs::write(room.pod(ONE).join("etc-hosts"), hosts).unwrap();
    let name = room.first().name.unwrap();
    assert_eq!(
        (name.name.as_str(), name.from.as_str(), name.namespace),
        ("shop-0", "etc-hosts", None)
    );
}

#[test]
fn a_change_in_the_first_two_levels_is_seen_and_one_below_is_not() {
    let room = Room::new();
    let deep = room.dir("volumes/kubernetes.io~empty-dir/x", &[]);
    let before = room.first().changed;
    sleep(Duration::from_millis(1100));
    fs::write(deep.join("new"), "").unwrap();
    assert_eq!(room.first().changed, before);
    fs::write(room.pod(ONE).join("volumes/kubernetes.io~empty-dir/new"), "").unwrap();
    assert!(room.first().changed > before);
}

#[test]
fn a_name_that_is_no_text_fails_no_report() {
    use std::os::unix::ffi::OsStrExt;
    let room = Room::new();
    let name = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned();
    let volume = room
        .pod(ONE)
        .join("volumes/kubernetes.io~nfs")
        .join(name(b"pv-\xff"));
    fs::create_dir_all(&volume).unwrap();
    fs::write(room.pod(ONE).join(name(b"\xfestrange")), "").unwrap();
    fs::create_dir(room.root.join("pods").join(name(b"\xfd"))).unwrap();
    let mounted = room
        .dir("volumes/kubernetes.io~empty-dir/x", &[])
        .join(name(b"\xfc"));
    fs::create_dir(&mounted).unwrap();
    bind(&room.disk, &mounted);
    let layout = room.look();
    let json = serde_json::to_string(&layout).unwrap();
    let texts = [
        r"/pods/\\xfd",
        r"~nfs/pv-\\xff",
        r"\\xfestrange",
        r"~empty-dir/x/\\xfc",
    ];
    for text in texts {
        assert!(json.contains(text), "{text} is not in {json}");
    }
    let back: nodemend_pods::Layout = serde_json::from_str(&json).unwrap();
    assert_eq!(back, layout);
}
