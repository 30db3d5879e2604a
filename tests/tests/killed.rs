//! A repair that is killed at any moment leaves nothing that the next one does not finish.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::time::Instant;

use nodemend_lab::tool::{Fingerprint, Scene, soon};
use nodemend_lab::{Crowd, Node};

const MOMENTS: u32 = 25;

/// The arguments of the run that is killed.
const APPLY: &str = "mend-veth --apply --yes --grace 0s --settle 0s --output json";

fn leftovers(node: &Node, count: u32, processes: bool) {
    node.crowd(Crowd { count, processes }).unwrap();
}

/// The next run ends well, and the node is as it was before there was anything to mend. A namespace that the killed run
/// released takes the kernel a moment to end, and its pair is undecided for so long: then the run is repeated.
fn the_next_run_finishes(node: &Node, flags: &str, clean: &Fingerprint, moment: &str) {
    let what = format!("killed {moment}, the next run finishes");
    soon(&what, || {
        let ran = node.mend(&format!("mend-veth --apply --yes {flags}")).unwrap();
        ran.ended(0).unwrap().count("undecided") == 0
    })
    .unwrap();
    let changes = clean.changes(&node.fingerprint().unwrap());
    assert!(changes.is_empty(), "killed {moment}:\n{}", changes.join("\n"));
}

#[test]
fn killed_at_any_time_a_run_is_finished_by_the_next() {
    let scene = Scene::new(2, 0).unwrap();
    let node = &scene.node;
    let watch = node.watch(&scene.live[0], scene.live[1].ips[0]).unwrap();
    let clean = node.fingerprint().unwrap();
    leftovers(node, 6, false);
    let begun = Instant::now();
    the_next_run_finishes(node, "--settle 0s", &clean, "never");
    let whole = begun.elapsed();
    let mut killed = 0;
    for moment in 1..=MOMENTS {
        leftovers(node, 6, false);
        let delay = whole.mul_f32(1.2) * moment / MOMENTS;
        let line = format!("timeout --signal KILL {:.4} {APPLY}", delay.as_secs_f32());
        let argv: Vec<&str> = line.split(' ').collect();
        if node.ran(&argv).unwrap().code == 137 {
            killed += 1;
        }
        the_next_run_finishes(node, "", &clean, &format!("after {delay:?}"));
    }
    println!("{killed} of {MOMENTS} runs were killed before their end");
    assert!(killed > 0);
    assert!(watch.finish().unwrap().nothing_lost());
}

/// Kills a run when it enters its `nth` call of this kind; whether it made that many.
fn killed_at(node: &Node, call: &str, nth: u32, flags: &str) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let line = format!("strace --follow-forks --quiet=all --output=/dev/null -e {inject} {APPLY} {flags}");
    let argv: Vec<&str> = line.split_whitespace().collect();
    let ran = node.ran(&argv).unwrap();
    assert!(ran.code == 137 || ran.code == 0, "{ran}");
    ran.code == 137
}

#[test]
fn killed_between_any_two_steps_of_a_release_a_run_is_finished_by_the_next() {
    nodemend_lab::tools::find("strace").expect("this test needs strace (package strace)");
    let scene = Scene::new(1, 0).unwrap();
    let node = &scene.node;
    let clean = node.fingerprint().unwrap();
    for call in ["fdatasync", "unshare", "umount2", "unlink,unlinkat"] {
        for nth in 1..=3 {
            leftovers(node, 3, false);
            let moment = format!("at its {call} number {nth}");
            let killed = killed_at(node, call, nth, "");
            assert!(killed || nth > 1, "it makes no call of {call} at all");
            the_next_run_finishes(node, "", &clean, &moment);
        }
    }
}

/// The links that are in a group of their own: on the way out.
fn grouped(node: &Node) -> usize {
    let links = node.fingerprint().unwrap().links;
    links
        .values()
        .filter(|link| !link.contains("\"default\""))
        .count()
}

#[test]
fn killed_while_links_are_grouped_for_removal_a_run_is_finished_by_the_next() {
    nodemend_lab::tools::find("strace").expect("this test needs strace (package strace)");
    let scene = Scene::new(1, 0).unwrap();
    let node = &scene.node;
    let clean = node.fingerprint().unwrap();
    // Links are removed only from under processes; slowly, so that each step can be seen.
    let flags = "--cut-running --yes";
    let line = format!(
        "--follow-forks --quiet=all --output=/dev/null -e inject=sendto:delay_enter=100000 {APPLY} {flags}"
    );
    for count in 1..=3 {
        leftovers(node, 3, true);
        let mut strace = node.command("strace");
        let mut slow = strace.args(line.split_whitespace()).spawn().unwrap();
        soon(&format!("{count} links in a group"), || grouped(node) >= count).unwrap();
        let mut all = node.processes().into_iter();
        let tool = all.find(|process| process.argv.first().is_some_and(|name| name == "mend-veth"));
        node.kill(&[tool.unwrap().pid]).unwrap();
        slow.wait().unwrap();
        assert!(grouped(node) >= count, "it was killed in between");

        let next = node
            .mend(&format!("mend-veth --apply --yes {flags}"))
            .unwrap()
            .ended(0)
            .unwrap();
        assert_eq!(next.count("orphan"), 3, "a group of its own is no alien mark");
        let now = node.fingerprint().unwrap();
        assert_eq!(now.links, clean.links);
        let held: Vec<u32> = now.processes.difference(&clean.processes).copied().collect();
        assert_eq!(held.len(), 3, "the processes run on");
        node.kill(&held).unwrap();
        let files = now.netns.keys().filter(|file| !clean.netns.contains_key(*file));
        files.for_each(|file| node.drop_netns_file(file).unwrap());
    }
}
