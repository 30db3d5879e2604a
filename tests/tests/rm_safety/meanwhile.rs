//! What happens to the tree while it is removed.

use std::fs;
use std::io::ErrorKind;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

use nodemend_lab::disk::Format;
use nodemend_lab::hostile::remover::PAUSED;
use nodemend_lab::hostile::{Adversary, Dir, Outcome, Program, Stage, end_of};
use nodemend_lab::old_kernel::Kernel;

fn stage(format: Format) -> Stage {
    Stage::new(format, Kernel::Today).unwrap()
}

fn started(stage: &Stage, arguments: &[&str]) -> Child {
    let mut command = stage.command(Program::Library, arguments).unwrap();
    command.arg(&stage.tree).spawn().unwrap()
}

/// A run that stands still after so many entries.
struct Paused {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Paused {
    fn after(stage: &Stage, entries: u64) -> Self {
        let mut child = started(stage, &["--pause-after", &entries.to_string()]);
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), PAUSED, "it was over before it could be stopped");
        Self { child, said }
    }

    fn go_on(mut self) -> Outcome {
        writeln!(self.child.stdin.take().unwrap()).unwrap();
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        let mut ended = end_of(self.child).unwrap();
        ended.stdout = rest;
        ended.outcome().unwrap()
    }
}

/// The directories that are left, those with a subdirectory first.
fn directories_left(tree: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_mount_that_appears_meanwhile_is_left() {
    for format in Format::ALL {
        let mut stage = stage(format);
        Dir::open(&stage.tree).unwrap().grove(6000, 5).unwrap();
        let run = Paused::after(&stage, 2000);
        let left = directories_left(&stage.tree);
        assert!(left.len() > 100, "{} of 6000 are left", left.len());
        let victim = stage.victim.clone();
        // On a directory, on one below, and on a file.
        let mut mounted = Vec::new();
        for (index, dir) in left.iter().step_by(left.len() / 30).enumerate() {
            let name = dir.file_name().unwrap().to_str().unwrap();
            let (from, below) = match index % 3 {
                0 => (victim.clone(), name.to_owned()),
                1 => (victim.clone(), format!("{name}/sub")),
                _ => (victim.join("file"), format!("{name}/sub/g")),
            };
            stage.bind(&from, &below).unwrap();
            mounted.push((below, "mount".to_owned()));
        }
        mounted.sort();
        let before = stage.outside().unwrap();
        let outcome = run.go_on();
        stage.unchanged(&before).unwrap();
        assert_eq!(stage.stayed(&outcome), mounted, "{format:?}");
        assert_eq!(outcome.end, "left");
        let parents = mounted.iter().flat_map(|(path, _)| Path::new(path).ancestors());
        let parents = parents.map(|path| path.to_str().unwrap().to_owned()).collect();
        assert_eq!(stage.left().unwrap(), parents);
    }
}

#[test]
fn somebody_who_goes_on_writing_is_named_and_all_else_goes() {
    for format in Format::ALL {
        let mut stage = stage(format);
        let root = stage.plant().unwrap();
        let dir = Arc::new(root.dir("written").unwrap());
        let before = stage.outside().unwrap();
        let writer = Adversary::writing(&dir).unwrap();
        // The removal is slow, so that the writer comes in between at any time. Its end is bounded: else this would not end.
        let slow = "unlinkat:delay_enter=1000";
        let mut command = stage.injected(slow, Program::Library, &[]).unwrap();
        let child = command.arg(&stage.tree).spawn().unwrap();
        let outcome = end_of(child).unwrap().outcome().unwrap();
        assert!(writer.stop().unwrap() > 64);
        stage.unchanged(&before).unwrap();
        assert_eq!(outcome.end, "left");
        assert_eq!(
            stage.stayed(&outcome),
            [("written".to_owned(), "writtenTo".to_owned())]
        );
        stage.is_mounted(stage.at("written"));
        let left: Vec<String> = stage.left().unwrap().into_iter().collect();
        assert_eq!(left, ["", "written"]);
    }
}

/// As a container that goes on until the removal is over: nothing is lost, and nothing is left.
#[test]
fn somebody_who_stops_writing_is_no_obstacle() {
    for format in Format::ALL {
        let stage = stage(format);
        let root = stage.plant().unwrap();
        root.grove(300, 3).unwrap();
        let dir = Arc::new(root.dir("written").unwrap());
        let before = stage.outside().unwrap();
        let writer = Adversary::writing(&dir).unwrap();
        let first = stage.run(Program::Library, &[]).unwrap().outcome().unwrap();
        writer.stop().unwrap();
        stage.unchanged(&before).unwrap();
        if first.end == "left" {
            assert_eq!(stage.remove(&[]).unwrap().end, "gone");
        }
        assert!(!stage.tree.exists());
    }
}

#[test]
fn two_removals_of_the_same_tree_end_well_and_count_each_entry_once() {
    for format in Format::ALL {
        let stage = stage(format);
        stage.plant().unwrap().grove(2000, 5).unwrap();
        let before = stage.outside().unwrap();
        let both = [started(&stage, &[]), started(&stage, &["--threads", "4"])];
        let both = both.map(|child| end_of(child).unwrap().outcome().unwrap());
        stage.unchanged(&before).unwrap();
        assert!(!stage.tree.exists(), "{both:?}");
        for outcome in &both {
            // One may have come when all was over.
            let late = outcome.refused.as_ref().is_some_and(|(name, _)| name == "io");
            assert!(late || outcome.end == "gone", "{both:?}");
            assert_eq!(outcome.problems, []);
        }
        let files: u64 = both.iter().map(|outcome| outcome.files).sum();
        let directories: u64 = both.iter().map(|outcome| outcome.directories).sum();
        assert_eq!((files, directories), (101 + 2000 * 6, 12 + 2 * 2000), "{both:?}");
    }
}

#[test]
fn what_vanishes_meanwhile_is_no_problem() {
    let stage = stage(Format::Ext4);
    Dir::open(&stage.tree).unwrap().grove(6000, 5).unwrap();
    let run = Paused::after(&stage, 2000);
    for dir in directories_left(&stage.tree).iter().step_by(2) {
        // The threads stand still only when each has done the entry in hand.
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.unwrap(),
        }
    }
    let outcome = run.go_on();
    assert_eq!(
        (outcome.end.as_str(), outcome.problems.len()),
        ("gone", 0),
        "{outcome:?}"
    );
    assert!(!stage.tree.exists());
}

