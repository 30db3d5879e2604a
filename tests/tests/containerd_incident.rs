//! The whole incident on a whole node: containerd.service dies at each start, and one command brings the node back.
//!
//! `NODEMEND_MACHINE_SUITE` says on which Debian, and so with which containerd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::use_debug,
    reason = "a failed unwrap in a test's helper is a failed test, and what was measured is printed"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_lab::machine::{Another, Machine, Other, Shims, Suite};
use nodemend_lab::runtime::ROOT;
use nodemend_lab::tool::Ran;
use nodemend_lab::{Application, Sandbox, tools};
use serde_json::Value;

/// From the command to a CRI that answers, whatever the size of the root.
const PROMISED: Duration = Duration::from_secs(15);

/// A run is killed at each second write here, which is after every step; `containerd_run` kills at every one.
const WRITES: usize = 2;

type Pods = Vec<(Sandbox, Application)>;

/// A machine with three pods, and with containers of others.
struct Scene {
    machine: Machine,
    pods: Pods,
    other: Another,
    podman: Other,
}

impl Scene {
    fn new() -> Option<Scene> {
        let machine = Machine::for_test().unwrap()?;
        let other = machine.another_containerd().unwrap();
        let podman = machine.like_podman().unwrap();
        let pods = run_pods(&machine, "old");
        Some(Scene {
            machine,
            pods,
            other,
            podman,
        })
    }

    /// Nothing is left of the pods of before, new ones run, and the others have not noticed.
    fn is_mended(&self, shims: Shims) {
        for (pod, app) in &self.pods {
            let mut left = self.machine.remains(pod, std::slice::from_ref(app));
            if shims == Shims::Die {
                // containerd removes what a dead shim had at its next start. After that nothing tells whose the pod's cgroup was; it is
                // empty, and kubelet removes it (cleanupOrphanedPodCgroups), which the stand-in does not.
                left.retain(|one| !one.starts_with("the pod's cgroup "));
            }
            assert!(left.is_empty(), "{left:#?}");
        }
        assert_eq!(self.machine.reserved("cbr0"), Vec::<std::net::IpAddr>::new());
        assert!(self.machine.kubelet_is_healthy());
        import_pause(&self.machine);
        let (new, _app) = self.machine.run_pod("new").unwrap();
        assert!(self.machine.pings(new.ips[0]));
        soon(Duration::from_secs(120), "the end of the old root", || {
            asides(&self.machine).is_empty()
        });
        self.others_are_well();
    }

    fn others_are_well(&self) {
        assert!(
            self.machine.other_is_well(&self.other).unwrap(),
            "the second containerd's sandbox"
        );
        assert!(self.machine.podman_is_well(&self.podman), "podman's container");
    }
}

fn run_pods(machine: &Machine, name: &str) -> Pods {
    (0..3)
        .map(|n| machine.run_pod(&format!("{name}-{n}")).unwrap())
        .collect()
}

fn soon(limit: Duration, what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !test() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// The image that a new root lacks, which kubelet would pull.
fn import_pause(machine: &Machine) {
    machine
        .shell("ctr --namespace k8s.io images import /run/lab/pause.tar")
        .unwrap();
}

fn mend(machine: &Machine, flags: &str) -> Ran {
    let line = format!("mend-containerd {flags} --output json");
    machine.ran(&line.split_whitespace().collect::<Vec<_>>()).unwrap()
}

fn json(ran: &Ran, code: i32) -> Value {
    ran.exited(code).unwrap();
    serde_json::from_str(&ran.stdout).unwrap()
}

fn status(machine: &Machine) -> Value {
    json(&mend(machine, "status"), 0)
}

/// What was set aside beside the root.
fn asides(machine: &Machine) -> Vec<PathBuf> {
    let names = machine.names("/var/lib").into_iter();
    names
        .filter(|name| name.starts_with(".containerd.nodemend-aside-"))
        .map(|name| Path::new("/var/lib").join(name))
        .collect()
}

/// Everything below a directory: inode, mode, owner, and the content of files.
fn content(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, u32, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let bytes = if stat.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if stat.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(dir).unwrap().to_owned();
        seen.insert(name, (stat.ino(), stat.mode(), stat.uid(), bytes));
    }
    seen
}

