#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

const ONE: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
const TWO: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b12";

/// kubelet's root is on a disk of its own, which is mounted at `/data`.
fn search() -> Search {
    let place = |path: &str| Place {
        dev: (8, 1),
        path: Path::new("/k").join(path),
        seen_at: Path::new("/data/k").join(path),
    };
    let index = [(ONE, 0), (TWO, 1)].map(|(name, at)| (name.to_owned(), at));
    Search::new(place(""), place("pods"), index.into(), room(2))
}

fn room(pods: usize) -> Arc<Mounts> {
    Arc::new((0..pods).map(|_| Mutex::default()).collect())
}

fn viewer(pid: Option<u32>) -> Viewer {
    Viewer {
        pid,
        comm: String::new(),
        namespace: 7,
    }
}

/// Rows of `device root mountpoint type`.
fn table(rows: &[(&str, &str, &str, &str)]) -> String {
    let row = |(number, (dev, root, at, kind)): (usize, &(&str, &str, &str, &str))| {
        format!("{} 1 {dev} {root} {at} rw - {kind} source rw\n", number + 20)
    };
    rows.iter().enumerate().map(row).collect()
}

/// Pod, tie and mount point of each, by mount point.
fn ties(viewer: &Viewer, rows: &[(&str, &str, &str, &str)]) -> Vec<(usize, Tie, String)> {
    let search = search();
    search.table(viewer, table(rows).as_bytes()).unwrap();
    let mut all = Vec::new();
    for (pod, mounts) in search.mounts.iter().enumerate() {
        for tied in lock(mounts).iter() {
            all.push((pod, tied.tie, tied.mount.mountpoint.display().to_string()));
        }
    }
    all
}

const DISK: (&str, &str, &str, &str) = ("8:1", "/", "/data", "ext4");

#[test]
fn t21_a_uid_that_begins_like_another_is_another() {
    let longer = format!("/data/k/pods/{ONE}0/volumes/x");
    let beside = format!("/data/k/pods2/{ONE}/x");
    let inside = format!("/data/k/pods/{ONE}/volumes/x");
    let rows = [
        DISK,
        ("0:9", "/", &longer, "tmpfs"),
        ("0:9", "/", &beside, "tmpfs"),
        ("0:9", "/", &inside, "tmpfs"),
    ];
    assert_eq!(ties(&viewer(None), &rows), [(0, Tie::In, inside.clone())]);
}

#[test]
fn t21_escapes_and_deleted_sources_are_understood() {
    let at = format!("/data/k/pods/{ONE}/volumes/with\\040space");
    let gone = format!("/k/pods/{TWO}/etc-hosts//deleted");
    let removed = format!("/k/pods/{ONE}//deleted");
    let rows = [
        DISK,
        ("0:9", "/", &at, "tmpfs"),
        ("8:1", &gone, "/run/a", "ext4"),
        ("8:1", &removed, "/run/b", "ext4"),
    ];
    assert_eq!(
        ties(&viewer(None), &rows),
        [
            (0, Tie::In, format!("/data/k/pods/{ONE}/volumes/with space")),
            (0, Tie::From, "/run/b".to_owned()),
            (1, Tie::From, "/run/a".to_owned()),
        ]
    );
}

#[test]
fn a_root_field_of_another_device_is_another_directory() {
    let root = format!("/k/pods/{ONE}/etc-hosts");
    let rows = [
        DISK,
        ("8:2", root.as_str(), "/etc/hosts", "ext4"),
        ("8:1", &root, "/run/hosts", "ext4"),
    ];
    assert_eq!(
        ties(&viewer(None), &rows),
        [(0, Tie::From, "/run/hosts".to_owned())]
    );
}

#[test]
fn a_bind_from_one_pod_into_another_is_of_both_and_within_one_is_in_it() {
    let root = format!("/k/pods/{ONE}/volumes/a");
    let other = format!("/data/k/pods/{TWO}/volume-subpaths/a/c/0");
    let own = format!("/data/k/pods/{ONE}/volume-subpaths/a/c/0");
    let rows = [
        DISK,
        ("8:1", root.as_str(), other.as_str(), "ext4"),
        ("8:1", &root, &own, "ext4"),
    ];
    let all = ties(&viewer(None), &rows);
    assert_eq!(
        all,
        [
            (0, Tie::From, other.clone()),
            (0, Tie::In, own),
            (1, Tie::In, other)
        ]
    );
}

#[test]
fn t18_a_root_that_is_seen_twice_is_one_root() {
    let at = format!("/srv/kubelet/pods/{ONE}/volumes/x");
    let rows = [
        DISK,
        ("8:1", "/k", "/srv/kubelet", "ext4"),
        ("0:9", "/", at.as_str(), "tmpfs"),
    ];
    let search = search();
    let found = search.table(&viewer(None), table(&rows).as_bytes()).unwrap();
    assert_eq!(found.root_at, ["/data/k", "/srv/kubelet"].map(PathBuf::from));
    assert_eq!(lock(&search.mounts[0])[0].tie, Tie::In);
}

