//! What a tool does when it cannot know enough: a runtime that is gone, hung or elsewhere, a place that is not the host, another run, a
//! command line that asks for something that cannot be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;

use nodemend_lab::tool::{Report, Scene, outside, soon};
use nodemend_lab::{Crowd, Engine, Node, Options};

/// A plan that leaves all but the living open; an apply that refuses as a whole; and a node that is as it was.
fn assert_undecided(scene: &Scene, flags: &str) -> Report {
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    let line = format!("mend-veth --timeout 1s {flags}");
    let report = node.mend(&line).unwrap().ended(0).unwrap();
    assert_eq!(report.with("undecided"), scene.dead_veths());
    assert_eq!(report.with("live"), scene.live_veths());
    node.mend(&format!("{line} --detailed-exitcode"))
        .unwrap()
        .ended(5)
        .unwrap();
    let refused = node.mend(&format!("{line} --apply --yes")).unwrap();
    let refused = refused.ended(4).unwrap();
    assert!(!refused.changed);
    assert!(
        refused
            .refused
            .clone()
            .unwrap()
            .contains("not every source answered"),
        "{refused:?}"
    );
    node.unchanged(&before).unwrap();
    refused
}

/// The whole plan goes when everybody answers.
fn assert_mended(scene: &Scene, flags: &str) {
    let node = &scene.node;
    let expected = scene
        .dead
        .iter()
        .fold(node.fingerprint().unwrap(), |node, pod| node.unplugged(pod));
    let done = node.mend(&format!("mend-veth --apply --yes {flags}")).unwrap();
    assert!(done.ended(0).unwrap().changed);
    node.unchanged(&expected).unwrap();
}

#[test]
fn t03_a_stopped_runtime_is_not_one_that_has_no_sandboxes() {
    let scene = Scene::new(1, 2).unwrap();
    scene.node.stop_runtime().unwrap();
    assert_undecided(&scene, "");
    scene.node.start_runtime().unwrap();
    assert_mended(&scene, "");
}

#[test]
fn t03_a_killed_runtime_leaves_a_socket_on_which_nobody_answers() {
    let scene = Scene::new(1, 2).unwrap();
    scene.node.kill_runtime().unwrap();
    let refused = assert_undecided(&scene, "").refused.unwrap();
    assert!(refused.contains("nobody listens on the socket"), "{refused}");
}

#[test]
fn t03_a_hung_runtime_has_a_deadline_and_then_says_nothing() {
    let scene = Scene::new(1, 2).unwrap();
    scene.node.hang_runtime().unwrap();
    assert_undecided(&scene, "");
    scene.node.resume_runtime().unwrap();
    assert_mended(&scene, "");
}

#[test]
fn t03_a_runtime_that_has_just_come_up_with_nothing_is_not_believed() {
    let scene = Scene::new(0, 2).unwrap();
    let refused = assert_undecided(&scene, "").refused.unwrap();
    assert!(refused.contains("it came up"), "{refused}");
}

#[test]
fn t03_a_restarted_runtime_that_has_its_records_is_believed() {
    let scene = Scene::new(1, 2).unwrap();
    scene.node.restart_runtime().unwrap();
    assert_mended(&scene, "");
}

#[test]
fn t03_a_socket_that_is_elsewhere_must_be_named() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    node.move_socket("/run/elsewhere/runtime.sock").unwrap();
    let refused = assert_undecided(&scene, "").refused.unwrap();
    assert!(refused.contains("--runtime-endpoint"), "{refused}");
    assert_undecided(&scene, "--runtime-endpoint unix:///run/elsewhere/nothing.sock");
    node.write(
        "/etc/crictl.yaml",
        "runtime-endpoint: unix:///run/elsewhere/runtime.sock\n",
    )
    .unwrap();
    let found = node.mend("mend-veth").unwrap().ended(0).unwrap();
    assert_eq!(found.with("orphan"), scene.dead_veths());
    fs::remove_file(node.path("/etc/crictl.yaml")).unwrap();
    assert_mended(&scene, "--runtime-endpoint unix:///run/elsewhere/runtime.sock");
}

#[test]
fn t20_a_second_runtime_that_does_not_answer_leaves_everything_open() {
    let scene = Scene::new(1, 2).unwrap();
    scene
        .node
        .write(
            "/etc/crictl.yaml",
            "runtime-endpoint: unix:///run/second/runtime.sock\n",
        )
        .unwrap();
    let refused = assert_undecided(&scene, "").refused.unwrap();
    assert!(
        refused.contains("/run/second/runtime.sock") && !refused.contains("containerd.sock"),
        "only the one that is silent is named: {refused}"
    );
}

