//! A root set aside and put back, on real directories, killed at each point between.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nodemend_rmtree::{Tree, set_aside};
use rustix::fs::XattrFlags;

use super::aside::{Place, find_old};
use super::likeness::{make_like, open_dir};
use super::{aside, own_mount};
use crate::error::Error;
use crate::identity::RootId;
use crate::state::{Run, tests::run};

/// What can be told of an entry: mode, owner, inode, time of change of the content, the content.
pub(crate) type Features = (u32, u32, u64, (i64, i64), Vec<u8>);

/// Everything in a tree.
pub(crate) fn portrait(dir: &Path) -> BTreeMap<PathBuf, Features> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.file_type() {
            kind if kind.is_dir() => {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => fs::read(&path).unwrap(),
        };
        let name = path.strip_prefix(dir).unwrap().to_owned();
        // Of a root that is a mount point the entries are moved, and so its own time changes.
        let time = if name == Path::new("") {
            (0, 0)
        } else {
            (stat.mtime(), stat.mtime_nsec())
        };
        seen.insert(name, (stat.mode(), stat.uid(), stat.ino(), time, content));
    }
    seen
}

/// A small root of containerd.
pub(crate) fn fill(root: &Path) {
    for dir in [
        "io.containerd.metadata.v1.bolt",
        "io.containerd.content.v1.content/blobs/sha256",
        "tmpmounts",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(
        root.join("io.containerd.metadata.v1.bolt/meta.db"),
        [0xed, 0x0c, 0xda, 0xed],
    )
    .unwrap();
    fs::write(
        root.join("io.containerd.content.v1.content/blobs/sha256/00"),
        "layer",
    )
    .unwrap();
    fs::write(root.join("odd\nname"), "odd").unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
}

/// What a containerd that was started on it makes of a new root.
fn start_anew(root: &Path) {
    fs::create_dir(root.join("io.containerd.metadata.v1.bolt")).unwrap();
    fs::write(root.join("io.containerd.metadata.v1.bolt/meta.db"), "new").unwrap();
}

fn of_root(root: &Path, own_mount: bool) -> Run {
    let mut run = run();
    run.root.path = root.to_owned();
    run.root.id = RootId::at(root).unwrap().unwrap();
    run.root.own_mount = own_mount;
    run.root.entries.clear();
    run
}

fn plain() -> (tempfile::TempDir, PathBuf, Run) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().canonicalize().unwrap().join("containerd");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
    let dir = open_dir(&root).unwrap();
    rustix::fs::fsetxattr(&dir, "user.note", b"kept", XattrFlags::empty()).unwrap();
    fill(&root);
    let run = of_root(&root, false);
    (scratch, root, run)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_plain_root_goes_aside_and_comes_back_as_it_was() {
    let (scratch, root, mut run) = plain();
    let before = portrait(&root);
    aside::to_aside(&mut run, true).unwrap();
    assert_eq!(names(&root), Vec::<String>::new(), "the new root is empty");
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o711);
    let aside = run.aside.clone().unwrap();
    assert_eq!(portrait(&aside), before);
    start_anew(&root);

    aside::to_home(&mut run, true).unwrap();
    assert_eq!(portrait(&root), before);
    let marker = nodemend_rmtree::marker();
    let mut value = Vec::with_capacity(10);
    let marked = rustix::fs::getxattr(&root, marker, rustix::buffer::spare_capacity(&mut value));
    assert!(marked.is_err(), "no marker stays");
    let new = run.new_aside.clone().unwrap();
    assert_eq!(
        names(&new),
        ["io.containerd.metadata.v1.bolt"],
        "the new root is kept"
    );
    assert_eq!(names(scratch.path()).len(), 2, "and nothing else is left");
}

/// The run was killed after the call, before the file of the run had its result.
#[test]
fn killed_anywhere_a_plain_root_goes_on_aside() {
    type Kill = fn(&Path, &Path);
    let fresh = |root: &Path| root.with_file_name(".containerd.nodemend-new-2026-01-01T00-00-00Z-1");
    let moments: [(&str, Kill); 4] = [
        ("before anything", |_, _| {}),
        ("after the new root was made", |root, fresh| {
            make_like(Tree::open(root).unwrap().dir(), fresh).unwrap();
        }),
        ("after the old root was renamed", |root, fresh| {
            make_like(Tree::open(root).unwrap().dir(), fresh).unwrap();
            set_aside(Tree::open(root).unwrap()).unwrap();
        }),
        ("after the new root had its name", |root, fresh| {
            make_like(Tree::open(root).unwrap().dir(), fresh).unwrap();
            set_aside(Tree::open(root).unwrap()).unwrap();
            fs::rename(fresh, root).unwrap();
        }),
    ];
    for (moment, kill) in moments {
        for same_boot in [true, false] {
            let (scratch, root, mut run) = plain();
            let before = portrait(&root);
            kill(&root, &fresh(&root));
            aside::to_aside(&mut run, same_boot).unwrap_or_else(|error| panic!("{moment}: {error}"));
            assert_eq!(portrait(&run.aside.clone().unwrap()), before, "{moment}");
            assert_eq!(names(&root), Vec::<String>::new(), "{moment}");
            assert_eq!(names(scratch.path()).len(), 2, "{moment}");
            // Once more is no harm.
            aside::to_aside(&mut run, same_boot).unwrap();
            aside::to_home(&mut run, same_boot).unwrap();
            assert_eq!(portrait(&root), before, "{moment}");
            // And so is this.
            aside::to_home(&mut run, same_boot).unwrap();
            assert_eq!(portrait(&root), before, "{moment}");
        }
    }
}

