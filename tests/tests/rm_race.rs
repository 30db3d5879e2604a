//! Somebody changes the tree while it is removed, on all processors and as fast as they allow: nothing outside is ever lost.
//!
//! An adversary exchanges directories with symlinks to what must stay, those above the tree as well, mounts what must stay on them, and
//! moves them out from under the removal. That it is fast enough is tested, too: a remover that trusts paths loses files to it.
//!
//! `NODEMEND_RM_RACE` multiplies the trials: see tests/README.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::use_debug,
    reason = "a failed unwrap in a test's helper is a failed test, and what is printed is seen if it fails"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_lab::disk::Format;
use nodemend_lab::hostile::{Adversary, Dir, Ended, Pair, Program, Stage, end_of, naive};
use nodemend_lab::old_kernel::Kernel;

/// Directories in the tree; each has three files, and a directory with one.
const WIDTH: usize = 200;

/// In how many trials the remover that trusts paths must have lost something.
const PATIENCE: usize = 100;

/// How many trials there are where there would be so many.
fn trials(usual: usize) -> usize {
    let factor = std::env::var("NODEMEND_RM_RACE");
    factor.map_or(1, |factor| factor.parse().expect("NODEMEND_RM_RACE is a number")) * usual
}

/// A disk with what must stay, and a place for trials on it.
struct Race {
    stage: Stage,
    /// What must stay: it has the names that the tree has.
    prey: PathBuf,
    /// Everything of a trial.
    arena: PathBuf,
    tree: PathBuf,
    /// What is exchanged with parts of the tree.
    swap: PathBuf,
}

impl Race {
    fn on(format: Format, kernel: Kernel) -> Self {
        let mut stage = Stage::new(format, kernel).unwrap();
        stage.share_mounts().unwrap();
        let (prey, arena) = (stage.disk.join("prey"), stage.disk.join("arena"));
        stage.except(arena.clone());
        let race = Self {
            tree: arena.join("a/b/tree"),
            swap: arena.join("swap"),
            prey,
            arena,
            stage,
        };
        race.make_prey();
        race
    }

    /// Like one of the tree's directories, and like those above the tree.
    fn make_prey(&self) {
        fs::create_dir_all(self.prey.join("b/tree")).unwrap();
        for below in [self.prey.clone(), self.prey.join("b/tree")] {
            let dir = Dir::open(&below).unwrap();
            for file in ["f0", "f1", "f2"] {
                dir.file(file, "prey").unwrap();
            }
            dir.dir("sub").unwrap().file("g", "prey").unwrap();
        }
        Dir::open(&self.prey.join("b/tree"))
            .unwrap()
            .grove(20, 3)
            .unwrap();
    }

    fn set_up(&self) -> Arc<Dir> {
        fs::create_dir_all(&self.tree).unwrap();
        fs::create_dir(&self.swap).unwrap();
        let root = Dir::open(&self.tree).unwrap();
        root.grove(WIDTH, 3).unwrap();
        Arc::new(root)
    }

    fn swap(&self) -> Arc<Dir> {
        Arc::new(Dir::open(&self.swap).unwrap())
    }

    fn clear(&self) {
        // The standard library goes by descriptors, and nothing moves any more.
        fs::remove_dir_all(&self.arena).unwrap();
    }

    /// Each directory of the tree, and the one in it, against symlinks to what looks alike.
    fn against_symlinks(&self, root: &Arc<Dir>) -> Vec<Pair> {
        let swap = self.swap();
        let mut pairs = Vec::new();
        for index in 0..WIDTH {
            let name = format!("d{index:05}");
            let [one, two] = ["one", "two"].map(|which| format!("{which}-{index}"));
            symlink(&self.prey, self.swap.join(&one)).unwrap();
            symlink(self.prey.join("sub"), self.swap.join(&two)).unwrap();
            let dir = Arc::new(Dir::open(&self.tree.join(&name)).unwrap());
            pairs.push(Pair::of(root, &name, &swap, &one));
            pairs.push(Pair::of(&dir, "sub", &swap, &two));
        }
        pairs
    }