/// What becomes of pods that run is the operator's to say.
fn asks_what_becomes_of_the_pods(machine: &Machine) {
    let refused = json(&mend(machine, "--apply --yes"), 4);
    assert_eq!(refused["needed"], "yes", "{refused:#}");
    let refusals = refused["refusals"].as_array().unwrap();
    let reasons: Vec<_> = refusals.iter().map(|one| &one["reason"]).collect();
    assert_eq!(reasons, ["podsUndecided"]);
}

/// From a crash loop to new pods with one command, on a root of so many entries; the time until the CRI answers.
fn one_command(entries: u32, shims: Shims) -> Option<Duration> {
    let scene = Scene::new()?;
    let machine = &scene.machine;
    machine.break_metadata(shims).unwrap();
    machine.leak_snapshots(entries).unwrap();
    assert!(machine.list_sandboxes().is_err(), "it is in a crash loop");

    // The shim of containerd 1.4 takes what it started with it.
    let all_died = machine.suite() == Suite::Bullseye && shims == Shims::Die;
    if !all_died {
        asks_what_becomes_of_the_pods(machine);
        assert!(scene.pods.iter().all(|(_, app)| machine.is_alive(app.pid)));
    }

    let begun = Instant::now();
    let mut command = machine.command("mend-containerd");
    command.args(["--output", "json", "--reap-pods", "--apply", "--yes"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    soon(Duration::from_secs(60), "a CRI that answers", || {
        machine.list_sandboxes().is_ok()
    });
    let answered = begun.elapsed();
    let ran = Ran::of("mend-containerd".to_owned(), &child.wait_with_output().unwrap());
    println!(
        "{} entries: CRI answers after {answered:.1?}, all is done after {:.1?}",
        entries,
        begun.elapsed()
    );
    let done = json(&ran, 0);
    assert_eq!(done["run"]["course"], "mended", "{done:#}");
    assert_eq!(done["summary"]["done"], 8);
    scene.is_mended(shims);
    assert_eq!(status(machine)["removal"]["state"], "gone");
    Some(answered)
}

#[test]
fn one_command_brings_the_node_back_however_large_the_root_is() {
    for entries in [10_000, 300_000] {
        let Some(took) = one_command(entries, Shims::Live) else {
            return;
        };
        assert!(took < PROMISED, "{entries} entries: {took:?}");
    }
}

#[test]
fn one_command_brings_back_a_node_whose_shims_have_died() {
    one_command(1000, Shims::Die);
}

/// Runs the tool, and kills it when it writes the file of the run for the `nth` time; whether it did so often.
fn killed_at(machine: &Machine, nth: u32, flags: &str) -> bool {
    let strace = tools::find("strace").expect("this test needs strace (package strace)");
    let inside = machine.command("mend-containerd");
    let mut command = Command::new(strace);
    command.args([
        "--follow-forks",
        "--quiet=all",
        "--output=/dev/null",
        "--trace=rename",
    ]);
    command.args(["-e", &format!("inject=rename:signal=KILL:when={nth}")]);
    command.arg(inside.get_program()).args(inside.get_args());
    command.args(flags.split_whitespace());
    command.args(["--apply", "--yes", "--output", "json"]);
    command.envs(inside.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let ran = Ran::of("mend-containerd".to_owned(), &command.output().unwrap());
    assert!(ran.code == 137 || ran.code == 0, "{ran}");
    ran.code == 137
}

#[test]
fn killed_at_any_step_and_resumed_it_comes_to_the_same_end() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let mut steps = Vec::new();
    for nth in (2..=24).step_by(WRITES) {
        if !killed_at(&scene.machine, nth, "--even-if-healthy --reap-pods") {
            break;
        }
        let before = status(&scene.machine);
        let resumable = before["resume"]["possible"] == true;
        let done: u64 = before["summary"]["done"].as_u64().unwrap_or_default();
        steps.push(if resumable { done } else { 0 });
        let go_on = if resumable {
            "--resume"
        } else {
            "--even-if-healthy --reap-pods"
        };
        let after = json(&mend(&scene.machine, &format!("{go_on} --apply --yes")), 0);
        assert_eq!(
            after["run"]["course"], "mended",
            "killed at write {nth}: {after:#}"
        );
        for (pod, app) in &scene.pods {
            let left = scene.machine.remains(pod, std::slice::from_ref(app));
            assert!(left.is_empty(), "killed at write {nth}: {left:#?}");
        }
        soon(Duration::from_secs(60), "the end of the old root", || {
            asides(&scene.machine).is_empty()
        });
        import_pause(&scene.machine);
        scene.pods = vec![scene.machine.run_pod(&format!("old-{nth}")).unwrap()];
    }
    println!("killed with so many steps done: {steps:?}");
    for done in 1..=7 {
        assert!(
            steps.contains(&done),
            "it was not killed after step {done}: {steps:?}"
        );
    }
    scene.others_are_well();
}

/// Kills a run that keeps the pods at its writes, and rolls each back; how many steps were done each time.
fn rolled_back_at_writes(machine: &Machine, flags: &str, mut check: impl FnMut()) -> Vec<u64> {
    let mut steps = Vec::new();
    for nth in (2..=24).step_by(WRITES) {
        if !killed_at(machine, nth, &format!("--keep-pods {flags}")) {
            break;
        }
        let before = status(machine);
        if before["rollBack"]["possible"] != true {
            continue;
        }
        steps.push(before["summary"]["done"].as_u64().unwrap_or_default());
        let back = json(&mend(machine, "--roll-back --apply --yes"), 0);
        assert_eq!(
            back["run"]["course"], "rolledBack",
            "killed at write {nth}: {back:#}"
        );
        check();
        // What the new containerd wrote is kept, for the operator to look at.
        for new in asides(machine) {
            machine.shell(&format!("rm -rf {}", new.display())).unwrap();
        }
    }
    println!("rolled back with so many steps done: {steps:?}");
    assert!(steps.contains(&5) && steps.contains(&6), "{steps:?}");
    steps
}

#[test]
fn rolled_back_the_old_root_is_there_byte_for_byte() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let machine = &scene.machine;
    machine.break_metadata(Shims::Live).unwrap();
    machine.leak_snapshots(1000).unwrap();
    let before = content(&machine.path(ROOT));
    rolled_back_at_writes(machine, "", || {
        let after = content(&machine.path(ROOT));
        let differs = before
            .iter()
            .filter(|(path, entry)| after.get(*path) != Some(*entry));
        assert_eq!(
            differs.map(|(path, _)| path).collect::<Vec<_>>(),
            Vec::<&PathBuf>::new()
        );
        assert_eq!(after.len(), before.len());
    });
    assert!(
        scene.pods.iter().all(|(_, app)| machine.is_alive(app.pid)),
        "they were to be kept"
    );
    scene.others_are_well();
}

#[test]
fn rolled_back_the_old_pods_records_are_there() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let machine = &scene.machine;
    let known = sorted(machine);
    assert_eq!(known.len(), 3);
    rolled_back_at_writes(machine, "--even-if-healthy", || {
        soon(Duration::from_secs(20), "the records of before", || {
            machine.list_sandboxes().is_ok()
        });
        assert_eq!(sorted(machine), known);
        assert!(scene.pods.iter().all(|(_, app)| machine.is_alive(app.pid)));
    });
    assert!(machine.pings_from(&scene.pods[0].0, scene.pods[1].0.ips[0]));
    scene.others_are_well();
}

