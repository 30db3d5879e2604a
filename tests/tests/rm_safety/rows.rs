//! What a removal meets. Each is run on several kernels and, on today's, on each file system: see `each_row`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use nodemend_lab::disk::{Format, Ground};
use nodemend_lab::hostile::{Dir, Flag, Opened, Outcome, Program, Stage, flag_of, set_flag};
use nodemend_lab::old_kernel::Kernel;

/// Makes a test of each row.
macro_rules! each_row {
    ($kernel:expr) => {
        crate::rows::each_row! { $kernel,
            a_bind_mount_of_the_same_file_system_is_left_with_what_it_shows
            a_bind_mount_of_a_single_file_is_left
            a_bind_mount_of_the_tree_in_itself_is_left_and_its_source_goes
            a_file_system_mounted_inside_is_left
            an_overlay_inside_is_left_with_its_layers
            stacked_mounts_are_left
            a_mount_point_with_an_odd_name_is_left_and_named
            a_mount_of_another_namespace_loses_nothing
            what_is_immutable_or_append_only_stays_and_all_else_goes
            an_error_in_each_of_many_directories_ends_nothing
            flags_are_cleared_if_asked_and_put_back_on_names_outside
            the_flag_of_the_directory_around_the_tree_is_put_back
            five_thousand_levels_go_with_1024_open_files
            five_thousand_levels_go_with_32_open_directories
            odd_names_go
            special_files_go_and_are_never_opened
            hard_links_and_symlinks_go_and_what_they_lead_to_stays
            a_file_system_that_does_not_say_types_is_no_obstacle
            a_root_that_is_kept_is_empty
            a_symlink_as_the_argument_is_refused
            a_symlink_on_the_way_to_the_tree_is_refused
            a_mount_point_as_the_argument_is_refused
            what_is_no_directory_of_a_name_is_refused
            subvolumes_stay_unless_asked
            subvolumes_and_snapshots_are_destroyed_if_asked
            a_tree_in_a_read_only_snapshot_stays_and_the_reason_is_given
            a_mount_in_a_subvolume_loses_nothing
            the_tool_refuses_mounts_or_leaves_them_and_removes_all_else
        }
    };
    ($kernel:expr, $($row:ident)*) => {
        $(
            #[test]
            fn $row() {
                crate::rows::$row($kernel);
            }
        )*
    };
}
pub(crate) use each_row;

/// The file systems to try on a kernel: another kernel has other calls, not other file systems.
fn formats(kernel: Kernel) -> &'static [Format] {
    if kernel == Kernel::Today {
        &Format::ALL
    } else {
        &[Format::Ext4]
    }
}

/// On each file system.
fn on_each(kernel: Kernel, row: impl Fn(Stage)) {
    for format in formats(kernel) {
        println!("on {format:?}");
        row(Stage::new(*format, kernel).unwrap());
    }
}

/// This stayed, each for its reason, with the directories that it is in; all else is gone.
#[track_caller]
fn assert_stayed(stage: &Stage, outcome: &Outcome, what: &[(&str, &str)]) {
    let what: Vec<(String, String)> = what
        .iter()
        .map(|(path, reason)| ((*path).to_owned(), (*reason).to_owned()))
        .collect();
    assert_eq!(stage.stayed(outcome), what, "{outcome:?}");
    let paths = what.iter().map(|(path, _)| Path::new(path));
    let with_parents = paths.flat_map(Path::ancestors);
    let left = with_parents
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(stage.left().unwrap(), left, "{outcome:?}");
    assert_eq!(outcome.end, "left");
    let counted: u64 = outcome.counts.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, what.len() as u64, "{outcome:?}");
}

/// Nothing stayed.
#[track_caller]
fn assert_gone(stage: &Stage, outcome: &Outcome) {
    assert_eq!(outcome.end, "gone", "{outcome:?}");
    assert_eq!(outcome.problems, []);
    assert_eq!(outcome.counts, []);
    assert!(!stage.tree.exists());
}

pub(crate) fn a_bind_mount_of_the_same_file_system_is_left_with_what_it_shows(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap();
        let victim = stage.victim.clone();
        stage.bind(&victim, "snapshots/1/fs/mnt").unwrap();
        fs::write(stage.at("snapshots/1/fs/beside"), "").unwrap();
        let outcome = stage.remove(&[]).unwrap();
        assert_stayed(&stage, &outcome, &[("snapshots/1/fs/mnt", "mount")]);
        // The disk itself is named.
        let detail = outcome.problems[0].detail.clone().unwrap_or_default();
        assert!(detail.contains("/dev/loop"), "{outcome:?}");
    });
}

