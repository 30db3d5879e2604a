//! Whose mounts keep a directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;

use super::*;
use crate::mount::{PodMount, Seer, Tie};

fn mount(at: &str, root: &str, tie: Tie, seen_by: Option<u64>) -> PodMount {
    PodMount {
        mount: Mount {
            id: 581,
            parent: 26,
            dev: (8, 16),
            root: Path::new(root).into(),
            mountpoint: PathBuf::from(at),
            fstype: "ext4".into(),
            source: OsStr::new("/dev/sdb").into(),
            options: OsStr::new("rw").into(),
        },
        tie,
        seen_by: seen_by.map(|namespace| {
            Arc::new(Seer {
                pid: 99,
                comm: "node-driver".into(),
                namespace,
            })
        }),
    }
}

#[test]
fn t05_a_mount_that_only_another_namespace_has_is_somebodys() {
    let at = format!("/var/lib/kubelet/pods/{DEAD}/volumes/kubernetes.io~csi/pvc-1/mount");
    let mut survey = node(&[DEAD]);
    change(&mut survey).mounts = vec![mount(&at, "/", Tie::In, Some(7))];
    expect(
        &survey,
        &Policy::default(),
        Live,
        "process 99 (node-driver) has a mount in it",
    );
}

#[test]
fn t28_an_orphan_with_its_own_mounts_is_one_and_so_with_copies_of_them() {
    // The silent class: kubelet says nothing of it, because something is still mounted.
    let at = format!("/var/lib/kubelet/pods/{DEAD}/volumes/kubernetes.io~csi/pvc-1/mount");
    let mut survey = node(&[DEAD]);
    change(&mut survey).mounts = vec![
        mount(&at, "/", Tie::In, None),
        mount(&at, "/", Tie::In, Some(7)),
        mount(&format!("/host{at}"), "/", Tie::In, Some(8)),
    ];
    expect(&survey, &Policy::default(), Orphan, "");
    // Of another device it is no copy.
    change(&mut survey).mounts[1].mount.dev = (8, 32);
    expect(&survey, &Policy::default(), Live, "mounts elsewhere");
}

#[test]
fn t03_a_container_that_has_a_file_of_the_directory_mounted_keeps_it() {
    let source = format!("/var/lib/kubelet/pods/{DEAD}/etc-hosts");
    let mut survey = node(&[DEAD]);
    change(&mut survey).mounts = vec![mount("/etc/hosts", &source, Tie::From, Some(7))];
    expect(
        &survey,
        &Policy::default(),
        Live,
        "something of it mounted at /etc/hosts",
    );
    change(&mut survey).mounts[0].seen_by = None;
    change(&mut survey).mounts[0].mount.mountpoint = "/srv/data".into();
    expect(
        &survey,
        &Policy::default(),
        Live,
        "something of it is mounted at /srv/data",
    );
}

#[test]
fn t18_a_mount_seen_by_the_roots_other_path_is_its_own() {
    let source = format!("/var/lib/kubelet/pods/{DEAD}/volumes/kubernetes.io~empty-dir/a");
    let at = format!("/data/kubelet/pods/{DEAD}/volume-subpaths/a/c/0");
    let mut survey = node(&[DEAD]);
    survey.layout.also_at = vec!["/data/kubelet".into()];
    change(&mut survey).mounts = vec![mount(&at, &source, Tie::From, None)];
    expect(&survey, &Policy::default(), Orphan, "");
}