#[test]
fn a_healthy_node_is_left_alone_unless_the_operator_insists() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let machine = &scene.machine;
    let known = sorted(machine);
    let young = json(&mend(machine, "--reap-pods --apply --yes"), 4);
    assert_eq!(
        young["needed"], "unknown",
        "a containerd of a few seconds has proven nothing: {young:#}"
    );
    let mut calm = Value::Null;
    soon(
        Duration::from_secs(120),
        "a containerd that is old enough",
        || {
            calm = serde_json::from_str(&mend(machine, "--reap-pods --apply --yes").stdout).unwrap();
            calm["needed"] == "no"
        },
    );
    assert_eq!(
        calm["items"].as_array().map(Vec::len),
        Some(0),
        "there is nothing to mend: {calm:#}"
    );
    assert_eq!(calm["changed"], false);
    assert_eq!(sorted(machine), known);
    assert!(asides(machine).is_empty());
    assert!(scene.pods.iter().all(|(_, app)| machine.is_alive(app.pid)));

    let done = json(&mend(machine, "--even-if-healthy --reap-pods --apply --yes"), 0);
    assert_eq!(done["run"]["course"], "mended");
    scene.is_mended(Shims::Live);
}

fn sorted(machine: &Machine) -> Vec<(String, bool)> {
    let mut all = machine.list_sandboxes().unwrap();
    all.sort();
    all
}