pub(crate) fn a_bind_mount_of_a_single_file_is_left(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap();
        let file = stage.victim.join("file");
        stage.dir("etc").unwrap();
        stage.bind(&file, "etc/resolv.conf").unwrap();
        let outcome = stage.remove(&[]).unwrap();
        assert_stayed(&stage, &outcome, &[("etc/resolv.conf", "mount")]);
    });
}

pub(crate) fn a_bind_mount_of_the_tree_in_itself_is_left_and_its_source_goes(kernel: Kernel) {
    on_each(kernel, |stage| {
        stage.plant().unwrap();
        for (below, from) in [("parent", stage.disk.clone()), ("self", stage.tree.clone())] {
            let at = stage.dir(below).unwrap();
            nix::mount::mount(
                Some(&from),
                &at,
                None::<&str>,
                nix::mount::MsFlags::MS_BIND,
                None::<&str>,
            )
            .unwrap();
        }
        let before = stage.outside().unwrap();
        // What these mounts show is the tree itself: no view that must stay.
        let outcome = stage.run(Program::Library, &[]).unwrap().outcome().unwrap();
        let stayed = stage.stayed(&outcome);
        for below in ["parent", "self"] {
            assert!(stage.at(below).join(".").exists());
            nix::mount::umount(&stage.at(below)).unwrap();
        }
        stage.unchanged(&before).unwrap();
        let both = ["parent", "self"].map(|below| (below.to_owned(), "mount".to_owned()));
        assert_eq!(stayed, both);
        let left: Vec<String> = stage.left().unwrap().into_iter().collect();
        assert_eq!(left, ["", "parent", "self"]);
        assert_gone(&stage, &stage.remove(&[]).unwrap());
    });
}

pub(crate) fn a_file_system_mounted_inside_is_left(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap();
        stage.tmpfs("pods/volume").unwrap();
        let outcome = stage.remove(&[]).unwrap();
        assert_stayed(&stage, &outcome, &[("pods/volume", "mount")]);
        let detail = outcome.problems[0].detail.clone().unwrap_or_default();
        assert!(detail.contains("tmpfs"), "{outcome:?}");
    });
}

pub(crate) fn an_overlay_inside_is_left_with_its_layers(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap();
        stage.overlay("container/rootfs").unwrap();
        let outcome = stage.remove(&[]).unwrap();
        assert_stayed(&stage, &outcome, &[("container/rootfs", "mount")]);
    });
}

pub(crate) fn stacked_mounts_are_left(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap();
        let victim = stage.victim.clone();
        // One on the other, and one in the other.
        stage.tmpfs("one-on-the-other").unwrap();
        stage.bind(&victim, "one-on-the-other").unwrap();
        stage.bind(&victim, "one-on-the-other").unwrap();
        stage.tmpfs("one-in-the-other").unwrap();
        stage.bind(&victim, "one-in-the-other/a/b").unwrap();
        stage.overlay("one-in-the-other/c").unwrap();
        let outcome = stage.remove(&[]).unwrap();
        let stayed = [("one-in-the-other", "mount"), ("one-on-the-other", "mount")];
        assert_stayed(&stage, &outcome, &stayed);
    });
}

pub(crate) fn a_mount_point_with_an_odd_name_is_left_and_named(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        let root = stage.plant().unwrap();
        root.odd().unwrap();
        let victim = stage.victim.clone();
        let mut expected = Vec::new();
        for name in Dir::odd_names() {
            stage.bind(&victim, Path::new("on").join(&name)).unwrap();
            let name = name.as_encoded_bytes().escape_ascii();
            expected.push((format!("on/{name}"), "mount".to_owned()));
        }
        expected.sort();
        let outcome = stage.remove(&[]).unwrap();
        assert_eq!(stage.stayed(&outcome), expected, "{outcome:?}");
        assert_eq!(stage.left().unwrap().len(), expected.len() + 2);
    });
}

