#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nodemend_lab::disk::{Format, Ground};
use nodemend_lab::old_kernel::Kernel;
use rustix::fs::CWD;

use super::*;

const FILE: AtFlags = AtFlags::empty();
const DIRECTORY: AtFlags = AtFlags::REMOVEDIR;

fn chattr(flags: &str, path: &Path) {
    let output = Command::new("chattr").arg(flags).arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// As lsattr sees them.
fn lsattr(path: &Path) -> Flags {
    let output = Command::new("lsattr").arg("-d").arg(path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let letters = output.stdout.split(|&byte| byte == b' ').next().unwrap();
    Flags {
        immutable: letters.contains(&b'i'),
        append_only: letters.contains(&b'a'),
    }
}

const NONE: Flags = Flags {
    immutable: false,
    append_only: false,
};
const IMMUTABLE: Flags = Flags {
    immutable: true,
    append_only: false,
};
const APPEND: Flags = Flags {
    immutable: false,
    append_only: true,
};
const BOTH: Flags = Flags {
    immutable: true,
    append_only: true,
};

/// `tree` with what is to go, `outside` with what is not.
struct Scene {
    tree: PathBuf,
    outside: PathBuf,
    dir: File,
}

impl Scene {
    fn on(disk: &Path) -> Self {
        let (tree, outside) = (disk.join("tree"), disk.join("outside"));
        fs::create_dir(&tree).unwrap();
        fs::create_dir(&outside).unwrap();
        let dir = File::open(&tree).unwrap();
        Self { tree, outside, dir }
    }

    fn file(&self, name: &str, flags: &str) -> PathBuf {
        let path = self.tree.join(name);
        fs::write(&path, "content").unwrap();
        chattr(flags, &path);
        path
    }

    fn protecting(&self, name: &CStr) -> Option<Protection> {
        protecting(self.dir.as_fd(), name)
    }

    fn remove(&self, name: &CStr, how: AtFlags) -> Outcome {
        let plain = rustix::fs::unlinkat(&self.dir, name, how);
        assert_eq!(plain, Err(Errno::PERM), "the kernel keeps it at first");
        remove_protected(self.dir.as_fd(), name, how, Directory::Goes)
    }
}

/// On each file system, on this kernel and on an old one.
fn everywhere(test: fn(&Scene)) {
    on_each_disk(false, test);
    on_each_disk(true, test);
}

fn on_each_disk(old: bool, test: fn(&Scene)) {
    // The namespace and the filter are the thread's own.
    thread::spawn(move || {
        let ground = Ground::enter().unwrap();
        let disks = Format::ALL.map(|format| Scene::on(&ground.disk(format, 320).unwrap()));
        if old {
            Kernel::Linux3_10.enter().unwrap();
        }
        for scene in &disks {
            test(scene);
        }
    })
    .join()
    .unwrap();
}

fn gone(outcome: &Outcome) {
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.bare, None);
}

#[test]
fn a_file_with_flags_goes() {
    everywhere(|scene| {
        for (flags, expected) in [("+i", IMMUTABLE), ("+a", APPEND), ("+ia", BOTH)] {
            let file = scene.file("file", flags);
            let protection = scene.protecting(c"file").unwrap();
            assert_eq!((protection.entry, protection.directory), (expected, NONE));
            gone(&scene.remove(c"file", FILE));
            assert!(!file.exists());
        }
    });
}

#[test]
fn a_directory_with_flags_goes() {
    everywhere(|scene| {
        for flags in ["+i", "+a"] {
            let dir = scene.tree.join("dir");
            fs::create_dir(&dir).unwrap();
            chattr(flags, &dir);
            gone(&scene.remove(c"dir", DIRECTORY));
            assert!(!dir.exists());
        }
    });
}

#[test]
fn what_lies_in_a_directory_with_flags_goes_and_the_directory_loses_them() {
    everywhere(|scene| {
        for (flags, expected) in [("+i", IMMUTABLE), ("+a", APPEND)] {
            fs::write(scene.tree.join("file"), "").unwrap();
            std::os::unix::fs::symlink("nowhere", scene.tree.join("link")).unwrap();
            rustix::fs::mknodat(CWD, scene.tree.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            rustix::fs::mknodat(
                CWD,
                scene.tree.join("hole"),
                FileType::CharacterDevice,
                Mode::RUSR,
                0,
            )
            .unwrap();
            for name in [c"file", c"link", c"fifo", c"hole"] {
                chattr(flags, &scene.tree);
                let protection = scene.protecting(name).unwrap();
                assert_eq!((protection.entry, protection.directory), (NONE, expected));
                let outcome = scene.remove(name, FILE);
                gone(&outcome);
                assert_eq!(outcome.directory, expected);
                assert_eq!(lsattr(&scene.tree), NONE);
            }
            assert_eq!(fs::read_dir(&scene.tree).unwrap().count(), 0);
            put_back(scene.dir.as_fd(), expected).unwrap();
            assert_eq!(lsattr(&scene.tree), expected);
            chattr("-ia", &scene.tree);
        }
    });
}

#[test]
fn the_directory_that_holds_the_root_keeps_its_flags() {
    everywhere(|scene| {
        fs::create_dir(scene.tree.join("root")).unwrap();
        fs::write(scene.tree.join("root/kept"), "").unwrap();
        chattr("+a", &scene.tree);
        let full = remove_protected(scene.dir.as_fd(), c"root", DIRECTORY, Directory::Stays);
        assert_eq!(full.result, Err(Refusal::Kernel(Errno::NOTEMPTY)));
        assert_eq!(lsattr(&scene.tree), APPEND, "also where the attempt failed");
        fs::remove_file(scene.tree.join("root/kept")).unwrap();
        let outcome = remove_protected(scene.dir.as_fd(), c"root", DIRECTORY, Directory::Stays);
        gone(&outcome);
        assert_eq!(outcome.directory, NONE);
        assert_eq!(lsattr(&scene.tree), APPEND);
        assert!(!scene.tree.join("root").exists());
    });
}

#[test]
fn a_link_outside_of_the_tree_has_its_flags_and_content_afterwards() {
    everywhere(|scene| {
        for (flags, expected) in [("+i", IMMUTABLE), ("+a", APPEND), ("+ia", BOTH)] {
            let inside = scene.tree.join("inside");
            let outside = scene.outside.join(flags);
            fs::write(&outside, "content").unwrap();
            chattr("+d", &outside);
            fs::hard_link(&outside, &inside).unwrap();
            chattr(flags, &outside);
            gone(&scene.remove(c"inside", FILE));
            assert!(!inside.exists());
            assert_eq!(lsattr(&outside), expected);
            assert_eq!(fs::read(&outside).unwrap(), b"content");
            let all = get(&File::open(&outside).unwrap().into()).unwrap();
            assert!(all.contains(IFlags::NODUMP), "other flags are as they were");
        }
    });
}

#[test]
fn what_stays_gets_its_flags_back() {
    everywhere(|scene| {
        let dir = scene.tree.join("full");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        chattr("+i", &dir);
        let outcome = scene.remove(c"full", DIRECTORY);
        assert_eq!(outcome.result, Err(Refusal::Kernel(Errno::NOTEMPTY)));
        assert_eq!(lsattr(&dir), IMMUTABLE);
    });
}

#[test]
fn many_links_of_one_file_go_at_once_and_the_one_outside_keeps_the_flag() {
    // glibc starts no thread behind the filter of the old kernel (it has rseq, or has not, for all of them).
    on_each_disk(false, |scene| {
        let outside = scene.outside.join("file");
        fs::write(&outside, "").unwrap();
        for number in 0..200 {
            fs::hard_link(&outside, scene.tree.join(number.to_string())).unwrap();
        }
        chattr("+i", &outside);
        thread::scope(|scope| {
            for part in 0..4 {
                scope.spawn(move || {
                    for number in (0..200).filter(|number| number % 4 == part) {
                        let name = std::ffi::CString::new(number.to_string()).unwrap();
                        gone(&remove_protected(scene.dir.as_fd(), &name, FILE, Directory::Goes));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&scene.tree).unwrap().count(), 0);
        assert_eq!(outside.metadata().unwrap().nlink(), 1);
        assert_eq!(lsattr(&outside), IMMUTABLE);
    });
}

#[test]
fn what_is_mounted_on_an_entry_keeps_its_flags() {
    everywhere(|scene| {
        let file = scene.file("file", "+i");
        let victim = scene.outside.join("victim");
        fs::write(&victim, "").unwrap();
        chattr("+i", &victim);
        rustix::mount::mount_bind(&victim, &file).unwrap();
        chattr("+a", &scene.tree);
        let outcome = scene.remove(c"file", FILE);
        assert_eq!(outcome.result, Err(Refusal::Mounted));
        assert_eq!(lsattr(&victim), IMMUTABLE);
        assert_eq!(
            lsattr(&scene.tree),
            APPEND,
            "nothing is changed for what cannot go"
        );
        let protection = scene.protecting(c"file").unwrap();
        assert_eq!((protection.entry, protection.directory), (NONE, APPEND));
        chattr("-a", &scene.tree);
    });
}

#[test]
fn a_symlink_is_not_followed_to_a_file_with_flags() {
    everywhere(|scene| {
        let victim = scene.outside.join("victim");
        fs::write(&victim, "").unwrap();
        chattr("+i", &victim);
        std::os::unix::fs::symlink(&victim, scene.tree.join("link")).unwrap();
        assert_eq!(scene.protecting(c"link"), None);
        gone(&remove_protected(
            scene.dir.as_fd(),
            c"link",
            FILE,
            Directory::Goes,
        ));
        assert_eq!(lsattr(&victim), IMMUTABLE);
    });
}

#[test]
fn without_the_capability_nothing_changes_and_the_flags_are_named() {
    everywhere(|scene| {
        let file = scene.file("file", "+a");
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective
            .remove(rustix::thread::CapabilitySet::LINUX_IMMUTABLE);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let outcome = remove_protected(scene.dir.as_fd(), c"file", FILE, Directory::Goes);
        sets.effective
            .insert(rustix::thread::CapabilitySet::LINUX_IMMUTABLE);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let Err(Refusal::Stuck { protection, error }) = outcome.result else {
            panic!("{outcome:?}");
        };
        assert_eq!((protection.entry, error), (APPEND, Errno::PERM));
        assert_eq!(protection.to_string(), "the entry is append-only");
        assert_eq!(protection.reason(), Reason::AppendOnly);
        assert_eq!(lsattr(&file), APPEND);
    });
}

#[test]
fn a_refusal_for_another_reason_is_not_blamed_on_flags() {
    everywhere(|scene| {
        fs::write(scene.tree.join("file"), "").unwrap();
        assert_eq!(scene.protecting(c"file"), None);
        assert_eq!(scene.protecting(c"nothing"), None);
        let outcome = with_flags_off(scene.dir.as_fd(), c"file", Directory::Goes, || Err(Errno::PERM));
        assert_eq!(outcome.result, Err(Refusal::Kernel(Errno::PERM)));
        let outcome = remove_protected(scene.dir.as_fd(), c"nothing", FILE, Directory::Goes);
        assert_eq!(outcome.result, Err(Refusal::Kernel(Errno::NOENT)));
    });
}

#[test]
fn statx_and_the_ioctl_tell_the_same() {
    let ground = Ground::enter().unwrap();
    for format in Format::ALL {
        let scene = Scene::on(&ground.disk(format, 320).unwrap());
        fs::create_dir(scene.tree.join("dir")).unwrap();
        for (flags, expected) in [("=", NONE), ("=i", IMMUTABLE), ("=a", APPEND), ("=ia", BOTH)] {
            scene.file("file", flags);
            chattr(flags, &scene.tree.join("dir"));
            for name in [c"file", c"dir"] {
                let entry = open_entry(scene.dir.as_fd(), name).unwrap();
                assert_eq!(
                    by_statx(entry.path.as_fd()),
                    Some(expected),
                    "{format:?} {name:?}"
                );
                assert_eq!(entry.by_ioctl(), Ok(expected), "{format:?} {name:?}");
            }
            chattr("-ia", &scene.tree.join("file"));
        }
        let path = rustix::fs::open(&scene.tree, OFlags::PATH, Mode::empty()).unwrap();
        chattr("+i", &scene.tree);
        assert_eq!(
            directory_flags(path.as_fd()),
            Ok(IMMUTABLE),
            "an O_PATH descriptor will do"
        );
        chattr("-i", &scene.tree);
    }
}

#[test]
fn both_ways_to_open_an_entry_stop_at_a_mount() {
    let ground = Ground::enter().unwrap();
    for format in Format::ALL {
        let scene = Scene::on(&ground.disk(format, 320).unwrap());
        for name in ["free", "taken"] {
            fs::write(scene.tree.join(name), "").unwrap();
        }
        fs::write(scene.outside.join("file"), "").unwrap();
        rustix::mount::mount_bind(scene.outside.join("file"), scene.tree.join("taken")).unwrap();
        let dir = scene.dir.as_fd();
        let free = open_entry(dir, c"free").unwrap();
        let compared = open_entry_compared(dir, c"free").unwrap();
        assert_eq!(FileId::of(&compared).unwrap(), FileId::from(&free.stat));
        assert_eq!(open_entry(dir, c"taken").err(), Some(Refusal::Mounted));
        assert_eq!(open_entry_compared(dir, c"taken").err(), Some(Refusal::Mounted));
    }
}

#[test]
fn special_files_are_never_opened() {
    let ground = Ground::enter().unwrap();
    let scene = Scene::on(&ground.disk(Format::Ext4, 320).unwrap());
    for (name, kind) in [
        (c"fifo", FileType::Fifo),
        (c"socket", FileType::Socket),
        (c"null", FileType::CharacterDevice),
    ] {
        rustix::fs::mknodat(&scene.dir, name, kind, Mode::RUSR, 0).unwrap();
        let entry = open_entry(scene.dir.as_fd(), name).unwrap();
        assert_eq!(entry.reopen().err(), Some(Errno::OPNOTSUPP));
        assert_eq!(entry.by_ioctl(), Ok(NONE));
    }
}

/// Whoever swaps a name as fast as possible gets no flag off a file that is not in the directory.
#[test]
fn a_swapped_name_costs_no_flag_outside() {
    let ground = Ground::enter().unwrap();
    for format in Format::ALL {
        let scene = Scene::on(&ground.disk(format, 320).unwrap());
        let victim = scene.outside.join("victim");
        fs::write(&victim, "").unwrap();
        chattr("+i", &victim);
        let held = File::open(&victim).unwrap().into();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (file, link) = (scene.outside.join("file"), scene.outside.join("link"));
                let name = scene.tree.join("name");
                while !stop.load(Ordering::Relaxed) {
                    fs::write(&file, "").unwrap();
                    let handle = File::open(&file).unwrap();
                    let _ = fs::rename(&file, &name);
                    let _ = rustix::fs::ioctl_setflags(&handle, IFlags::IMMUTABLE);
                    let _ = fs::remove_file(&link);
                    std::os::unix::fs::symlink(&victim, &link).unwrap();
                    let _ = fs::rename(&link, &name);
                    let _ = rustix::fs::ioctl_setflags(&handle, IFlags::empty());
                }
            });
            for _ in 0..3000 {
                let _ = remove_protected(scene.dir.as_fd(), c"name", FILE, Directory::Goes);
                assert!(get(&held).unwrap().contains(IFlags::IMMUTABLE));
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(lsattr(&victim), IMMUTABLE);
    }
}
