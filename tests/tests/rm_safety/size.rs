//! Trees of unusual size.

use std::fs::{self, File};

use nodemend_lab::disk::{Format, Ground};
use nodemend_lab::hostile::{Dir, Stage};
use nodemend_lab::old_kernel::Kernel;

/// The most that a removal may hold in memory.
const MEMORY_KIB: u64 = 64 << 10;

/// Multiplies the sizes of the tests of memory: 10 makes a directory of 10 million entries. See tests/README.md.
const SCALE: &str = "NODEMEND_RM_SCALE";

fn scale() -> usize {
    std::env::var(SCALE).map_or(1, |scale| scale.parse().expect("NODEMEND_RM_SCALE is a number"))
}

#[test]
fn a_sparse_file_of_a_terabyte_goes() {
    for format in Format::ALL {
        let stage = Stage::new(format, Kernel::Today).unwrap();
        stage.plant().unwrap();
        let file = File::create(stage.at("sparse")).unwrap();
        file.set_len(1 << 40).unwrap();
        drop(file);
        let outcome = stage.remove(&[]).unwrap();
        assert_eq!((outcome.end.as_str(), outcome.problems.len()), ("gone", 0));
        assert!(!stage.tree.exists());
    }
}

#[test]
fn a_directory_of_two_hundred_thousand_entries_goes() {
    for format in Format::ALL {
        let stage = Stage::new(format, Kernel::Today).unwrap();
        let wide = stage.plant().unwrap().dir("wide").unwrap();
        wide.file("original", "").unwrap();
        let mut original = stage.at("wide/original");
        for number in 0..200_000 {
            // ext4 and btrfs allow about 65,000 names for a file; btrfs fewer in one directory.
            if number % 10_000 == 9_999 {
                wide.file(format!("original-{number}"), "").unwrap();
                original = stage.at(format!("wide/original-{number}"));
            }
            wide.link(format!("entry-{number}"), &original).unwrap();
        }
        let outcome = stage.remove(&[]).unwrap();
        assert_eq!((outcome.end.as_str(), outcome.problems.len()), ("gone", 0));
        assert!(!stage.tree.exists());
        assert!(
            outcome.peak_kib < MEMORY_KIB,
            "{} KiB on {format:?}",
            outcome.peak_kib
        );
    }
}

/// A disk without a journal and with room for many inodes: the time that it takes to build the tree is no subject here.
fn spacious(format: Format) -> Stage {
    let ground = Ground::enter().unwrap();
    let megabytes = 4096 * scale() as u64;
    let disk = match format {
        Format::Ext4 => ground.disk_with(
            format,
            megabytes,
            &["-O", "^has_journal,^metadata_csum"],
            &["noatime"],
        ),
        Format::Xfs | Format::Btrfs => ground.disk(format, megabytes),
    };
    Stage::on(ground, disk.unwrap(), Kernel::Today).unwrap()
}

/// Wide directories are split on ext4, and not on XFS.
#[test]
fn a_directory_of_a_million_entries_needs_little_memory() {
    for format in [Format::Ext4, Format::Xfs] {
        let stage = spacious(format);
        let wide = Dir::open(&stage.tree).unwrap().dir("wide").unwrap();
        let mut original = String::new();
        let count = 1_000_000 * scale();
        for number in 0..count {
            // ext4 allows 65,000 names for a file.
            if number % 50_000 == 0 {
                original = format!("original-{number}");
                wide.file(&original, "").unwrap();
            }
            // Short names: then what is kept beside each of them counts most.
            wide.link(format!("{number:x}"), &stage.at("wide").join(&original))
                .unwrap();
        }
        let outcome = stage.remove(&[]).unwrap();
        assert_eq!((outcome.end.as_str(), outcome.problems.len()), ("gone", 0));
        println!(
            "{} KiB at most for {count} entries on {format:?}",
            outcome.peak_kib
        );
        assert!(
            outcome.peak_kib < MEMORY_KIB,
            "{} KiB on {format:?}",
            outcome.peak_kib
        );
        assert!(fs::symlink_metadata(&stage.tree).is_err());
    }
}

/// Directories wait in a queue; here there are many more than may be open.
#[test]
fn two_hundred_thousand_directories_in_one_need_little_memory() {
    for format in [Format::Ext4, Format::Xfs] {
        let stage = spacious(format);
        let wide = Dir::open(&stage.tree).unwrap().dir("wide").unwrap();
        let count = 200_000 * scale();
        for number in 0..count {
            wide.dir(format!("directory-{number}")).unwrap();
        }
        let outcome = stage.remove(&["--open-files", "1024"]).unwrap();
        assert_eq!((outcome.end.as_str(), outcome.problems.len()), ("gone", 0));
        println!(
            "{} KiB at most for {count} directories on {format:?}",
            outcome.peak_kib
        );
        assert!(
            outcome.peak_kib < MEMORY_KIB,
            "{} KiB on {format:?}",
            outcome.peak_kib
        );
        assert_eq!(outcome.directories, count as u64 + 2);
    }
}
