#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;

use nodemend_lab::disk::{Format, Ground};
use nodemend_lab::old_kernel::Kernel;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;
use crate::{End, Options, remove};

fn run(command: &[&OsStr]) -> Vec<u8> {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output.stdout
}

/// A btrfs with a tree that is to go.
struct Scene {
    ground: Ground,
    disk: PathBuf,
    tree: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let ground = Ground::enter().unwrap();
        let disk = ground.disk(Format::Btrfs, 320).unwrap();
        let tree = disk.join("above/tree");
        fs::create_dir_all(&tree).unwrap();
        Self { ground, disk, tree }
    }

    /// With two files, one of them deep.
    fn create(&self, name: &str) -> PathBuf {
        let path = self.tree.join(name);
        run(&[
            "btrfs".as_ref(),
            "subvolume".as_ref(),
            "create".as_ref(),
            path.as_ref(),
        ]);
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/deep"), "content").unwrap();
        fs::write(path.join("file"), "content").unwrap();
        path
    }

    fn snapshot(&self, of: &Path, name: &str) -> PathBuf {
        let path = self.tree.join(name);
        let words = ["btrfs", "subvolume", "snapshot", "-r"].map(OsStr::new);
        run(&[&words[..], &[of.as_ref(), path.as_ref()]].concat());
        path
    }

    fn destroy(&self, path: &Path) -> Result<(), Refusal> {
        let parent = File::open(path.parent().unwrap()).unwrap();
        let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
        let subvolume = File::open(path).unwrap();
        destroy(parent.as_fd(), &name, subvolume.as_fd())
    }

    /// The same file system once more.
    fn mount(&self, options: &str) -> PathBuf {
        let words = ["findmnt", "-n", "-o", "SOURCE", "--mountpoint"].map(OsStr::new);
        let source = run(&[&words[..], &[self.disk.as_ref()]].concat());
        // For a mounted subvolume the source has it in brackets.
        let device = source.split(|byte| b"[\n".contains(byte)).next().unwrap();
        let at = self.ground.directory().unwrap();
        let words = ["mount", "-o", options].map(OsStr::new);
        run(&[&words[..], &[OsStr::from_bytes(device), at.as_ref()]].concat());
        at
    }

    fn inside(&self) -> Vec<Subvolume> {
        subvolumes_inside(&Tree::open(&self.tree).unwrap()).unwrap()
    }

    /// What the other tool lists, below the tree.
    fn listed(&self) -> Vec<(u64, PathBuf)> {
        let words = ["btrfs", "subvolume", "list"].map(OsStr::new);
        let output = run(&[&words[..], &[self.disk.as_ref()]].concat());
        let below = self.tree.strip_prefix(&self.disk).unwrap();
        let lines = output
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let mut found: Vec<_> = lines
            .filter_map(|line| {
                // ID 256 gen 7 top level 5 path above/tree/sub
                let mut words = line.splitn(9, |&byte| byte == b' ');
                let id = std::str::from_utf8(words.nth(1)?).ok()?.parse().ok()?;
                let path = Path::new(OsStr::from_bytes(words.nth(6)?));
                Some((id, path.strip_prefix(below).ok()?.to_owned()))
            })
            .collect();
        found.sort_unstable_by(|one, other| one.1.cmp(&other.1));
        found
    }
}

fn id(path: &Path) -> u64 {
    sys::btrfs_ino_lookup(File::open(path).unwrap().as_fd(), 0, FIRST)
        .unwrap()
        .0
}