#[test]
fn a_runtime_that_speaks_v1alpha2_only_is_understood() {
    let scene = Scene::on(Options::on(Engine::StandIn), 1, 2).unwrap();
    scene.node.only_v1alpha2().unwrap();
    assert!(scene.node.list_sandboxes().is_err(), "v1 is refused");
    assert_mended(&scene, "");
}

#[test]
fn outside_of_the_host_a_tool_refuses_and_says_how_to_enter() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    let pod = format!("nsenter --net={} --", scene.live[0].netns.display());
    for (kind, enter) in [
        ("network", pod.as_str()),
        ("network", "unshare --net"),
        ("mount", "unshare --mount"),
        ("pid", "unshare --pid --fork"),
    ] {
        let line = format!("{enter} mend-veth --grace 0s --settle 0s --apply --yes");
        let argv: Vec<&str> = line.split_whitespace().collect();
        let ran = node.ran(&argv).unwrap();
        ran.exited(1).unwrap();
        assert!(
            ran.stderr
                .contains(&format!("the {kind} namespace is another one")),
            "{ran}"
        );
        assert!(
            ran.stderr.contains("nsenter --target 1 --mount --net --pid"),
            "{ran}"
        );
        assert_eq!(ran.stdout, "");
    }
    node.unchanged(&before).unwrap();
}

#[test]
fn while_another_run_holds_the_lock_a_tool_does_nothing() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    node.write("/var/lib/nodemend/lock", "4711\n").unwrap();
    let holder = node
        .spawn(&["flock", "/var/lib/nodemend/lock", "sleep", "infinity"])
        .unwrap();
    soon("the lock is held", || {
        let free = node.output(&["flock", "--nonblock", "/var/lib/nodemend/lock", "true"]);
        !free.unwrap().status.success()
    })
    .unwrap();
    let before = node.fingerprint().unwrap();
    let ran = node.mend("mend-veth --apply --yes").unwrap();
    ran.exited(75).unwrap();
    assert!(ran.stderr.contains("4711"), "it says who holds it: {ran}");
    node.unchanged(&before).unwrap();
    let planned = node.mend("mend-veth").unwrap().ended(0).unwrap();
    assert_eq!(planned.with("orphan"), scene.dead_veths(), "a plan needs no lock");
    let sleeping = node
        .processes()
        .into_iter()
        .filter(|process| process.argv.ends_with(&["infinity".to_owned()]));
    let sleeping: Vec<u32> = sleeping.map(|process| process.pid).chain([holder]).collect();
    node.kill(&sleeping).unwrap();
    assert_mended(&scene, "");
}

#[test]
fn a_wrong_command_line_ends_with_2_and_nothing_is_read_or_changed() {
    let scene = Scene::new(1, 1).unwrap();
    let before = scene.node.fingerprint().unwrap();
    for flags in [
        "--nonsense",
        "--apply --dry-run",
        "--apply --replay /tmp/x",
        "--record /tmp/x --replay /tmp/x",
        "--apply --root /tmp",
        "--grace soon",
        "--limit many",
        "--output yaml",
    ] {
        let ran = scene.node.mend(&format!("mend-veth {flags}")).unwrap();
        ran.exited(2).unwrap();
        assert_eq!(ran.stdout, "");
    }
    scene.node.unchanged(&before).unwrap();
}

#[test]
fn without_a_terminal_nobody_says_yes() {
    let scene = Scene::new(1, 1).unwrap();
    let before = scene.node.fingerprint().unwrap();
    let ran = scene.node.mend("mend-veth --apply").unwrap();
    ran.exited(2).unwrap();
    assert!(ran.stderr.contains("--yes"), "{ran}");
    scene.node.unchanged(&before).unwrap();
}

#[test]
fn a_plan_above_the_limit_is_refused_whole() {
    let scene = Scene::new(1, 2).unwrap();
    let before = scene.node.fingerprint().unwrap();
    let ran = scene.node.mend("mend-veth --apply --yes --limit 1").unwrap();
    let refused = ran.ended(4).unwrap();
    let reason = refused.refused.clone().unwrap();
    assert!(
        reason.contains("2 objects") && reason.contains("limit is 1"),
        "{reason}"
    );
    assert!(!refused.changed);
    scene.node.unchanged(&before).unwrap();
    assert_mended(&scene, "--limit 2");
}