/// A container of its own, so to say: the mount is seen there only, and no removal here can know of it.
pub(crate) fn a_mount_of_another_namespace_loses_nothing(kernel: Kernel) {
    on_each(kernel, |stage| {
        stage.plant().unwrap();
        let at = stage.dir("a/b").unwrap();
        let (ready, wait) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let victim = stage.victim.clone();
        let elsewhere = thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)
                .unwrap();
            nix::mount::mount(
                Some(&victim),
                &at,
                None::<&str>,
                nix::mount::MsFlags::MS_BIND,
                None::<&str>,
            )
            .unwrap();
            assert!(at.join("file").exists());
            ready.send(()).unwrap();
            let _ = ended.recv();
        });
        wait.recv().unwrap();
        let outcome = stage.remove(&[]).unwrap();
        assert_gone(&stage, &outcome);
        drop(end);
        elsewhere.join().unwrap();
    });
}

pub(crate) fn what_is_immutable_or_append_only_stays_and_all_else_goes(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        let all = [("i", Flag::Immutable), ("a", Flag::AppendOnly)];
        for (name, flag) in all {
            let dir = root.dir(name).unwrap();
            dir.file("goes", "").unwrap();
            dir.file("file", "").unwrap();
            dir.dir("empty").unwrap();
            let held = dir.dir("held").unwrap();
            held.file("one", "").unwrap();
            held.dir("two").unwrap();
            // What lies deeper than the directory with the flag goes.
            held.dir("three").unwrap().file("goes", "").unwrap();
            for protected in ["file", "empty", "held"] {
                set_flag(&stage.at(name).join(protected), flag, true).unwrap();
            }
        }
        let outcome = stage.remove(&[]).unwrap();
        let (a, i) = ("appendOnly", "immutable");
        let stayed = [
            ("a/empty", a),
            ("a/file", a),
            ("a/held/one", a),
            ("a/held/three", a),
            ("a/held/two", a),
            ("i/empty", i),
            ("i/file", i),
            ("i/held/one", i),
            ("i/held/three", i),
            ("i/held/two", i),
        ];
        assert_stayed(&stage, &outcome, &stayed);
        assert!(
            outcome
                .problems
                .iter()
                .all(|problem| problem.errno == Some(nix::libc::EPERM))
        );
        for name in ["i/file", "i/empty", "i/held"] {
            assert_eq!(flag_of(&stage.at(name)).unwrap(), [Flag::Immutable]);
        }
    });
}

pub(crate) fn an_error_in_each_of_many_directories_ends_nothing(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        root.grove(300, 3).unwrap();
        let held: Vec<String> = (0..300).map(|dir| format!("d{dir:05}/f1")).collect();
        for file in &held {
            set_flag(&stage.at(file), Flag::Immutable, true).unwrap();
        }
        let outcome = stage.remove(&[]).unwrap();
        let held: Vec<_> = held.iter().map(|file| (file.as_str(), "immutable")).collect();
        assert_stayed(&stage, &outcome, &held);
    });
}

pub(crate) fn flags_are_cleared_if_asked_and_put_back_on_names_outside(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        for (name, flag) in [("i", Flag::Immutable), ("a", Flag::AppendOnly)] {
            let dir = root.dir(name).unwrap();
            let outside = stage.disk.join(format!("outside-{name}"));
            fs::write(&outside, "content").unwrap();
            dir.link("also outside", &outside).unwrap();
            dir.file("inside", "").unwrap();
            // Two names, both of them in the tree.
            dir.link("inside too", &stage.at(name).join("inside")).unwrap();
            let held = dir.dir("held").unwrap();
            held.file("one", "").unwrap();
            held.link("also outside", &outside).unwrap();
            held.dir("two").unwrap().file("three", "").unwrap();
            let named = ["also outside", "inside", "held/one", "held/two", "held"];
            for protected in named.map(|below| stage.at(name).join(below)) {
                set_flag(&protected, flag, true).unwrap();
            }
        }
        set_flag(&stage.tree, Flag::Immutable, true).unwrap();
        let expected = stage.outside().unwrap();
        let outside = |name: &str| stage.disk.join(format!("outside-{name}"));
        let expected = expected
            .with_fewer_links(&outside("i"), 2)
            .with_fewer_links(&outside("a"), 2);
        assert_eq!(flag_of(&outside("i")).unwrap(), [Flag::Immutable]);
        let outcome = stage.remove_expecting(&["--clear-flags"], &expected).unwrap();
        assert_gone(&stage, &outcome);
        for name in ["i", "a"] {
            set_flag(&outside(name), Flag::Immutable, false).unwrap();
        }
    });
}