/// Runs a test on this kernel and on an old one.
fn on_both_kernels(test: fn(&Scene)) {
    for old in [false, true] {
        // The namespace and the filter are the thread's own.
        thread::spawn(move || {
            let scene = Scene::new();
            if old {
                Kernel::Linux3_10.enter().unwrap();
            }
            test(&scene);
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_subvolume_goes_with_all_that_is_in_it() {
    on_both_kernels(|scene| {
        let long = "n".repeat(255);
        for name in ["plain", "new\nline", long.as_str()] {
            let path = scene.create(name);
            let stat = rustix::fs::stat(&path).unwrap();
            assert!(is_root(&stat));
            assert_eq!(scene.destroy(&path), Ok(()));
            assert!(!path.exists());
        }
        assert!(!is_root(&rustix::fs::stat(&scene.tree).unwrap()));
        assert_eq!(scene.inside(), []);
    });
}

#[test]
fn a_parent_that_is_only_a_path_will_do() {
    let scene = Scene::new();
    let path = scene.create("sub");
    let tree = Tree::open(&path).unwrap();
    assert_eq!(destroy(tree.parent(), tree.c_name(), tree.dir()), Ok(()));
    assert!(!path.exists());
}

#[test]
fn a_read_only_snapshot_goes_although_nothing_in_it_could() {
    on_both_kernels(|scene| {
        let source = scene.create("source");
        let snapshot = scene.snapshot(&source, "snapshot");
        let inside = File::open(snapshot.join("a/b")).unwrap();
        let error = rustix::fs::unlinkat(&inside, c"deep", rustix::fs::AtFlags::empty());
        assert_eq!(error, Err(Errno::ROFS));
        assert!(is_read_only(inside.as_fd()), "this is why");
        assert!(is_read_only(File::open(&snapshot).unwrap().as_fd()));
        assert!(!is_read_only(File::open(&source).unwrap().as_fd()));
        assert!(!is_read_only(File::open(source.join("a")).unwrap().as_fd()));
        drop(inside);
        assert_eq!(scene.destroy(&snapshot), Ok(()));
        assert!(!snapshot.exists());
        assert!(source.join("a/b/deep").exists());
    });
}

#[test]
fn nothing_on_another_file_system_is_a_read_only_snapshot() {
    let ground = Ground::enter().unwrap();
    for format in [Format::Ext4, Format::Xfs] {
        let disk = ground.disk(format, 320).unwrap();
        assert!(!is_read_only(File::open(&disk).unwrap().as_fd()));
        fs::create_dir(disk.join("tree")).unwrap();
        let tree = Tree::open(&disk.join("tree")).unwrap();
        assert_eq!(subvolumes_inside(&tree).unwrap(), []);
    }
}

#[test]
fn subvolumes_in_a_subvolume_go_before_it_also_where_it_is_read_only() {
    on_both_kernels(|scene| {
        let outer = scene.create("outer");
        let inner = scene.create("outer/a/inner");
        let words = ["btrfs", "property", "set", "-ts"].map(OsStr::new);
        run(&[&words[..], &[outer.as_ref(), "ro".as_ref(), "true".as_ref()]].concat());
        assert_eq!(
            scene.destroy(&inner),
            Err(Refusal::Kernel(Errno::ROFS)),
            "its parent is read-only"
        );
        assert_eq!(scene.destroy(&outer), Err(Refusal::Kernel(Errno::NOTEMPTY)));
        assert!(outer.join("file").exists(), "nothing went yet");
        assert_eq!(scene.destroy(&inner), Ok(()));
        assert_eq!(scene.destroy(&outer), Ok(()));
        assert_eq!(fs::read_dir(&scene.tree).unwrap().count(), 0);
    });
}

#[test]
fn a_subvolume_that_is_mounted_stays() {
    on_both_kernels(|scene| {
        let path = scene.create("sub");
        let whole = scene.mount(&format!("subvolid={}", id(&path)));
        let by_name = scene.mount("subvol=/above/tree/sub");
        let part = scene.ground.directory().unwrap();
        mount_bind(path.join("a/b"), &part).unwrap();
        for at in [whole, by_name, part] {
            assert_eq!(scene.destroy(&path), Err(Refusal::Mounted), "{at:?}");
            assert!(at.join("file").exists() || at.join("deep").exists());
            unmount(&at, UnmountFlags::empty()).unwrap();
        }
        assert_eq!(scene.destroy(&path), Ok(()));
    });
}

#[test]
fn that_another_subvolume_is_mounted_is_in_nobodys_way() {
    let scene = Scene::new();
    let (path, other) = (scene.create("sub"), scene.create("other"));
    scene.mount(&format!("subvolid={}", id(&other)));
    assert_eq!(scene.destroy(&path), Ok(()));
    assert!(other.join("file").exists());
}

#[test]
fn a_subvolume_stays_while_something_is_mounted_in_it_by_whichever_mount() {
    on_both_kernels(|scene| {
        let path = scene.create("sub");
        let twin = scene.mount("subvolid=5");
        let other = scene.ground.directory().unwrap();
        fs::write(other.join("treasure"), "").unwrap();
        for at in [path.join("a/b"), twin.join("above/tree/sub/a")] {
            mount_bind(&other, &at).unwrap();
            assert_eq!(scene.destroy(&path), Err(Refusal::MountInside));
            assert!(at.join("treasure").exists(), "still mounted");
            unmount(&at, UnmountFlags::empty()).unwrap();
        }
        assert_eq!(scene.destroy(&path), Ok(()));
    });
}

#[test]
fn a_table_of_an_old_kernel_tells_what_is_mounted_too() {
    let scene = Scene::new();
    let path = scene.create("sub");
    let part = scene.ground.directory().unwrap();
    mount_bind(path.join("a"), &part).unwrap();
    let dir = File::open(&path).unwrap();
    let own = mount_id(dir.as_fd()).unwrap();
    let (place, mut mounts) = path_and_mounts(dir.as_fd()).unwrap();
    for mount in &mut mounts {
        mount.options = OsStr::new("rw").into();
    }
    assert_eq!(judge(&mounts, own, id(&path), &place), Err(Refusal::Mounted));
    mounts.retain(|mount| mount.mountpoint != part);
    assert_eq!(judge(&mounts, own, id(&path), &place), Ok(()));
    mounts.retain(|mount| mount.id != own);
    assert_eq!(judge(&mounts, own, id(&path), &place), Err(Refusal::Unsure));
}

#[test]
fn what_is_no_subvolume_by_now_is_not_destroyed() {
    let scene = Scene::new();
    let path = scene.create("sub");
    let parent = File::open(&scene.tree).unwrap();
    let subvolume = File::open(&path).unwrap();
    fs::rename(&path, scene.disk.join("away")).unwrap();
    let refused = |errno| {
        let answer = destroy(parent.as_fd(), c"sub", subvolume.as_fd());
        assert_eq!(answer, Err(Refusal::Kernel(errno)));
    };
    refused(Errno::NOENT);
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "").unwrap();
    refused(Errno::INVAL);
    fs::remove_dir_all(&path).unwrap();
    std::os::unix::fs::symlink(scene.disk.join("away"), &path).unwrap();
    refused(Errno::NOTDIR);
    assert!(scene.disk.join("away/a/b/deep").exists());
}

#[test]
fn a_name_that_does_not_fit_is_refused() {
    let scene = Scene::new();
    let dir = File::open(&scene.tree).unwrap();
    let name = CString::new(vec![b'n'; 4088]).unwrap();
    assert_eq!(
        sys::btrfs_snap_destroy(dir.as_fd(), &name),
        Err(Errno::NAMETOOLONG)
    );
    for name in [c"", c".", c"..", c"a/b"] {
        assert!(sys::btrfs_snap_destroy(dir.as_fd(), name).is_err(), "{name:?}");
    }
}

#[test]
fn the_default_subvolume_stays() {
    let scene = Scene::new();
    let path = scene.create("sub");
    let words = ["btrfs", "subvolume", "set-default"].map(OsStr::new);
    run(&[&words[..], &[path.as_ref()]].concat());
    assert_eq!(scene.destroy(&path), Err(Refusal::Kernel(Errno::PERM)));
    assert!(path.join("a/b/deep").exists());
}

#[test]
fn the_list_is_that_of_the_other_tool() {
    on_both_kernels(|scene| {
        assert_eq!(scene.inside(), []);
        fs::create_dir_all(scene.tree.join("x/y")).unwrap();
        // Beside the tree, with a name that begins like it.
        fs::create_dir(scene.disk.join("above/tree-2")).unwrap();
        scene.create("../tree-2/outside");
        scene.create("../outside");
        let first = scene.create("first");
        scene.create("x/y/second");
        scene.create("first/a/b/third");
        scene.create("first/a/b/third/a/fourth");
        let frozen = scene.snapshot(&first, "x/frozen");
        for number in 0..60 {
            scene.create(&format!("x/y/{number}-{}", "n".repeat(200)));
        }
        let gone = scene.create("gone");
        assert_eq!(scene.destroy(&gone), Ok(()));

        let inside = scene.inside();
        let pairs: Vec<_> = inside.iter().map(|one| (one.id, one.path.clone())).collect();
        assert_eq!(pairs, scene.listed());
        assert_eq!(pairs.len(), 65);
        let read_only: Vec<_> = inside.iter().filter(|one| one.read_only).collect();
        assert_eq!(read_only.len(), 1);
        assert_eq!(scene.tree.join(&read_only[0].path), frozen);
        for one in &inside {
            let stat = rustix::fs::stat(scene.tree.join(&one.path)).unwrap();
            assert!(is_root(&stat), "{one:?}");
            assert_eq!(id(&scene.tree.join(&one.path)), one.id);
        }
    });
}

#[test]
fn a_tree_that_is_a_subvolume_itself_lists_what_is_in_it() {
    let scene = Scene::new();
    let root = scene.create("root");
    scene.create("root/a/new\nline");
    scene.create("beside");
    let found = subvolumes_inside(&Tree::open(&root).unwrap()).unwrap();
    let paths: Vec<_> = found.iter().map(|one| one.path.as_path()).collect();
    assert_eq!(paths, [Path::new("a/new\nline")]);
}

#[test]
fn without_the_capability_the_list_says_what_it_needs() {
    let scene = Scene::new();
    let tree = Tree::open(&scene.tree).unwrap();
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets).unwrap();
    let error = subvolumes_inside(&tree).unwrap_err().to_string();
    sets.effective.insert(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets).unwrap();
    assert!(error.contains("CAP_SYS_ADMIN"), "{error}");
    assert!(error.starts_with(scene.tree.to_str().unwrap()), "{error}");
}

#[test]
fn a_run_removes_nested_and_read_only_subvolumes_and_nothing_beside_the_tree() {
    let scene = Scene::new();
    let first = scene.create("first");
    scene.create("first/a/inner");
    scene.snapshot(&first, "snapshot");
    scene.create("../outside");
    fs::write(scene.tree.join("file"), "").unwrap();
    let options = Options {
        subvolumes: true,
        ..Options::default()
    };
    let report = remove(Tree::open(&scene.tree).unwrap(), &options, &mut ());
    assert_eq!(report.end, End::Gone, "{:?}", report.problems);
    assert!(!scene.tree.exists());
    assert!(scene.disk.join("above/outside/a/b/deep").exists());
    assert!(scene.disk.join("above").metadata().unwrap().nlink() > 0);
}

#[test]
fn items_that_do_not_fit_their_buffer_are_not_read() {
    let mut buffer = Vec::new();
    for number in [7_u64, 300, 5] {
        buffer.extend(number.to_ne_bytes());
    }
    buffer.extend(ROOT_BACKREF.to_ne_bytes());
    buffer.extend(3_u32.to_ne_bytes());
    buffer.extend(b"abcd");
    let key = BtrfsKey {
        object: 300,
        kind: ROOT_BACKREF,
        offset: 5,
    };
    let whole = (key, b"abc".as_slice(), b"d".as_slice());
    assert_eq!(split_item(&buffer), Some(whole));
    for short in 0..buffer.len() - 1 {
        assert_eq!(split_item(&buffer[..short]), None);
    }

    let mut item = [0; 18].to_vec();
    item[0] = 9;
    item[16] = 2;
    item.extend(b"xy");
    let found = link(&item).unwrap();
    assert_eq!((found.directory, found.name), (9, b"xy".to_vec()));
    for short in 0..item.len() {
        assert!(link(&item[..short]).is_none());
    }
    assert_eq!(root_is_read_only(&[0; 215]), None);
    assert_eq!(root_is_read_only(&[0; 216]), Some(false));
}

#[test]
fn keys_come_one_after_the_other() {
    let key = |object, kind, offset| BtrfsKey { object, kind, offset };
    assert_eq!(after(key(1, 2, 3)), Some(key(1, 2, 4)));
    assert_eq!(after(key(1, 2, u64::MAX)), Some(key(1, 3, 0)));
    assert_eq!(after(key(1, 255, u64::MAX)), Some(key(2, 0, 0)));
    assert_eq!(after(key(u64::MAX, 255, u64::MAX)), None);
    assert!(key(1, 2, 3) < key(1, 3, 0) && key(1, 255, 9) < key(2, 0, 0));
}
