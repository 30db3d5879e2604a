//! Putting back what a run removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use nodemend_ipam::{Error, runs, undo};

use crate::node::{age, id, modern};
use crate::repair::{Bench, mended};

#[test]
fn everything_comes_back_as_it_was() {
    let mut bench = Bench::new();
    bench.policy.include_empty = true;
    let (nine, ten) = (
        bench.node.reserve("10.88.0.9", modern(9)),
        bench.node.reserve("fd00::9", id(10) + "\n"),
    );
    bench.node.reserve("10.88.0.11", "");
    fs::set_permissions(&ten, fs::Permissions::from_mode(0o644)).unwrap();
    age(&ten, Duration::from_secs(7300));
    let before: Vec<_> = [&nine, &ten]
        .map(|path| fs::metadata(path).unwrap())
        .into_iter()
        .collect();
    assert_eq!(bench.repair().len(), 3);

    let report = undo(&bench.state, "run-1").unwrap();
    assert_eq!(report.restored.len(), 3);
    assert!(report.kept.is_empty());
    assert_eq!(fs::read_to_string(&nine).unwrap(), modern(9));
    assert_eq!(fs::read_to_string(&ten).unwrap(), id(10) + "\n");
    assert!(bench.node.is_reserved("10.88.0.11"));
    for (path, before) in [&nine, &ten].into_iter().zip(before) {
        let now = fs::metadata(path).unwrap();
        let key = |stat: &fs::Metadata| (stat.mode(), stat.mtime(), stat.mtime_nsec());
        assert_eq!(key(&now), key(&before));
    }

    let twice = undo(&bench.state, "run-1").unwrap();
    assert!(twice.restored.is_empty());
    assert!(
        twice
            .kept
            .iter()
            .all(|(_, why)| why == "it is there, with the same content")
    );
}

#[test]
fn an_address_that_was_given_out_meanwhile_is_left_to_its_new_owner() {
    let bench = Bench::new();
    for n in 9..=12 {
        bench.node.reserve(&format!("10.88.0.{n}"), modern(n));
    }
    assert_eq!(bench.repair().len(), 4);
    bench.node.reserve("10.88.0.9", modern(99));
    bench.node.reserve("10.88.0.10", "");
    fs::create_dir(bench.node.pods().join("10.88.0.11")).unwrap();
    let report = undo(&bench.state, "run-1").unwrap();
    assert_eq!(report.restored, [bench.node.pods().join("10.88.0.12")]);
    let why: Vec<_> = report.kept.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(
        why,
        [
            &*format!("the address was taken meanwhile, by {}", id(99)),
            "the address was taken meanwhile, by an empty file",
            "a directory has this name now"
        ]
    );
    assert_eq!(
        fs::read_to_string(bench.node.pods().join("10.88.0.9")).unwrap(),
        modern(99)
    );
}

#[test]
fn an_unknown_run_is_told_which_there_are() {
    let bench = Bench::new();
    assert!(runs(&bench.state).unwrap().is_empty());
    let error = undo(&bench.state, "run-9").unwrap_err().to_string();
    assert!(
        error.ends_with("there is no run \"run-9\" to undo; known are: none"),
        "{error}"
    );
    bench.node.reserve("10.88.0.9", modern(9));
    mended(&bench.repair(), "10.88.0.9", "moved");
    // What was cut off before its manifest was whole removed nothing, and is no run.
    fs::create_dir(bench.state.path().join("undo/run-0")).unwrap();
    fs::write(bench.state.path().join("undo/run-0/manifest.new"), "{").unwrap();
    let error = undo(&bench.state, "run-9").unwrap_err();
    assert!(
        matches!(&error, Error::NoSuchRun { known, .. } if known == "run-1"),
        "{error}"
    );
    assert!(matches!(
        undo(&bench.state, "../run-1"),
        Err(Error::RunName { .. })
    ));
}

#[test]
fn a_manifest_never_writes_outside_of_an_address() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.repair();
    let manifest = bench.state.path().join("undo/run-1/manifest.jsonl");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("10.88.0.9", "../escaped")).unwrap();
    let report = undo(&bench.state, "run-1").unwrap();
    assert_eq!(report.kept[0].1, "its name is no IP address");
    assert!(!bench.node.path("networks/escaped").exists());
}

#[test]
fn an_undo_waits_for_no_other_run() {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.repair();
    let _held = bench.state.lock().unwrap();
    assert!(matches!(
        undo(&bench.state, "run-1"),
        Err(Error::Host(nodemend_hostfs::Error::Locked { .. }))
    ));
}