pub(crate) fn the_flag_of_the_directory_around_the_tree_is_put_back(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.tree = stage.disk.join("around/tree");
        stage.dir("").unwrap();
        stage.except(stage.tree.clone());
        stage.plant().unwrap();
        let around = stage.disk.join("around");
        set_flag(&around, Flag::Immutable, true).unwrap();
        let outcome = stage.remove(&[]).unwrap();
        assert_stayed(&stage, &outcome, &[("", "immutable")]);
        assert_gone(&stage, &stage.remove(&["--clear-flags"]).unwrap());
        set_flag(&around, Flag::Immutable, false).unwrap();
    });
}

pub(crate) fn five_thousand_levels_go_with_1024_open_files(kernel: Kernel) {
    on_each(kernel, |stage| {
        stage.plant().unwrap().chain(5000).unwrap();
        let outcome = stage.remove(&["--open-files", "1024"]).unwrap();
        assert_gone(&stage, &outcome);
        // The root; the 11 of every tree; the levels; and one beside each but the last.
        assert_eq!(outcome.directories, 1 + 11 + 5000 + 4999);
    });
}

pub(crate) fn five_thousand_levels_go_with_32_open_directories(kernel: Kernel) {
    on_each(kernel, |stage| {
        // Two chains: their directories are open in turns.
        for chain in ["one", "two"] {
            stage.dir(chain).unwrap();
            Dir::open(&stage.at(chain)).unwrap().chain(5000).unwrap();
        }
        let arguments = ["--open-dirs", "32", "--threads", "8", "--open-files", "64"];
        let outcome = stage.remove(&arguments).unwrap();
        assert_gone(&stage, &outcome);
        assert_eq!(outcome.directories, 1 + 2 * (1 + 5000 + 4999));
    });
}

pub(crate) fn odd_names_go(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        root.odd().unwrap();
        assert_gone(&stage, &stage.remove(&[]).unwrap());
    });
}

pub(crate) fn special_files_go_and_are_never_opened(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        let mut files = Vec::new();
        for dir in ["one", "two"] {
            let names = root.dir(dir).unwrap().specials().unwrap();
            files.extend(names.iter().map(|name| stage.at(dir).join(name)));
        }
        files.push(stage.at("plain/0/0"));
        let before = stage.outside().unwrap();
        let opened = Opened::watch(files.iter().map(AsRef::as_ref)).unwrap();
        let outcome = stage.run(Program::Library, &[]).unwrap().outcome().unwrap();
        assert_eq!(opened.count().unwrap(), 0, "something was opened");
        stage.unchanged(&before).unwrap();
        assert_gone(&stage, &outcome);
    });
}

pub(crate) fn hard_links_and_symlinks_go_and_what_they_lead_to_stays(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        let file = stage.victim.join("dir/deep/c");
        root.link("hard", &file).unwrap();
        root.dir("below").unwrap().link("hard", &file).unwrap();
        for (index, target) in ["../victim", "../../victim/dir", "/", ".", "..", "none", "self"]
            .iter()
            .enumerate()
        {
            root.symlink(format!("relative-{index}"), target).unwrap();
        }
        root.symlink("self", "self").unwrap();
        for below in ["", "dir", "dir/deep", "file", "none"] {
            let name = format!("absolute-{}", below.replace('/', "-"));
            root.symlink(name, stage.victim.join(below)).unwrap();
        }
        let expected = stage.outside().unwrap().with_fewer_links(&file, 2);
        assert_gone(&stage, &stage.remove_expecting(&[], &expected).unwrap());
    });
}

/// Some file systems list names only: each entry has to be asked what it is.
pub(crate) fn a_file_system_that_does_not_say_types_is_no_obstacle(kernel: Kernel) {
    let ground = Ground::enter().unwrap();
    let disk = ground
        .disk_with(Format::Ext4, 320, &["-O", "^filetype"], &[])
        .unwrap();
    let mut stage = Stage::on(ground, disk, kernel).unwrap();
    let root = stage.plant().unwrap();
    root.odd().unwrap();
    root.specials().unwrap();
    let victim = stage.victim.clone();
    stage.bind(&victim, "mounted").unwrap();
    let file = victim.join("file");
    stage.bind(&file, "mounted-file").unwrap();
    let outcome = stage.remove(&[]).unwrap();
    assert_stayed(
        &stage,
        &outcome,
        &[("mounted", "mount"), ("mounted-file", "mount")],
    );
}

pub(crate) fn a_root_that_is_kept_is_empty(kernel: Kernel) {
    on_each(kernel, |stage| {
        stage.plant().unwrap().grove(20, 3).unwrap();
        let outcome = stage.remove(&["--keep-root"]).unwrap();
        assert_eq!(outcome.end, "gone", "{outcome:?}");
        assert_eq!(stage.left().unwrap().len(), 1);
        assert_eq!(outcome.directories, 11 + 2 * 20);
    });
}

