//! Who keeps a network namespace alive.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nodemend_hostfs::FileId;
use nodemend_procns::{Holder, Netns, NetnsId, OpenError};

use crate::room::{Guarded, Inhabitant, bind, census, holders, in_private_mounts, new_namespace, new_netns};

/// The namespace as listed, which can be opened and is the one that was meant.
fn opened(id: NetnsId) -> Netns {
    let census = census();
    let netns = census
        .namespace(id)
        .unwrap_or_else(|| panic!("{id} is not listed"))
        .clone();
    assert_eq!(FileId::of(netns.open().unwrap()).unwrap(), id);
    netns
}

fn is_fd(holder: &Holder, file: &OwnedFd) -> bool {
    matches!(holder, Holder::Fd { pid, fd, .. } if *pid == std::process::id() && *fd == file.as_raw_fd().unsigned_abs())
}

fn text(file: &OwnedFd) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    link.to_str().unwrap().to_owned()
}

/// Mounts the namespace, and gives a file that was opened by the path of the mount.
fn opened_by_mount(namespace: OwnedFd, path: &Path) -> OwnedFd {
    bind(&namespace, path);
    File::open(path).unwrap().into()
}

/// Unmounts lazily and removes the file, as `ip netns del` does.
fn detach(path: &Path) {
    umount2(path, MntFlags::MNT_DETACH).unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_host_is_listed_and_can_be_opened() {
    in_private_mounts(|_| {
        let here = FileId::of(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_eq!(census().host, here);
        opened(here);
    });
}

#[test]
fn a_namespace_that_only_a_thread_lives_in_is_held_by_the_thread() {
    in_private_mounts(|_| {
        let inhabitant = Inhabitant::of_new_netns();
        let netns = opened(inhabitant.netns);
        let thread = Holder::Thread {
            pid: std::process::id(),
            tid: inhabitant.tid,
            comm: "inhabitant".into(),
        };
        assert_eq!(netns.holders, [thread]);
        drop(inhabitant);
        assert!(matches!(netns.open(), Err(OpenError::Ended { .. })));
        assert!(holders(netns.id).is_empty());
    });
}

#[test]
fn a_process_holds_its_namespace() {
    in_private_mounts(|_| {
        let child = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Guarded::sleep()
        });
        let child = child.join().unwrap();
        let pid = child.0.id();
        let id = census().of_pid(pid).unwrap();
        assert_eq!(
            opened(id).holders,
            [Holder::Process {
                pid,
                comm: "sleep".into()
            }]
        );
        assert_eq!(
            census()
                .processes_in(id)
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
            [pid]
        );
    });
}

#[test]
fn an_open_file_below_proc_holds_it() {
    in_private_mounts(|_| {
        let (file, id) = new_netns();
        assert!(text(&file).starts_with("net:["));
        assert!(is_fd(&opened(id).holders[0], &file));
    });
}

#[test]
fn a_file_opened_by_its_mount_holds_it_under_the_name_of_the_path() {
    in_private_mounts(|dir| {
        let (file, id) = new_netns();
        let path = dir.join("netns/cni-1");
        let file = opened_by_mount(file, &path);
        assert_eq!(text(&file), path.to_str().unwrap());
        let held = opened(id).holders;
        assert_eq!(held.len(), 2, "{held:?}");
        assert_eq!(held[0], Holder::Mount { path });
        assert!(is_fd(&held[1], &file));
    });
}

#[test]
fn a_file_whose_mount_was_detached_and_removed_holds_it_although_it_reads_as_the_root_directory() {
    in_private_mounts(|dir| {
        let (file, id) = new_netns();
        let path = dir.join("cni-1");
        let file = opened_by_mount(file, &path);
        detach(&path);
        assert_eq!(text(&file), "/");
        let netns = opened(id);
        assert_eq!(netns.holders.len(), 1);
        assert!(is_fd(&netns.holders[0], &file));
        drop(file);
        assert!(matches!(netns.open(), Err(OpenError::Ended { .. })));
    });
}

#[test]
fn a_detached_namespace_of_another_kind_is_none() {
    in_private_mounts(|dir| {
        let file = new_namespace(CloneFlags::CLONE_NEWUTS, "uts");
        let id = FileId::of(&file).unwrap();
        let file = opened_by_mount(file, &dir.join("uts"));
        assert!(holders(id).is_empty(), "while it is mounted");
        detach(&dir.join("uts"));
        assert_eq!(text(&file), "/");
        assert!(holders(id).is_empty(), "after it was detached");
    });
}