/// The tree's name belongs to another directory by then: that one stays.
#[test]
fn another_directory_that_gets_the_name_meanwhile_stays() {
    let mut stage = stage(Format::Ext4);
    Dir::open(&stage.tree).unwrap().grove(6000, 5).unwrap();
    let run = Paused::after(&stage, 2000);
    let moved = stage.disk.join("moved");
    fs::rename(&stage.tree, &moved).unwrap();
    fs::create_dir_all(stage.tree.join("new")).unwrap();
    fs::write(stage.tree.join("new/file"), "content").unwrap();
    stage.except(moved.clone());
    let outcome = run.go_on();
    let left: Vec<String> = stage.left().unwrap().into_iter().collect();
    assert_eq!(left, ["", "new", "new/file"], "{outcome:?}");
    assert_ne!(
        outcome.end, "gone",
        "the tree is still there, under its other name"
    );
    let left = fs::read_dir(&moved).unwrap().count();
    assert_eq!(left, 0, "what was in the tree is gone");
}

#[test]
fn an_empty_directory_that_gets_the_name_meanwhile_stays() {
    let mut stage = stage(Format::Ext4);
    Dir::open(&stage.tree).unwrap().grove(6000, 5).unwrap();
    let run = Paused::after(&stage, 2000);
    let moved = stage.disk.join("moved");
    fs::rename(&stage.tree, &moved).unwrap();
    fs::create_dir(&stage.tree).unwrap();
    stage.except(moved);
    let outcome = run.go_on();
    assert_eq!(stage.left().unwrap().len(), 1, "{outcome:?}");
    assert_ne!(outcome.end, "gone");
}

#[test]
fn a_run_that_is_stopped_counts_what_is_gone() {
    let stage = stage(Format::Ext4);
    Dir::open(&stage.tree).unwrap().grove(6000, 5).unwrap();
    let outcome = stage.remove(&["--stop-after", "2000"]).unwrap();
    assert_eq!(outcome.end, "stopped");
    let left = stage.left().unwrap().len() as u64;
    assert!(left > 0);
    assert_eq!(outcome.files + outcome.directories + left, 1 + 6000 * 8);
}