/// Asks for the removal of a path that must be refused, by both programs; nothing at all may change.
#[track_caller]
fn assert_refused(stage: &Stage, path: &Path, word: &str) {
    let path = path.to_str().unwrap();
    let before = stage.outside().unwrap();
    let left = stage.left().unwrap();
    let mut command = stage.command(Program::Library, &[path]).unwrap();
    let ended = nodemend_lab::hostile::end_of(command.spawn().unwrap()).unwrap();
    let refused = ended.outcome().unwrap().refused;
    assert_eq!(
        refused.map(|(name, _)| name),
        Some(word.to_owned()),
        "{path}: {ended}"
    );
    stage.unchanged(&before).unwrap();
    assert_eq!(stage.left().unwrap(), left);
}

pub(crate) fn a_symlink_as_the_argument_is_refused(kernel: Kernel) {
    on_each(kernel, |stage| {
        stage.plant().unwrap();
        let link = stage.disk.join("link");
        symlink(&stage.tree, &link).unwrap();
        let dangling = stage.disk.join("dangling");
        symlink("none", &dangling).unwrap();
        assert_refused(&stage, &link, "symlink");
        assert_refused(&stage, &dangling, "symlink");
        // With this, most calls would follow it.
        assert_refused(&stage, &link.join(""), "symlink");
    });
}

pub(crate) fn a_symlink_on_the_way_to_the_tree_is_refused(kernel: Kernel) {
    on_each(kernel, |stage| {
        stage.plant().unwrap();
        let way = stage.disk.join("way");
        symlink(&stage.tree, &way).unwrap();
        assert_refused(&stage, &way.join("plain"), "symlink");
        assert_refused(&stage, &way.join("plain/0"), "symlink");
    });
}

pub(crate) fn a_mount_point_as_the_argument_is_refused(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap();
        let victim = stage.victim.clone();
        stage.bind(&victim, "bound").unwrap();
        stage.tmpfs("tmpfs").unwrap();
        assert_refused(&stage, &stage.disk, "mountPoint");
        assert_refused(&stage, &stage.at("bound"), "mountPoint");
        assert_refused(&stage, &stage.at("tmpfs"), "mountPoint");
    });
}

pub(crate) fn what_is_no_directory_of_a_name_is_refused(kernel: Kernel) {
    on_each(kernel, |stage| {
        let root = stage.plant().unwrap();
        root.specials().unwrap();
        assert_refused(&stage, Path::new("/"), "noName");
        assert_refused(&stage, &stage.at(".."), "noName");
        assert_refused(&stage, &stage.at("plain/0/.."), "noName");
        assert_refused(&stage, &stage.at("plain/0/0"), "notADirectory");
        assert_refused(&stage, &stage.at("fifo"), "notADirectory");
        assert_refused(&stage, &stage.at("null"), "notADirectory");
        assert_refused(&stage, &stage.at("none"), "io");
    });
}

/// A tree with a subvolume in a subvolume, and snapshots of both and of what is outside.
fn with_subvolumes(kernel: Kernel) -> Stage {
    let stage = Stage::new(Format::Btrfs, kernel).unwrap();
    stage.plant().unwrap();
    let source = stage.disk.join("source");
    stage.btrfs("subvolume create", &[&source]).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    stage.dir("volumes").unwrap();
    for below in ["volumes/rw", "volumes/rw/nested"] {
        let path = stage.at(below);
        stage.btrfs("subvolume create", &[&path]).unwrap();
        fs::create_dir(path.join("dir")).unwrap();
        fs::write(path.join("dir/file"), "content").unwrap();
    }
    // A subvolume goes as a whole, whatever is in it.
    let leaf = stage.at("volumes/leaf");
    stage.btrfs("subvolume create", &[&leaf]).unwrap();
    fs::write(leaf.join("file"), "content").unwrap();
    set_flag(&leaf.join("file"), Flag::Immutable, true).unwrap();
    let snapshots = [
        ("subvolume snapshot", "volumes/snapshot"),
        ("subvolume snapshot -r", "volumes/read-only"),
        ("subvolume snapshot -r", "volumes/rw/nested/read-only"),
    ];
    for (line, below) in snapshots {
        stage.btrfs(line, &[&source, &stage.at(below)]).unwrap();
    }
    stage
}