    /// The two directories above the tree, against symlinks to what looks alike.
    fn above_against_symlinks(&self) -> Vec<Pair> {
        let swap = self.swap();
        symlink(&self.prey, self.swap.join("a")).unwrap();
        symlink(self.prey.join("b"), self.swap.join("b")).unwrap();
        let arena = Arc::new(Dir::open(&self.arena).unwrap());
        let above = Arc::new(Dir::open(&self.arena.join("a")).unwrap());
        vec![
            Pair::of(&arena, "a", &swap, "a"),
            Pair::of(&above, "b", &swap, "b"),
        ]
    }

    /// Runs a removal while the adversary is at work: how that ended, and how many changes there were meanwhile.
    fn run(&self, adversary: Adversary, program: Program, arguments: &[&str]) -> (Ended, u64) {
        // Not before it is at work.
        while adversary.changes() == 0 {
            std::thread::yield_now();
        }
        let mut command = self.stage.command(program, arguments).unwrap();
        command.arg(&self.tree);
        let before = adversary.changes();
        let ended = end_of(command.spawn().unwrap()).unwrap();
        let changes = adversary.changes() - before;
        adversary.stop().unwrap();
        (ended, changes)
    }
}

/// What is said once the trials are over.
#[derive(Debug, Default)]
struct Score {
    trials: usize,
    /// Those in which the adversary changed something while the removal ran, and how often it did.
    raced: usize,
    changes: u64,
    /// Runs of the library that refused the path, and that took it.
    refused: usize,
    taken: usize,
    /// Directories that were removed from the tree as symlinks: the removal met them while they were.
    met: usize,
}

/// One trial after another, by the library and by the tool in turns, in the background and at full speed.
fn race(race: &Race, count: usize, prepare: impl Fn(&Race, &Arc<Dir>) -> Adversary) -> Score {
    let before = race.stage.outside().unwrap();
    let mut score = Score::default();
    for trial in 0..count {
        let root = race.set_up();
        let adversary = prepare(race, &root);
        let program = Program::ALL[trial % 2];
        let mut arguments = if trial % 4 < 2 { vec![] } else { vec!["--urgent"] };
        if program == Program::MendRm {
            arguments.push("--skip-mounts");
        }
        let (ended, changes) = race.run(adversary, program, &arguments);
        race.stage
            .unchanged(&before)
            .unwrap_or_else(|error| panic!("trial {trial}, {program:?}: {error}\n{ended}"));
        score.raced += usize::from(changes > 0);
        // Whatever it met, it came to a proper end.
        let proper = if program == Program::Library {
            let outcome = ended.outcome().unwrap();
            score.refused += usize::from(outcome.refused.is_some());
            score.taken += usize::from(outcome.refused.is_none());
            ended.code == 0
        } else {
            [0, 4].contains(&ended.code)
        };
        assert!(proper, "trial {trial}, {program:?}: {ended}");
        score.trials += 1;
        score.changes += changes;
        let swapped = fs::read_dir(&race.swap).unwrap();
        score.met += swapped
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count();
        race.clear();
    }
    println!("{score:?}");
    // A run that refuses the path may be over before the adversary gets its turn.
    assert!(score.raced * 10 >= score.trials * 9, "{score:?}");
    score
}

fn against_symlinks(format: Format, kernel: Kernel, count: usize) {
    let score = race(&Race::on(format, kernel), trials(count), |race, root| {
        Adversary::exchanging(race.against_symlinks(root)).unwrap()
    });
    assert!(
        score.met > score.trials,
        "the removal hardly met a symlink: {score:?}"
    );
}

#[test]
fn directories_that_become_symlinks_lead_nowhere_on_ext4() {
    against_symlinks(Format::Ext4, Kernel::Today, 80);
}

#[test]
fn directories_that_become_symlinks_lead_nowhere_on_xfs() {
    against_symlinks(Format::Xfs, Kernel::Today, 40);
}

#[test]
fn directories_that_become_symlinks_lead_nowhere_on_btrfs() {
    against_symlinks(Format::Btrfs, Kernel::Today, 40);
}

#[test]
fn directories_that_become_symlinks_lead_nowhere_without_openat2() {
    against_symlinks(Format::Ext4, Kernel::WithoutOpenat2, 30);
}

#[test]
fn directories_that_become_symlinks_lead_nowhere_on_linux_3_10() {
    against_symlinks(Format::Ext4, Kernel::Linux3_10, 30);
}

