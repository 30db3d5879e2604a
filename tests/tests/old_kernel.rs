//! The tools on Linux 3.10, as far as its system calls go: they find the same, mend the same, or say why they cannot.
//!
//! `tests/static.sh` runs this with the static binaries, whose directory it gives in `NODEMEND_STATIC_DIR`. Without it, the binaries are
//! those that cargo built beside the lab. The node itself is on the machine's own kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::path::PathBuf;
use std::process::Command;

use nodemend_lab::tool::{Ran, Report, Scene, engine_under_test};
use nodemend_lab::{Hold, Node, Options, tools};

/// The tool under test.
fn binary(name: &str) -> PathBuf {
    let Some(dir) = std::env::var_os("NODEMEND_STATIC_DIR") else {
        return tools::workspace_binary(name).unwrap();
    };
    let path = PathBuf::from(dir).join(name);
    assert!(path.is_file(), "there is no {}", path.display());
    path
}

fn run(mut command: Command, arguments: &str) -> Ran {
    let output = command.args(arguments.split_whitespace()).output().unwrap();
    Ran::of(format!("{command:?}"), &output)
}

fn run_on_old_kernel(node: &Node, tool: &str, arguments: &str) -> Ran {
    run(node.command_on_old_kernel(&binary(tool)).unwrap(), arguments)
}

/// The plan on the machine's kernel, and on the old one.
fn both_plans(node: &Node, tool: &str) -> [Report; 2] {
    let plan = "--grace 0s --settle 50ms --output json";
    let today = run(node.command(binary(tool)), plan);
    [today, run_on_old_kernel(node, tool, plan)].map(|ran| ran.ended(0).unwrap())
}

/// Verdict by verdict and claim by claim. Not the ages: the runs are moments apart.
fn assert_same([today, old]: &[Report; 2]) {
    assert_eq!(today.verdicts(), old.verdicts());
    for (today, old) in today.items.iter().zip(&old.items) {
        assert_eq!(today.evidence, old.evidence, "{}", old.title);
        assert_eq!((&today.reason, &today.action), (&old.reason, &old.action));
    }
}

#[test]
fn help_is_shown() {
    let mut command = Command::new(tools::workspace_binary("nodemend-lab").unwrap());
    command.args(["old-kernel", "--"]).arg(binary("mend-veth"));
    let ran = run(command, "--help");
    assert!(ran.exited(0).unwrap().stdout.contains("--apply"), "{ran}");
}

#[test]
fn the_same_veths_are_judged_the_same_on_the_same_evidence() {
    let scene = Scene::new(2, 1).unwrap();
    let plans = both_plans(&scene.node, "mend-veth");
    assert_same(&plans);
    assert_eq!(plans[1].with("orphan"), scene.dead_veths());
    assert_eq!(plans[1].with("live"), scene.live_veths());
}

#[test]
fn the_same_reservations_are_judged_the_same_on_the_same_evidence() {
    let scene = Scene::new(2, 1).unwrap();
    scene.node.drop_netns_file(&scene.dead[0].netns).unwrap();
    let plans = both_plans(&scene.node, "mend-ipam");
    assert_same(&plans);
    assert_eq!(plans[1].with("orphan"), [scene.dead[0].ips[0].to_string()]);
    assert_eq!(plans[1].count("live"), 2);
}

#[test]
fn a_namespace_that_is_held_in_a_hidden_way_is_left_alone() {
    let scene = Scene::new(1, Hold::ALL.len()).unwrap();
    for (pod, (_name, way)) in scene.dead.iter().zip(Hold::ALL) {
        scene.node.held_only_by(&pod.netns, way).unwrap();
    }
    let plans = both_plans(&scene.node, "mend-veth");
    assert_same(&plans);
    assert_eq!(plans[1].count("orphan"), 0);
    assert_eq!(plans[1].items.len(), 1 + Hold::ALL.len());
}

#[test]
fn what_is_left_over_is_removed_and_live_pods_go_on() {
    let scene = Scene::new(2, 2).unwrap();
    for tool in ["mend-veth", "mend-ipam"] {
        let ran = run_on_old_kernel(&scene.node, tool, "--grace 0s --apply --yes --output json");
        assert!(ran.ended(0).unwrap().changed, "{ran}");
    }
    let (mut veths, live) = (scene.node.veths().unwrap(), &scene.live);
    veths.sort();
    assert_eq!(veths, scene.live_veths());
    assert_eq!(scene.node.reserved("cbr0").len(), live.len());
    assert!(scene.node.pings_from(&live[0], live[1].ips[0]));
}

/// Below another root, a path is safe only if the kernel keeps it there: without `openat2` nothing is read.
#[test]
fn another_root_is_refused_with_the_reason() {
    let node = Node::start(Options::on(engine_under_test())).unwrap();
    node.write("/mnt/disk/etc/hostname", "other").unwrap();
    let ran = run_on_old_kernel(&node, "mend-ipam", "--root /mnt/disk");
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("openat2 needs Linux 5.6"), "{ran}");
}