pub(crate) fn subvolumes_stay_unless_asked(kernel: Kernel) {
    let mut stage = with_subvolumes(kernel);
    // They stay as they are: with what is in them.
    for below in [
        "volumes/leaf",
        "volumes/read-only",
        "volumes/rw",
        "volumes/snapshot",
    ] {
        stage.is_mounted(stage.at(below));
    }
    let outcome = stage.remove(&[]).unwrap();
    let stayed = [
        ("volumes/leaf", "subvolume"),
        ("volumes/read-only", "subvolume"),
        ("volumes/rw", "subvolume"),
        ("volumes/snapshot", "subvolume"),
    ];
    assert_stayed(&stage, &outcome, &stayed);
}

pub(crate) fn subvolumes_and_snapshots_are_destroyed_if_asked(kernel: Kernel) {
    let stage = with_subvolumes(kernel);
    let outcome = stage.remove(&["--subvolumes"]).unwrap();
    assert_gone(&stage, &outcome);
    // Two of them have others in them: they are emptied, and go as directories.
    assert_eq!(outcome.subvolumes, 4);
}

pub(crate) fn a_tree_in_a_read_only_snapshot_stays_and_the_reason_is_given(kernel: Kernel) {
    let mut stage = Stage::new(Format::Btrfs, kernel).unwrap();
    let source = stage.disk.join("source");
    stage.btrfs("subvolume create", &[&source]).unwrap();
    fs::create_dir_all(source.join("tree/dir")).unwrap();
    fs::write(source.join("tree/dir/file"), "").unwrap();
    let snapshot = stage.disk.join("snapshot");
    stage
        .btrfs("subvolume snapshot -r", &[&source, &snapshot])
        .unwrap();
    stage.tree = snapshot.join("tree");
    let outcome = stage.remove(&[]).unwrap();
    assert_ne!(outcome.end, "gone");
    let reasons: Vec<&str> = outcome.counts.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["readOnlySnapshot"], "{outcome:?}");
}

pub(crate) fn a_mount_in_a_subvolume_loses_nothing(kernel: Kernel) {
    let mut stage = Stage::new(Format::Btrfs, kernel).unwrap();
    stage.plant().unwrap();
    let path = stage.at("subvolume");
    stage.btrfs("subvolume create", &[&path]).unwrap();
    let victim = stage.victim.clone();
    stage.bind(&victim, "subvolume/dir/mounted").unwrap();
    // The mount itself stays as well: it is a view.
    let outcome = stage.remove(&["--subvolumes"]).unwrap();
    assert_eq!(outcome.end, "left", "{outcome:?}");
    let stayed: Vec<String> = stage.stayed(&outcome).into_iter().map(|(path, _)| path).collect();
    assert!(
        stayed.iter().all(|path| path.starts_with("subvolume")),
        "{outcome:?}"
    );
    assert!(!stage.at("plain").exists());
}

/// What the tool makes of the same: see `rm_tool` for all that it refuses.
pub(crate) fn the_tool_refuses_mounts_or_leaves_them_and_removes_all_else(kernel: Kernel) {
    on_each(kernel, |mut stage| {
        stage.plant().unwrap().odd().unwrap();
        let victim = stage.victim.clone();
        stage.bind(&victim, "pods/bound").unwrap();
        stage.tmpfs("pods/volume").unwrap();
        let (before, all) = (stage.outside().unwrap(), stage.left().unwrap());

        let refused = stage.run(Program::MendRm, &[]).unwrap();
        assert_eq!(refused.code, 4, "{refused}");
        assert_eq!(stage.left().unwrap(), all, "{refused}");

        let left = stage.run(Program::MendRm, &["--skip-mounts"]).unwrap();
        assert_eq!(left.code, 4, "{left}");
        let stayed: Vec<String> = stage.left().unwrap().into_iter().collect();
        assert_eq!(stayed, ["", "pods", "pods/bound", "pods/volume"], "{left}");
        stage.unchanged(&before).unwrap();

        for below in ["pods/bound", "pods/volume"] {
            nix::mount::umount(&stage.at(below)).unwrap();
        }
        stage.nothing_is_mounted();
        let before = stage.outside().unwrap();
        let gone = stage.run(Program::MendRm, &["--set-aside"]).unwrap();
        assert_eq!(gone.code, 0, "{gone}");
        assert!(!stage.tree.exists());
        // The name under which it was set aside would be new.
        stage.unchanged(&before).unwrap();
    });
}