#[test]
fn t5_another_namespace_is_read_by_what_it_shows_there() {
    let at = format!("/host/kubelet/pods/{ONE}/volumes/x");
    let rows = [
        ("8:1", "/k", "/host/kubelet", "ext4"),
        ("0:9", "/", at.as_str(), "tmpfs"),
    ];
    assert_eq!(ties(&viewer(Some(812)), &rows), [(0, Tie::In, at.clone())]);
    let doubtful = format!("/data/k/pods/{ONE}/volumes/x");
    let rows = [
        ("0:7", "/", "/", "overlay"),
        ("0:9", "/", doubtful.as_str(), "tmpfs"),
    ];
    assert_eq!(
        ties(&viewer(Some(812)), &rows),
        [(0, Tie::In, doubtful.clone())],
        "reported when in doubt"
    );
}

#[test]
fn what_other_namespaces_have_alike_is_told_once_and_what_this_one_has_always() {
    let at = format!("/data/k/pods/{ONE}/volumes/x");
    let rows = table(&[DISK, ("0:9", "/", at.as_str(), "tmpfs")]);
    let search = search();
    let ties = |viewer| {
        search.table(&viewer, rows.as_bytes()).unwrap();
        std::mem::take(&mut *lock(&search.mounts[0])).len()
    };
    assert_eq!(
        [ties(viewer(None)), ties(viewer(Some(8))), ties(viewer(Some(9)))],
        [1, 1, 0]
    );
}

#[test]
fn global_mounts_and_memory_outside_of_pods_are_noted() {
    let secret = format!("/data/k/pods/{ONE}/volumes/s");
    let rows = [
        DISK,
        (
            "8:9",
            "/",
            "/data/k/plugins/kubernetes.io/csi/d/ab/globalmount",
            "xfs",
        ),
        (
            "8:9",
            "/",
            "/other/plugins/kubernetes.io/csi/d/ab/globalmount",
            "xfs",
        ),
        ("0:9", "/", secret.as_str(), "tmpfs"),
        ("0:8", "/", "/run", "tmpfs"),
    ];
    let found = search().table(&viewer(None), table(&rows).as_bytes()).unwrap();
    assert_eq!(
        found.global_mounts,
        HashSet::from([PathBuf::from("plugins/kubernetes.io/csi/d/ab/globalmount")])
    );
    assert_eq!(found.memory, HashSet::from([(0, 8)]));
}

#[test]
fn a_table_that_is_understood_in_part_is_not_understood() {
    let error = search()
        .table(&viewer(None), b"26 1 8:1 / / rw - ext4 a rw\n27 26\n")
        .unwrap_err();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn a_path_lies_below_another_by_components() {
    let at = |path: &str, above: &str| {
        below(Path::new(path), Path::new(above)).map(|rest| rest.display().to_string())
    };
    assert_eq!(at("/a/b/c", "/a").as_deref(), Some("b/c"));
    assert_eq!(at("/a/b", "/").as_deref(), Some("a/b"));
    assert_eq!(
        (at("/ab", "/a"), at("/a", "/a"), at("/a", "/a/b")),
        (None, None, None)
    );
}

#[test]
fn t9_network_and_fuse_file_systems_are_known_by_their_types() {
    for kind in [
        "nfs4",
        "nfs",
        "cifs",
        "ceph",
        "fuse.glusterfs",
        "fuse",
        "fuseblk",
        "9p",
    ] {
        assert!(is_remote(kind), "{kind}");
    }
    for kind in ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs"] {
        assert!(!is_remote(kind), "{kind}");
    }
}

/// What grows with the node is what is told, not the work for each row: twice the pods and mounts, twice the ties.
#[test]
fn ten_thousand_pods_and_fifty_thousand_mounts_are_tied_row_by_row() {
    let node = |pods: usize| {
        let uid = |at: usize| format!("{at:08x}-3a51-4c0e-9d1c-5a2f6f0f6b11");
        let index = (0..pods).map(|at| (uid(at), at)).collect();
        let rows: String = (0..pods * 5)
            .map(|row| {
                let (pod, volume) = (uid(row / 5), row % 5);
                format!(
                    "{} 1 0:9 / /data/k/pods/{pod}/volumes/kubernetes.io~secret/{volume} rw shared:1 - tmpfs tmpfs rw\n",
                    row + 30
                )
            })
            .collect();
        let mounts = room(pods);
        let search = Search {
            index,
            mounts,
            ..search()
        };
        let rows = format!("26 1 8:1 / /data rw - ext4 a rw\n{rows}");
        let found = search.table(&viewer(None), rows.as_bytes()).unwrap();
        let each: Vec<usize> = search.mounts.iter().map(|mounts| lock(mounts).len()).collect();
        assert!(each.iter().all(|mounts| *mounts == 5));
        (each.iter().sum::<usize>(), each.len(), found.pods_at.len())
    };
    assert_eq!(node(5_000), (25_000, 5_000, 1));
    assert_eq!(node(10_000), (50_000, 10_000, 1));
}