#[test]
fn a_plan_for_everything_is_refused_while_a_sandbox_lives() {
    let scene = Scene::new(1, 1).unwrap();
    let node = &scene.node;
    // What the living pod would have is not there: sources and links do not speak of the same node.
    node.exec(&["ip", "link", "delete", &scene.live[0].host_veth])
        .unwrap();
    let before = node.fingerprint().unwrap();
    let ran = node.mend("mend-veth --apply --yes").unwrap();
    let reason = ran.ended(4).unwrap().refused.unwrap();
    assert!(reason.contains("--limit 1"), "{reason}");
    node.unchanged(&before).unwrap();
    assert_mended(&scene, "--limit 1");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scene = Scene::new(1, 1).unwrap();
    // More than a pipe holds.
    let crowd = Crowd {
        count: 60,
        processes: false,
    };
    scene.node.crowd(crowd).unwrap();
    for reader in ["head -c 1", "true"] {
        for output in ["text", "json"] {
            let line =
                format!("set -o pipefail; mend-veth -v --grace 0s --settle 0s --output {output} | {reader}");
            let ran = scene.node.ran(&["bash", "-c", &line]).unwrap();
            ran.exited(0).unwrap();
            assert_eq!(
                ran.stderr
                    .trim_end_matches("To mend this: the same command with --apply\n"),
                {
                    if output == "text" {
                        "\nNothing was changed. "
                    } else {
                        ""
                    }
                }
            );
        }
    }
}

#[test]
fn sigterm_between_the_two_looks_ends_the_run_with_143() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let line = format!("{} --grace 0s --settle 10m --apply --yes", "mend-veth");
        let argv: Vec<&str> = line.split(' ').collect();
        let mut command = node.command(argv[0]);
        let child = command
            .args(&argv[1..])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut tool = None;
        soon("a tool that listens for signals", || {
            tool = running(node);
            tool.is_some_and(|pid| catches_sigterm(node, pid))
        })
        .unwrap();
        node.signal(signal, &[tool.unwrap()]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stdout.is_empty());
    }
    node.unchanged(&before).unwrap();
}

fn running(node: &Node) -> Option<u32> {
    let mut all = node.processes().into_iter();
    let tool = all.find(|process| {
        process
            .argv
            .first()
            .is_some_and(|name| name.ends_with("/mend-veth"))
    });
    tool.map(|tool| tool.pid)
}

fn catches_sigterm(node: &Node, pid: u32) -> bool {
    let status = node.read(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << 14) != 0)
}

#[test]
fn a_recording_gives_the_same_verdicts_on_another_machine() {
    let scene = Scene::new(2, 2).unwrap();
    let node = &scene.node;
    node.foreign_links().unwrap();
    let here = node
        .mend("mend-veth --record /run/lab/looks.json")
        .unwrap()
        .ended(0)
        .unwrap();
    let file = node.path("/run/lab/looks.json").display().to_string();
    let there = outside(&format!("mend-veth --replay {file} --grace 0s --output json")).unwrap();
    let there = there.ended(0).unwrap();
    assert!(there.dry_run);
    assert_eq!(there.verdicts(), here.verdicts());
    assert_eq!(there.summary, here.summary);
    for (a, b) in there.items.iter().zip(&here.items) {
        assert_eq!(
            (&a.title, &a.reason, &a.evidence),
            (&b.title, &b.reason, &b.evidence)
        );
    }
    let within = outside(&format!("mend-veth --replay {file} --grace 1h --output json")).unwrap();
    assert_eq!(
        within.ended(0).unwrap().count("orphan"),
        0,
        "the flags of the replay count"
    );

    let applied = outside(&format!("mend-veth --replay {file} --apply --yes")).unwrap();
    applied.exited(2).unwrap();
    let other = fs::read_to_string(&file)
        .unwrap()
        .replace("VethRecording", "IpamRecording");
    node.write("/run/lab/other.json", &other).unwrap();
    let other = node.path("/run/lab/other.json").display().to_string();
    let wrong = outside(&format!("mend-veth --replay {other}")).unwrap();
    assert!(
        wrong.exited(1).unwrap().stderr.contains("IpamRecording"),
        "{wrong}"
    );
}