#[test]
fn directories_above_the_tree_that_become_symlinks_lead_nowhere() {
    let mut both = (0, 0);
    for kernel in [Kernel::Today, Kernel::Linux3_10] {
        let score = race(&Race::on(Format::Ext4, kernel), trials(60), |race, _root| {
            Adversary::exchanging(race.above_against_symlinks()).unwrap()
        });
        both = (both.0 + score.refused, both.1 + score.taken);
    }
    assert!(both.0 > 0, "no symlink was seen on the way");
    assert!(both.1 > 0, "no run got as far as to remove anything");
}

#[test]
fn what_is_mounted_on_directories_and_unmounted_again_is_not_entered() {
    for kernel in [Kernel::Today, Kernel::Linux3_10] {
        let race_on = Race::on(Format::Ext4, kernel);
        let count = trials(20);
        race(&race_on, count, |race, _root| {
            let points = (0..WIDTH).map(|index| race.tree.join(format!("d{index:05}")));
            Adversary::mounting(&race.prey, points.collect()).unwrap()
        });
    }
}

/// A removal that has closed directories on its way goes up by `..`: that may lead out of the tree by then.
#[test]
fn directories_moved_out_from_under_a_deep_removal_do_not_lead_it_out() {
    let race = Race::on(Format::Ext4, Kernel::Today);
    let before = race.stage.outside().unwrap();
    let mut moves = 0;
    for trial in 0..trials(40) {
        fs::create_dir_all(&race.tree).unwrap();
        fs::create_dir(&race.swap).unwrap();
        // Where the directories are moved to, there are neighbours of the names that they have in the tree.
        let root = Dir::open(&race.tree).unwrap();
        root.chain(300).unwrap();
        let swap = race.swap();
        let mut pairs = Vec::new();
        let mut path = race.tree.join("level-0000");
        for level in 1..300 {
            let name = format!("level-{level:05}");
            if level % 20 == 0 {
                let dir = Arc::new(Dir::open(&path).unwrap());
                let away = Arc::new(swap.dir(format!("away-{level}")).unwrap());
                away.file("beside", "prey").unwrap();
                away.dir("side").unwrap().file("file", "prey").unwrap();
                pairs.push(Pair::of(&dir, &name, &away, &name));
            }
            path.push(name);
        }
        let adversary = Adversary::moving(pairs).unwrap();
        let arguments: &[&str] = if trial % 2 == 0 {
            &["--open-dirs", "32"]
        } else {
            &["--open-dirs", "32", "--urgent", "--threads", "1"]
        };
        let (ended, moved) = race.run(adversary, Program::Library, arguments);
        moves += moved;
        ended.outcome().unwrap();
        race.stage.unchanged(&before).unwrap();
        for level in (20..300).step_by(20) {
            let away = race.swap.join(format!("away-{level}"));
            let kept = fs::read(away.join("side/file")).unwrap_or_default();
            assert_eq!(
                kept, b"prey",
                "trial {trial}: what lay beside a moved directory was taken\n{ended}"
            );
            assert_eq!(
                fs::read(away.join("beside")).unwrap_or_default(),
                b"prey",
                "trial {trial}\n{ended}"
            );
        }
        race.clear();
    }
    assert!(moves > 0);
}

/// Whether something was lost, and how many trials that took. What was lost is made anew.
fn trials_until_loss(
    prepare: impl Fn(&Race, &Arc<Dir>) -> Adversary,
    remove: impl Fn(&Path),
) -> Option<usize> {
    let race = Race::on(Format::Ext4, Kernel::Today);
    let before = race.stage.outside().unwrap();
    for trial in 1..=PATIENCE {
        let root = race.set_up();
        let adversary = prepare(&race, &root);
        remove(&race.tree);
        adversary.stop().unwrap();
        let lost = race.stage.unchanged(&before).is_err();
        race.clear();
        if lost {
            return Some(trial);
        }
    }
    None
}

/// Else the other tests could not fail.
#[test]
fn a_remover_that_trusts_paths_loses_files_to_the_same_adversary() {
    let inside = trials_until_loss(
        |race, root| Adversary::exchanging(race.against_symlinks(root)).unwrap(),
        naive::remove,
    );
    let above = trials_until_loss(
        |race, _root| Adversary::exchanging(race.above_against_symlinks()).unwrap(),
        naive::remove,
    );
    println!("it lost something in trial {inside:?} below, in trial {above:?} above the tree");
    assert!(inside.is_some() && above.is_some(), "{inside:?} {above:?}");
}