#[test]
fn a_namespace_that_only_a_socket_keeps_cannot_be_seen() {
    in_private_mounts(|_| {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let id = FileId::of(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            (std::net::UdpSocket::bind("0.0.0.0:0").unwrap(), id)
        };
        let (_socket, id) = std::thread::spawn(make).join().unwrap();
        assert!(census().namespace(id).is_none());
    });
}

/// A process whose mount namespace has a mount of the namespace that no other has.
fn foreign(file: OwnedFd, path: &Path) -> Guarded {
    let path = path.to_owned();
    let make = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        bind(&file, &path);
        Guarded::sleep()
    };
    std::thread::spawn(make).join().unwrap()
}

#[test]
fn a_mount_in_another_mount_namespace_only_holds_it() {
    in_private_mounts(|dir| {
        let (file, id) = new_netns();
        let path = dir.join("cni-1");
        let child = foreign(file, &path);
        let netns = opened(id);
        assert_eq!(
            netns.holders,
            [Holder::ForeignMount {
                pid: child.0.id(),
                path
            }]
        );
        assert!(!netns.is_mount_only());
        drop(child);
        assert!(
            matches!(netns.open(), Err(OpenError::Unopened { .. })),
            "the end of one process says nothing of the mount"
        );
    });
}

#[test]
fn a_mount_that_ours_has_too_is_not_named_again() {
    in_private_mounts(|dir| {
        let (file, id) = new_netns();
        bind(&file, &dir.join("ours"));
        let _child = foreign(file, &dir.join("theirs"));
        assert_eq!(
            holders(id),
            [Holder::Mount {
                path: dir.join("ours")
            }]
        );
    });
}

#[test]
fn a_namespace_is_found_wherever_and_however_it_is_mounted() {
    in_private_mounts(|dir| {
        for name in [
            "run/containerd/io.containerd.grpc.v1.cri/netns/cni-34d83b59",
            "run/netns/6f3b7c1e-9a3e-4d7c-8b6e-3d6f2c1a0b9d",
            "run/docker/netns/1a2b3c4d5e6f",
            "with blank and \\ backslash",
            "with\nnewline - nsfs",
            "net:[1]",
        ] {
            let path = dir.join(name);
            let (file, id) = new_netns();
            bind(&file, &path);
            drop(file);
            let netns = opened(id);
            assert_eq!(netns.holders, [Holder::Mount { path: path.clone() }]);
            assert!(netns.is_mount_only());
            detach(&path);
            assert!(matches!(netns.open(), Err(OpenError::Ended { .. })), "{name:?}");
        }
    });
}

#[test]
fn what_stands_at_the_path_of_a_mount_now_is_not_taken_for_it() {
    in_private_mounts(|dir| {
        let path = dir.join("cni-1");
        let (file, id) = new_netns();
        let netns = Netns {
            id,
            holders: vec![Holder::Mount { path: path.clone() }],
        };
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(
            matches!(netns.open(), Err(OpenError::Ended { .. })),
            "a FIFO, which would block"
        );
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), &path).unwrap();
        assert!(
            matches!(netns.open(), Err(OpenError::Ended { .. })),
            "a link is no mount"
        );
        std::fs::remove_file(&path).unwrap();
        bind(&new_netns().0, &path);
        assert!(
            matches!(netns.open(), Err(OpenError::Ended { .. })),
            "another namespace"
        );
    });
}

/// A FUSE file system that nobody serves: whoever asks it anything waits for ever.
fn dead_file_system(path: &Path) -> File {
    std::fs::create_dir(path).unwrap();
    let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    mount(
        Some("dead"),
        path,
        Some("fuse"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    server
}

#[test]
fn open_files_on_a_dead_file_system_are_not_touched() {
    in_private_mounts(|dir| {
        let (mounted, detached) = (dir.join("mounted"), dir.join("detached"));
        let servers = [dead_file_system(&mounted), dead_file_system(&detached)];
        let handle = |path: &Path| -> OwnedFd {
            File::options()
                .read(true)
                .custom_flags(nix::libc::O_PATH)
                .open(path)
                .unwrap()
                .into()
        };
        let files = [handle(&mounted), handle(&detached)];
        umount2(&detached, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(text(&files[1]), "/");
        let started = Instant::now();
        let census = census();
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "it waited for a file system"
        );
        let own = format!("process {}:", std::process::id());
        assert!(
            !census.unread.iter().any(|reason| reason.starts_with(&own)),
            "{:?}",
            census.unread
        );
        let netns = Netns {
            id: new_netns().1,
            holders: vec![Holder::Mount {
                path: mounted.clone(),
            }],
        };
        assert!(matches!(netns.open(), Err(OpenError::Ended { .. })));
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "it waited for a file system"
        );
        umount2(&mounted, MntFlags::MNT_DETACH).unwrap();
        drop((files, servers));
    });
}
