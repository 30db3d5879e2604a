//! kubelet's root and what lies in `pods`.

use std::fs;
use std::os::unix::fs::symlink;

use nodemend_hostfs::{FileId, Host};
use nodemend_pods::{LayoutError, LayoutOptions, layout};
use nodemend_procns::Census;

use crate::room::{ONE, Room, TWO, bind, tmpfs};

#[test]
fn t18_a_symlinked_a_relocated_and_a_twice_visible_root_are_one_root() {
    let room = Room::new();
    room.dir("volumes/kubernetes.io~empty-dir/x", &["file"]);
    let plain = room.look();
    let link = room.ground.directory().unwrap().join("kubelet");
    symlink(&room.root, &link).unwrap();
    let twice = room.ground.directory().unwrap();
    bind(&room.root, &twice);
    let by_link = room.look_at(&link);
    assert_eq!(by_link.root, room.root);
    assert_eq!((by_link.root_id, &by_link.pods), (plain.root_id, &plain.pods));
    assert_eq!(by_link.also_at, std::slice::from_ref(&twice));
    let by_twin = room.look_at(&twice);
    assert_eq!(
        (by_twin.root.clone(), by_twin.root_id),
        (twice.clone(), plain.root_id)
    );
    assert_eq!(by_twin.also_at, std::slice::from_ref(&room.root));
    assert_eq!(by_twin.pods[0].identity.dir, plain.pods[0].identity.dir);
    assert_ne!(by_twin.pods[0].identity.mount, plain.pods[0].identity.mount);
}

#[test]
fn t18_what_is_mounted_by_the_other_path_of_a_root_is_in_its_pod() {
    let room = Room::new();
    let twice = room.ground.directory().unwrap();
    bind(&room.root, &twice);
    let leaf = room.dir("volumes/kubernetes.io~nfs/share", &[]);
    let other = twice
        .join("pods")
        .join(ONE)
        .join("volumes/kubernetes.io~nfs/share");
    bind(&room.disk, &other);
    let pod = room.first();
    assert_eq!(pod.mounts[0].mount.mountpoint, other);
    assert_eq!(pod.volumes[0].class, nodemend_pods::Class::DurableElsewhere);
    assert!(leaf.is_dir());
}

#[test]
fn t18_a_root_that_is_a_mount_of_its_own_is_fine() {
    let room = Room::new();
    room.dir("volumes/kubernetes.io~empty-dir/x", &["file"]);
    // As many installers do, for shared propagation.
    bind(&room.root, &room.root);
    let layout = room.look();
    assert_eq!((layout.root, layout.also_at), (room.root.clone(), vec![]));
    assert_eq!(layout.pods[0].volumes.len(), 1);
}

#[test]
fn t19_whatever_is_no_directory_with_a_uid_for_a_name_is_a_stranger() {
    let room = Room::new();
    room.dir("", &[]);
    let pods = room.root.join("pods");
    symlink(room.pod(ONE), room.pod(TWO)).unwrap();
    let file = "d41d8cd98f00b204e9800998ecf8427e";
    fs::write(pods.join(file), "").unwrap();
    fs::create_dir(pods.join(".quarantine")).unwrap();
    fs::create_dir(pods.join(ONE.to_uppercase())).unwrap();
    let bound = TWO.replace("6b12", "6b13");
    fs::create_dir(pods.join(&bound)).unwrap();
    bind(&room.pod(ONE), &pods.join(&bound));
    let layout = room.look();
    assert_eq!(layout.pods.len(), 1);
    let reasons: Vec<(&str, &str)> = layout
        .strangers
        .iter()
        .map(|(path, reason)| (path.file_name().unwrap().to_str().unwrap(), reason.as_str()))
        .collect();
    let no_uid = "not a pod UID: neither a lower-case UUID nor 32 lower-case hex digits";
    let link = format!("not a directory but a symlink to {}", room.pod(ONE).display());
    let upper = ONE.to_uppercase();
    assert_eq!(
        reasons,
        [
            (".quarantine", no_uid),
            (upper.as_str(), no_uid),
            (TWO, link.as_str()),
            (bound.as_str(), "something is mounted on it"),
            (file, "not a directory but something else"),
        ]
    );
}

fn refused(root: &std::path::Path) -> LayoutError {
    let options = LayoutOptions {
        kubelet_root: Some(root.to_owned()),
        ..LayoutOptions::default()
    };
    layout(&Host::local(), &options, &Census::default()).unwrap_err()
}

#[test]
fn a_root_that_is_not_there_or_holds_no_pods_is_an_error_that_says_who_named_it() {
    let room = Room::new();
    let error = refused(&room.disk.join("none")).to_string();
    assert!(
        error.contains("none: no kubelet root") && error.contains("--kubelet-root"),
        "{error}"
    );
    assert!(matches!(refused(&room.disk), LayoutError::NoPods { .. }));
    fs::create_dir(room.disk.join("other")).unwrap();
    symlink(room.root.join("pods"), room.disk.join("other/pods")).unwrap();
    assert!(
        matches!(refused(&room.disk.join("other")), LayoutError::NoPods { .. }),
        "pods is a symlink"
    );
}

#[test]
fn pods_on_a_disk_of_its_own_is_looked_at() {
    let room = Room::new();
    let pods = room.root.join("pods");
    tmpfs(&pods);
    room.dir("volumes/kubernetes.io~empty-dir/x", &["file"]);
    let layout = room.look();
    assert_eq!(layout.unread, Vec::<String>::new());
    let on_pods = FileId::of(fs::File::open(room.pod(ONE)).unwrap()).unwrap();
    assert_eq!(layout.pods[0].identity.dir, on_pods);
}

#[test]
fn a_tree_on_a_disk_is_read_and_says_that_mounts_are_not_known() {
    let room = Room::new();
    room.dir("volumes/kubernetes.io~empty-dir/x", &["file"]);
    let tree = room.disk.join("node/var/lib");
    fs::create_dir_all(&tree).unwrap();
    fs::rename(&room.root, tree.join("kubelet")).unwrap();
    let host = Host::at(room.disk.join("node"));
    let layout = layout(&host, &LayoutOptions::default(), &Census::default()).unwrap();
    assert_eq!(layout.root, std::path::Path::new("/var/lib/kubelet"));
    assert_eq!(layout.pods[0].volumes.len(), 1);
    assert!(
        layout.unread[0].starts_with("another root"),
        "{:?}",
        layout.unread
    );
}
