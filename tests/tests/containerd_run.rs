//! containerd set aside and started anew on a node of the lab, whose services are started by commands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap in a test's helper is a failed test, and what is printed is seen if it fails"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nodemend_lab::runtime::ROOT;
use nodemend_lab::tool::{Ran, soon};
use nodemend_lab::{Engine, Node, Options, Sandbox, tools};
use serde_json::Value;

const STATE: &str = "/var/lib/nodemend/containerd-run.json";

/// Stops the node's containerd as systemd does, and waits until it has ended.
const STOP: &str = "pid=$(cat /run/lab/runtime.pid); kill $pid 2>/dev/null; while kill -0 $pid 2>/dev/null; do sleep 0.05; done";

fn node() -> Node {
    Node::start(Options::on(Engine::Containerd)).unwrap()
}

/// Starts it, and waits for nothing.
fn start() -> String {
    let lab = tools::workspace_binary("nodemend-lab").unwrap();
    let log = "/run/lab/runtime.log";
    format!(
        "{} detach --log {log} -- containerd > /run/lab/runtime.pid",
        lab.display()
    )
}

/// Runs the tool in the node.
fn mend(node: &Node, flags: &str) -> Ran {
    let start = start();
    let mut argv = vec![
        "mend-containerd",
        "--output",
        "json",
        "--stop-command",
        STOP,
        "--start-command",
        &start,
    ];
    argv.extend(flags.split_whitespace());
    node.ran(&argv).unwrap()
}

fn json(ran: &Ran, code: i32) -> Value {
    ran.exited(code).unwrap();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn status(node: &Node) -> Value {
    json(
        &node
            .ran(&["mend-containerd", "status", "--output", "json"])
            .unwrap(),
        0,
    )
}

/// What was set aside beside the root, by the tool.
fn asides(node: &Node) -> Vec<PathBuf> {
    let names = node.names("/var/lib").into_iter();
    names
        .filter(|name| name.starts_with(".containerd.nodemend-aside-"))
        .map(|name| Path::new("/var/lib").join(name))
        .collect()
}

/// containerd has died of its database.
fn break_database(node: &Node) {
    node.stop_runtime().unwrap();
    let database = node.path(ROOT).join("io.containerd.metadata.v1.bolt/meta.db");
    let size = usize::try_from(fs::metadata(&database).unwrap().len()).unwrap();
    fs::write(&database, vec![0x5a; size]).unwrap();
}

/// A database proves something of a sandbox only if it is younger by 10 s.
fn grown_old() {
    std::thread::sleep(std::time::Duration::from_secs(12));
}

/// The image that the new root lacks.
fn import_pause(node: &Node) {
    node.shell("ctr --namespace k8s.io images import /run/lab/pause.tar")
        .unwrap();
}

fn lives(node: &Node, pod: &Sandbox) -> bool {
    node.is_alive(pod.pause)
}

#[test]
fn from_a_crash_loop_to_a_new_pod() {
    let node = node();
    let old = node.run_sandboxes(3).unwrap();
    grown_old();
    break_database(&node);

    let undecided = json(&mend(&node, ""), 4);
    assert_eq!(undecided["needed"], "yes", "{undecided:#}");
    assert_eq!(undecided["refusals"][0]["reason"], "podsUndecided");
    assert!(node.read(STATE).is_err(), "a plan writes nothing");
    let planned = json(&mend(&node, "--reap-pods"), 0);
    assert_eq!(planned["summary"]["planned"], 8);
    assert!(planned["dryRun"].as_bool().unwrap() && !planned["changed"].as_bool().unwrap());
    assert!(asides(&node).is_empty() && old.iter().all(|pod| lives(&node, pod)));

    let begun = Instant::now();
    let ran = mend(&node, "--reap-pods --apply --yes");
    println!("mended in {:?}\n{}", begun.elapsed(), ran.stdout);
    let done = json(&ran, 0);
    assert_eq!(done["run"]["course"], "mended", "{done:#}");
    assert_eq!(done["summary"]["done"], 8);
    assert!(
        !old.iter().any(|pod| lives(&node, pod)),
        "the pods of before have ended"
    );
    assert_eq!(node.reserved("cbr0"), Vec::<std::net::IpAddr>::new());

    import_pause(&node);
    let new = node.run_sandbox("new").unwrap();
    assert!(node.pings(new.ips[0]));
    soon("the end of the old root", || asides(&node).is_empty()).unwrap();
    let after = status(&node);
    assert_eq!(after["removal"]["state"], "gone", "{after:#}");
    assert_eq!(after["rollBack"]["possible"], false);
    assert_eq!(node.list_sandboxes().unwrap(), [(new.id, true)]);
}

/// Without systemd nobody tells whether it was restarted a moment ago: that is not known to be healthy, and not broken.
#[test]
fn a_containerd_that_answers_is_left_alone_unless_the_operator_insists() {
    let node = node();
    let pods = node.run_sandboxes(1).unwrap();
    let refused = json(&mend(&node, "--apply --yes --reap-pods"), 4);
    assert_eq!(refused["refusals"][0]["reason"], "healthUnknown", "{refused:#}");
    assert!(lives(&node, &pods[0]) && asides(&node).is_empty());
    assert!(node.read(STATE).is_err());
}

#[test]
fn kept_pods_run_on_hold_the_old_root_and_come_back_with_a_roll_back() {
    let node = node();
    let pods = node.run_sandboxes(2).unwrap();
    let known = node.list_sandboxes().unwrap();
    let ran = mend(&node, "--even-if-healthy --keep-pods --apply --yes");
    let done = json(&ran, 0);
    assert_eq!(done["run"]["course"], "mended", "{done:#}");
    assert!(pods.iter().all(|pod| lives(&node, pod)), "they run on");
    assert_eq!(node.list_sandboxes().unwrap(), [], "and nobody knows them");
    assert_eq!(
        done["removal"]["state"], "refused",
        "they live from the old root: {done:#}"
    );
    assert_eq!(asides(&node).len(), 1);

    let back = json(&mend(&node, "--roll-back --apply --yes"), 0);
    assert_eq!(back["run"]["course"], "rolledBack", "{back:#}");
    soon("an answer of containerd", || node.list_sandboxes().is_ok()).unwrap();
    let mut again = node.list_sandboxes().unwrap();
    again.sort();
    let mut known = known;
    known.sort();
    assert_eq!(again, known, "their records are back");
    assert!(pods.iter().all(|pod| lives(&node, pod)));
    assert!(node.pings_from(&pods[0], pods[1].ips[0]));
    assert_eq!(asides(&node).len(), 1, "the new root is kept");
}

/// Kills a run when it is about to put a file in place for the `nth` time: its own, 15 times, or the first sightings.
/// Whether it did so often.
fn killed_at(node: &Node, nth: u32) -> bool {
    let start = start();
    let inject = format!("inject=rename:signal=KILL:when={nth}");
    let program = tools::workspace_binary("mend-containerd").unwrap();
    let program = program.to_string_lossy();
    let mut argv = vec!["strace", "--quiet=all", "--output=/dev/null"];
    argv.extend(["-e", &inject, &program]);
    argv.extend(["--stop-command", STOP, "--start-command", &start]);
    argv.extend([
        "--output",
        "json",
        "--even-if-healthy",
        "--reap-pods",
        "--apply",
        "--yes",
    ]);
    let ran = node.ran(&argv).unwrap();
    assert!(ran.code == 137 || ran.code == 0, "{ran}");
    ran.code == 137
}

#[test]
fn killed_after_any_step_a_run_is_gone_on_with_to_the_same_end() {
    tools::find("strace").expect("this test needs strace (package strace)");
    // Most of it is waiting: several nodes share the writes among them.
    let lanes = std::thread::scope(|scope| {
        let lanes: Vec<_> = (1..=LANES)
            .map(|lane| scope.spawn(move || killed_in_lane(lane)))
            .collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().unwrap())
            .collect::<Vec<_>>()
    });
    let killed: usize = lanes.iter().sum();
    println!("{killed} runs were killed");
    assert!(
        (14..30).contains(&killed),
        "a run writes its file before and after each of seven steps: {killed}"
    );
}

