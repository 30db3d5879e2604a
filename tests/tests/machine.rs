//! The lab's machine with systemd: it is a node, it breaks as in the incident, and nothing of it stays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_lab::cgroups;
use nodemend_lab::machine::{LEAKED, Machine, Shims, Suite};

/// What a machine does within this time on a busy disk, it does.
const LIMIT: Duration = Duration::from_secs(90);

fn soon(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !test() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Waits until none of these processes runs; else says which do, and where in the kernel.
fn all_ended(pids: &[String]) {
    let end = Instant::now() + LIMIT;
    while pids.iter().any(|pid| is_running(pid)) {
        assert!(
            Instant::now() < end,
            "not ended within {LIMIT:?}:\n{}",
            told_of(pids)
        );
        sleep(Duration::from_millis(50));
    }
}

fn told_of(pids: &[String]) -> String {
    let left = pids.iter().filter(|pid| is_running(pid));
    left.map(|pid| of_process(pid, "status") + &of_process(pid, "stack"))
        .collect()
}

fn answers(machine: &Machine) -> bool {
    machine.list_sandboxes().is_ok()
}

#[test]
fn a_damaged_store_is_a_crash_loop_and_the_pods_live_on() {
    let Some(machine) = Machine::for_test().unwrap() else {
        return;
    };
    let pods: Vec<_> = (0..3)
        .map(|n| machine.run_pod(&format!("pod-{n}")).unwrap())
        .collect();
    assert!(machine.pings(pods[0].0.ips[0]));
    assert!(machine.kubelet_is_healthy());
    assert_eq!(machine.unit("containerd.service").unwrap().sub, "running");

    machine.break_metadata(Shims::Live).unwrap();
    machine.leak_snapshots(10_000).unwrap();

    let journal = machine.journal("containerd.service").unwrap();
    assert!(journal.contains("panic: "), "{journal}");
    assert!(!answers(&machine));
    assert!(machine.names(LEAKED).len() >= 10);
    for (pod, app) in &pods {
        assert_eq!(machine.shims(pod).len(), 1, "{pod:?}");
        assert!(machine.is_alive(app.pid));
        assert!(machine.pings(pod.ips[0]));
    }
}

#[test]
fn the_two_ways_to_kill_the_service_differ_in_the_shims() {
    let Some(machine) = Machine::for_test().unwrap() else {
        return;
    };
    let (pod, app) = machine.run_pod("web").unwrap();
    let first = machine.runtime_pid();
    machine.kill_main_process().unwrap();
    soon("a containerd that answers again", || {
        machine.runtime_pid() != first && answers(&machine)
    });
    assert_eq!(machine.shims(&pod).len(), 1);
    assert_eq!(machine.list_sandboxes().unwrap(), [(pod.id.clone(), true)]);

    machine.kill_all_processes().unwrap();
    soon("shims that are gone", || machine.shims(&pod).is_empty());
    let lives = || machine.is_alive(app.pid);
    if machine.suite() == Suite::Bullseye {
        soon(
            "the end of an application of 1.4, which its shim takes with it",
            || !lives(),
        );
    } else {
        assert!(lives(), "the application has lost its shim, and runs on");
    }
}

#[test]
fn others_have_containers_of_their_own() {
    let Some(machine) = Machine::for_test().unwrap() else {
        return;
    };
    let other = machine.another_containerd().unwrap();
    let podman = machine.like_podman().unwrap();
    let pod = machine.run_sandbox("web").unwrap();
    assert!(machine.other_is_well(&other).unwrap());
    assert!(machine.podman_is_well(&podman));
    let known = machine.list_sandboxes().unwrap();
    assert_eq!(known, [(pod.id.clone(), true)], "each runtime knows its own");
    for file in [&pod.netns, &other.netns, &podman.netns] {
        assert!(!file.exists(), "{} is of the machine outside", file.display());
    }
}

/// Not a test of its own: the owner that is killed in the next one.
#[test]
#[ignore = "run by nothing_stays_when_the_owner_is_killed"]
fn owner_that_will_be_killed() {
    let machine = Machine::for_test().unwrap().unwrap();
    machine.run_pod("web").unwrap();
    println!(
        "OWNED {} {} {}",
        machine.pid(),
        machine.janitor_pid(),
        machine.cgroup()
    );
    sleep(Duration::from_secs(120));
}

#[test]
fn nothing_stays_when_the_owner_is_killed() {
    // Says why there is nothing to show, where there can be no machine.
    let Some(mut spare) = Machine::for_test().unwrap() else {
        return;
    };
    for also_the_janitor in [false, true] {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "owner_that_will_be_killed"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let line = lines.find_map(|line| line.split_once("OWNED ").map(|(_, rest)| rest.to_owned()));
        let line = line.expect("the owner could not boot a machine");
        let [init, janitor, cgroup] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let pids = processes_of(cgroup);
        assert!(
            pids.len() >= 6,
            "systemd, containerd, kubelet, a shim, a pause, an application: {pids:?}"
        );
        assert!(pids.contains(&init.to_owned()));
        if also_the_janitor {
            // First: else it might have begun to clean up.
            let killed = Command::new("kill").args(["-KILL", janitor]).status().unwrap();
            assert!(killed.success());
        }
        owner.kill().unwrap();
        owner.wait().unwrap();
        all_ended(&pids);
        soon("the janitor gone", || !is_running(janitor));
        if also_the_janitor {
            // The next machine sweeps.
            spare.stop();
            spare = Machine::for_test().unwrap().unwrap();
        }
        soon("cgroups gone", || cgroups::directories(cgroup).is_empty());
    }
}

fn of_process(pid: &str, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn is_running(pid: &str) -> bool {
    let stat = of_process(pid, "stat");
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Every process in a cgroup of this name or below it, in any hierarchy.
fn processes_of(cgroup: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(cgroup))
    })
    .collect()
}
