//! Nothing of a lab stays, however its owner ends; and the machine is not touched while it runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_lab::{Engine, Node, Options, Sandbox, cgroups};

/// `NODEMEND_LAB_ENGINE=stand-in` runs all of this on the second engine, as an ordinary user always does.
fn options() -> Options {
    let asked = std::env::var("NODEMEND_LAB_ENGINE").unwrap_or_default();
    let known = [Engine::Containerd, Engine::StandIn]
        .into_iter()
        .find(|engine| engine.name() == asked);
    Options::on(known.unwrap_or_else(Engine::best))
}

fn node_with(pods: usize) -> (Node, Vec<Sandbox>) {
    let node = Node::start(options()).unwrap();
    let pods = node.run_sandboxes(pods).unwrap();
    (node, pods)
}

fn soon(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !test() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Not a test of its own: the owner that is killed in the next one.
#[test]
#[ignore = "run by nothing_stays_when_the_owner_is_killed"]
fn owner_that_will_be_killed() {
    let (node, _pods) = node_with(2);
    println!("OWNED {} {} {}", node.pid(), node.janitor_pid(), node.cgroup());
    sleep(Duration::from_secs(120));
}

#[test]
fn nothing_stays_when_the_owner_is_killed() {
    for also_the_janitor in [false, true] {
        let before = outside_links();
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "owner_that_will_be_killed"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let line = lines
            .into_iter()
            .find_map(|line| line.split_once("OWNED ").map(|(_, rest)| rest.to_owned()));
        let line = line.expect("the owner could not make a node");
        let [init, janitor, cgroup] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let node_pids = family_of(init);
        assert!(
            node_pids.len() >= 6,
            "init, runtime, two shims and two pauses: {node_pids:?}"
        );
        if also_the_janitor {
            // First: else it might have begun to clean up.
            let killed = Command::new("kill").args(["-KILL", janitor]).status().unwrap();
            assert!(killed.success());
        }
        owner.kill().unwrap();
        owner.wait().unwrap();
        soon("all processes gone", || {
            !node_pids.iter().any(|pid| is_running(pid)) && !is_running(janitor)
        });
        if also_the_janitor {
            drop(Node::start(options()).unwrap());
        }
        soon("cgroups gone", || cgroups::directories(cgroup).is_empty());
        assert_eq!(outside_links(), before);
    }
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// That process and all that descend from it: a pause process is in a pid namespace of its own below the node's.
fn family_of(init: &str) -> Vec<String> {
    let all = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let parents: Vec<(String, String)> = all
        .filter_map(|pid| parent_of(&pid).map(|parent| (pid, parent)))
        .collect();
    let mut family = vec![init.to_owned()];
    let mut at = 0;
    while let Some(parent) = family.get(at).cloned() {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid.clone()),
        );
        at += 1;
    }
    family
}

fn parent_of(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1).map(str::to_owned)
}

fn outside_links() -> String {
    let text = Command::new("ip")
        .args(["-brief", "link"])
        .output()
        .unwrap()
        .stdout;
    String::from_utf8_lossy(&text)
        .lines()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn the_machine_itself_is_not_touched() {
    let (_node, pods) = node_with(1);
    assert!(!Path::new("/var/lib/cni/networks/cbr0").exists());
    assert!(!pods[0].netns.exists());
    assert!(!Path::new("/etc/cni/net.d/10-cbr0.conflist").exists());
}