/// How many nodes are broken at the same time.
const LANES: u32 = 3;

/// Kills a run at each write that is this lane's, and goes on with it; how many were killed.
fn killed_in_lane(lane: u32) -> usize {
    let node = node();
    let mut killed = 0;
    for nth in (lane..=30).step_by(LANES as usize) {
        // A pod needs time to grow old, so only some have one to end.
        let pod = (nth % 5 == 1).then(|| node.run_sandbox(&format!("old-{nth}")).unwrap());
        if pod.is_some() {
            grown_old();
        }
        if !killed_at(&node, nth) {
            break;
        }
        killed += 1;
        gone_on_with(&node, nth, pod.as_ref());
    }
    // The last one was not killed, and its new root has no image.
    import_pause(&node);
    let new = node.run_sandbox("new").unwrap();
    assert!(node.pings(new.ips[0]));
    killed
}

fn gone_on_with(node: &Node, nth: u32, pod: Option<&Sandbox>) {
    let before = status(node);
    let ran = match before["resume"]["possible"].as_bool() {
        Some(true) => mend(node, "--resume --apply --yes"),
        // It was killed before its file was there.
        _ => mend(node, "--even-if-healthy --reap-pods --apply --yes"),
    };
    let done = json(&ran, 0);
    assert_eq!(done["run"]["course"], "mended", "killed at write {nth}: {done:#}");
    assert!(!pod.is_some_and(|pod| lives(node, pod)), "killed at write {nth}");
    soon("the end of the old root", || asides(node).is_empty()).unwrap();
    assert_eq!(node.list_sandboxes().unwrap(), [], "killed at write {nth}");
    import_pause(node);
}

/// Everything below a directory with its content.
fn content(dir: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let bytes = if stat.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if stat.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        seen.push((path.strip_prefix(dir).unwrap().to_owned(), stat.ino(), bytes));
    }
    seen.sort();
    seen
}

#[test]
fn a_start_that_fails_leaves_a_run_that_is_rolled_back_byte_for_byte() {
    let node = node();
    break_database(&node);
    let before = content(&node.path(ROOT));
    let argv = [
        "mend-containerd",
        "--output",
        "json",
        "--ready-timeout",
        "1s",
        "--apply",
        "--yes",
    ];
    let mut argv = argv.to_vec();
    argv.extend(["--stop-command", STOP, "--start-command", "true"]);
    let failed = json(&node.ran(&argv).unwrap(), 4);
    assert!(
        failed["error"].as_str().unwrap().starts_with("step 6"),
        "{failed:#}"
    );
    assert_eq!(failed["rollBack"]["possible"], true);
    assert_eq!(content(&node.path(asides(&node).first().unwrap())), before);
    let other = json(&mend(&node, "--apply --yes"), 4);
    assert!(
        other["error"].as_str().unwrap().contains("has not ended"),
        "{other:#}"
    );

    let mut argv = vec![
        "mend-containerd",
        "--output",
        "json",
        "--roll-back",
        "--apply",
        "--yes",
    ];
    argv.extend(["--stop-command", "true", "--start-command", "true"]);
    let back = json(&node.ran(&argv).unwrap(), 0);
    assert_eq!(back["run"]["course"], "rolledBack", "{back:#}");
    assert_eq!(content(&node.path(ROOT)), before, "byte for byte");
}