#[test]
fn killed_in_a_roll_back_it_is_gone_on_with() {
    let (_scratch, root, mut run) = plain();
    let before = portrait(&root);
    aside::to_aside(&mut run, true).unwrap();
    start_anew(&root);
    set_aside(Tree::open(&root).unwrap()).unwrap();
    assert!(!root.exists(), "killed between the two renames");
    aside::to_home(&mut run, true).unwrap();
    assert_eq!(portrait(&root), before);
}

#[test]
fn another_directory_in_place_of_the_root_is_not_set_aside() {
    let (_scratch, root, mut run) = plain();
    fs::rename(&root, root.with_file_name("elsewhere")).unwrap();
    fs::create_dir(&root).unwrap();
    let error = aside::to_aside(&mut run, true).unwrap_err();
    assert!(
        matches!(&error, Error::Unfit(why) if why.contains("somebody moved")),
        "{error}"
    );
    assert!(matches!(find_old(&run, true).unwrap(), Place::Nowhere));
}

/// Runs with a file system of its own at a path, in a mount namespace of its own.
pub(crate) fn with_own_mount(test: impl FnOnce(&Path) + Send) {
    use nix::mount::{MsFlags, mount};
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts, and so needs root"
    );
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_FS)
                .unwrap();
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let scratch = tempfile::tempdir().unwrap();
            let root = scratch.path().canonicalize().unwrap().join("containerd");
            fs::create_dir(&root).unwrap();
            mount(Some("test"), &root, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            fs::create_dir(root.join("lost+found")).unwrap();
            fill(&root);
            test(&root);
            nix::mount::umount(&root).unwrap();
        });
        done.join().unwrap();
    });
}

#[test]
fn a_root_that_is_a_mount_point_is_emptied_into_itself_and_filled_again() {
    with_own_mount(|root| {
        let mut run = of_root(root, true);
        let before = portrait(root);
        own_mount::to_aside(&mut run, true, &mut |_| Ok(())).unwrap();
        let aside = run.aside.clone().unwrap();
        let inside = aside.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(names(root), [inside, "lost+found".to_owned()]);
        start_anew(root);
        own_mount::to_aside(&mut run, true, &mut |_| Ok(())).unwrap_err();

        own_mount::to_home(&mut run, true, &mut |_| Ok(())).unwrap();
        let new = run.new_aside.clone().unwrap();
        assert_eq!(
            fs::read(new.join("io.containerd.metadata.v1.bolt/meta.db")).unwrap(),
            b"new"
        );
        fs::remove_dir_all(&new).unwrap();
        assert_eq!(portrait(root), before);
        own_mount::to_home(&mut run, true, &mut |_| Ok(())).unwrap();
        assert_eq!(portrait(root), before);
    });
}

/// Each of the moves may be the last of a run that is killed: the way on and the way back both end where they should.
#[test]
fn killed_between_any_two_moves_the_entries_go_on_or_back() {
    with_own_mount(|root| {
        let before = portrait(root);
        let count = own_mount::entries(root).unwrap().len();
        assert!(count > 3);
        for moved in 0..=count {
            for back in [false, true] {
                let mut run = of_root(root, true);
                own_mount::to_aside(&mut run, true, &mut |_| Ok(())).unwrap();
                let aside = run.aside.clone().unwrap();
                // As it was when only so many had been moved.
                for entry in &run.root.entries[moved..] {
                    fs::rename(aside.join(&entry.name), root.join(&entry.name)).unwrap();
                }
                if !back {
                    own_mount::to_aside(&mut run, true, &mut |_| Ok(())).unwrap();
                    assert_eq!(names(root).len(), 2, "{moved} moved");
                }
                own_mount::to_home(&mut run, true, &mut |_| Ok(())).unwrap();
                assert_eq!(portrait(root), before, "{moved} moved");
                assert_eq!(run.new_aside, None);
            }
        }
    });
}

#[test]
fn a_containerd_that_ran_on_half_a_root_is_told_and_rolled_back() {
    with_own_mount(|root| {
        let before = portrait(root);
        let mut run = of_root(root, true);
        own_mount::to_aside(&mut run, true, &mut |_| Ok(())).unwrap();
        let aside = run.aside.clone().unwrap();
        fs::rename(aside.join("tmpmounts"), root.join("tmpmounts")).unwrap();
        start_anew(root);
        let error = own_mount::to_aside(&mut run, false, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("--roll-back first"), "{error}");
        own_mount::to_home(&mut run, false, &mut |_| Ok(())).unwrap();
        fs::remove_dir_all(run.new_aside.clone().unwrap()).unwrap();
        assert_eq!(portrait(root), before);
    });
}
