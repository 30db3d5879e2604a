//! What the plan says of sandboxes on a real node: which are forgotten, what belongs to each, and which are somebody's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nodemend_lab::tool::{Item, Report, outside, soon};
use nodemend_lab::{Engine, Node, Options, Sandbox};
use serde_json::Value;

/// Longer than the clocks may differ: what began so long ago is provably older than what is made now.
const APART: Duration = Duration::from_secs(12);

fn node() -> Node {
    Node::start(Options::on(Engine::Containerd)).unwrap()
}

fn plan(node: &Node, flags: &str) -> Report {
    let ran = node.mend(&format!("mend-sandboxes {flags}")).unwrap();
    let report = ran.ended(0).unwrap();
    assert!(report.dry_run && !report.changed);
    report
}

fn item(report: &Report, id: &str) -> Item {
    let found = report.item(id);
    assert!(found.is_some(), "{id} is not in {report:#?}");
    found.unwrap().clone()
}

fn verdict(report: &Report, pod: &Sandbox) -> String {
    item(report, &pod.id).verdict
}

fn all<'a>(report: &'a Report, pods: &'a [Sandbox], verdict: &'a str) {
    for pod in pods {
        let item = item(report, &pod.id);
        assert_eq!(item.verdict, verdict, "{}: {:#?}", pod.name, item.evidence);
    }
}

/// The sandboxes that the report says to run on, forgotten.
fn forgotten(report: &Report) -> &[Value] {
    report.details["forgotten"].as_array().unwrap()
}

fn count(item: &Item, part: &str) -> usize {
    item.subject[part].as_array().unwrap().len()
}

#[test]
fn forgotten_sandboxes_are_named_with_all_that_belongs_to_them() {
    let node = node();
    let pods = node.run_sandboxes(2).unwrap();
    let app = node.run_application(&pods[0], 8080, false).unwrap();
    node.wipe_metadata().unwrap();
    let live = [
        node.run_sandbox("live").unwrap(),
        node.run_sandbox("pod-1").unwrap(),
    ];
    let before = node.fingerprint().unwrap();

    let report = plan(&node, "");
    assert_eq!((report.count("live"), report.items.len()), (4, 4), "{report:#?}");
    let told = forgotten(&report);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told.iter()
            .all(|one| one["doubts"].as_array().unwrap().is_empty()),
        "{told:#?}"
    );
    let with_app = told
        .iter()
        .find(|one| one["title"].as_str().unwrap().starts_with(&pods[0].id))
        .unwrap();
    let running = with_app["running"].as_str().unwrap();
    for words in [
        &format!("{} `/application application 8080`", app.pid),
        ":8080/tcp",
        "MiB",
        "1 shim",
    ] {
        assert!(running.contains(words), "{words}: {running}");
    }
    let with_twin = told
        .iter()
        .find(|one| one["title"].as_str().unwrap().starts_with(&pods[1].id))
        .unwrap();
    assert!(
        with_twin["pod"].as_str().unwrap().contains(&live[1].id),
        "{with_twin}"
    );

    let reaping = plan(&node, "--reap");
    all(&reaping, &pods, "orphan");
    all(&reaping, &live, "live");
    assert!(item(&reaping, &live[0].id).is_known_to("cri "));
    let found = item(&reaping, &pods[0].id);
    let pod = &found.subject["pod"];
    assert_eq!(
        (pod["name"].as_str(), pod["uid"].as_str()),
        (Some("pod-0"), Some(&*pods[0].uid))
    );
    let containers = &found.subject["containers"];
    assert_eq!(
        (&containers[0]["pause"], &containers[1]["name"]),
        (&Value::Bool(true), &Value::from("app-8080"))
    );
    assert_eq!((count(&found, "shims"), count(&found, "processes")), (1, 2));
    assert_eq!(
        (
            count(&found, "tasks"),
            count(&found, "bundles"),
            count(&found, "attachments")
        ),
        (2, 2, 2)
    );
    let network = &found.subject["network"];
    assert_eq!(
        network["paths"][0].as_str().unwrap(),
        pods[0]
            .netns
            .strip_prefix("/var")
            .map_or_else(|_| pods[0].netns.clone(), |rest| Path::new("/").join(rest))
            .to_str()
            .unwrap()
    );
    assert_eq!(network["veths"], Value::from(vec![pods[0].host_veth.clone()]));
    assert_eq!(network["addresses"][0], Value::from(pods[0].ips[0].to_string()));
    let rootfs = |id: &str| format!("/{id}/rootfs");
    let mounts = found.subject["mounts"].as_array().unwrap();
    for id in [&pods[0].id, &app.id] {
        assert!(
            mounts
                .iter()
                .any(|mount| mount["mountpoint"].as_str().unwrap().ends_with(&rootfs(id))),
            "{mounts:#?}"
        );
    }
    for cgroup in found.subject["cgroups"].as_array().unwrap() {
        let path = cgroup["path"].as_str().unwrap();
        assert!(
            [&pods[0].id, &app.id]
                .iter()
                .any(|id| path.ends_with(id.as_str())),
            "{path}"
        );
        assert!(Path::new(path).is_dir(), "{path}");
    }
    assert!(count(&found, "cgroups") >= 2);
    node.unchanged(&before).unwrap();

    // What was recorded is judged the same elsewhere.
    node.mend("mend-sandboxes --record /run/lab/looks.json")
        .unwrap()
        .ended(0)
        .unwrap();
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(node.path("/run/lab/looks.json"), copy.path()).unwrap();
    let replay = format!(
        "mend-sandboxes --reap --grace 0s --output json --replay {}",
        copy.path().display()
    );
    let replayed = outside(&replay).unwrap().ended(0).unwrap();
    assert_eq!(replayed.verdicts(), reaping.verdicts());
}

#[test]
fn an_empty_answer_counts_for_what_is_older_than_the_database() {
    let node = node();
    let old = node.run_sandboxes(2).unwrap();
    sleep(APART);
    let young = [node.run_sandbox("young").unwrap()];
    node.wipe_metadata().unwrap();

    // The old root was set aside, and their files with it.
    let report = plan(&node, "--reap");
    let mounts = &item(&report, &old[1].id).subject["mounts"];
    let lost = mounts
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|mount| mount["lostLayer"].as_str());
    assert!(
        lost.clone()
            .any(|layer| layer.starts_with("/var/lib/containerd/")),
        "{mounts:#?}"
    );

    // The runtime lists nothing, and is a second old: that alone proves nothing.
    all(&report, &old, "orphan");
    all(&report, &young, "undecided");
    let found = item(&report, &old[0].id);
    let words = &found
        .said_by("containerd /run/containerd/containerd.sock metadata")
        .unwrap()
        .detail;
    assert!(
        words.contains("after this sandbox began: no record of it can be in it"),
        "{words}"
    );
    let why = item(&report, &young[0].id).evidence;
    let doubt = why.iter().find(|one| one.source.ends_with("containers")).unwrap();
    assert_eq!(doubt.claim, "unknown");
    assert!(
        doubt.detail.contains("knows nothing yet") && doubt.detail.contains("--records-lost"),
        "{doubt:?}"
    );
    all(&plan(&node, "--reap --records-lost"), &young, "orphan");
    // Without --reap all of them live, and the reader is told which of them can be ended.
    let report = plan(&node, "");
    assert_eq!(report.count("live"), 3);
    let doubtful = forgotten(&report)
        .iter()
        .filter(|one| !one["doubts"].as_array().unwrap().is_empty());
    assert_eq!(doubtful.count(), 1);
}

#[test]
fn records_lost_is_not_heeded_where_the_database_is_older() {
    let node = node();
    let database = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db";
    node.stop_runtime().unwrap();
    node.exec(&["cp", database, "/var/lib/containerd/empty.db"])
        .unwrap();
    node.start_runtime().unwrap();
    sleep(APART);
    let pods = node.run_sandboxes(1).unwrap();
    node.kill_runtime().unwrap();
    // The records are gone, and yet the database was there before the pods: somebody put it back.
    node.exec(&["mv", "/var/lib/containerd/empty.db", database])
        .unwrap();
    node.start_runtime().unwrap();
    let report = plan(&node, "--reap --records-lost");
    all(&report, &pods, "undecided");
    let why = item(&report, &pods[0].id).evidence;
    assert!(
        why.iter()
            .any(|one| one.detail.contains("before this sandbox began")),
        "{why:#?}"
    );
    // Once it lists another sandbox, its answer is whole.
    node.run_sandbox("live").unwrap();
    all(&plan(&node, "--reap"), &pods, "orphan");
}

#[test]
fn what_has_no_process_left_needs_no_reaping() {
    let node = node();
    let dead = node.run_sandboxes(2).unwrap();
    node.wipe_metadata().unwrap();
    node.end_processes(&dead).unwrap();
    let live = [node.run_sandbox("live").unwrap()];
    let report = plan(&node, "");
    all(&report, &dead, "orphan");
    all(&report, &live, "live");
    assert!(forgotten(&report).is_empty());
    let action = item(&report, &dead[0].id).action.unwrap();
    assert!(
        action.starts_with("repeat CNI DEL") && action.contains("release its netns"),
        "{action}"
    );
    assert!(!action.contains("process"), "{action}");
    // Younger than the grace.
    all(&plan(&node, "--grace 10m"), &dead, "undecided");
}

#[test]
fn a_second_containerd_s_containers_are_never_orphans() {
    let node = node();
    let second = node.second_runtime().unwrap();
    let pods = node.run_sandboxes(1).unwrap();
    node.wipe_metadata().unwrap();
    let live = [node.run_sandbox("live").unwrap()];
    // Its shim names its socket: it answers for its own, and for nothing else.
    for flags in ["", "--reap", "--reap --records-lost"] {
        let report = plan(&node, flags);
        let kept = item(&report, &second.id);
        assert_eq!(kept.verdict, "live", "{flags}: {kept:?}");
        let source = format!("containerd {} containers", second.socket);
        assert!(kept.is_known_to(&source), "{flags}: {:#?}", kept.evidence);
        all(&report, &live, "live");
        let wanted = if flags.is_empty() { "live" } else { "orphan" };
        all(&report, &pods, wanted);
    }
    // Where the operator says who is to be asked, nobody else is.
    let undecided = |flags: &str| {
        let report = plan(&node, &format!("--reap --records-lost {flags}"));
        let kept = item(&report, &second.id);
        assert_eq!(kept.verdict, "undecided", "{:#?}", kept.evidence);
        let why = kept.because();
        assert!(
            why.contains(&second.socket) && why.contains("--runtime-endpoint"),
            "{why}"
        );
        all(&report, &pods, "orphan");
    };
    undecided("--runtime-endpoint /run/containerd/containerd.sock");
    let both = format!(
        "--reap --runtime-endpoint /run/containerd/containerd.sock --runtime-endpoint {}",
        second.socket
    );
    let report = plan(&node, &both);
    assert_eq!(item(&report, &second.id).verdict, "live");
    all(&report, &live, "live");
    // One that hangs, and one that is killed and leaves its socket, is silent of its own alone.
    let all_of_it = node.processes().into_iter();
    let daemon = all_of_it.filter(|process| process.argv.iter().any(|word| word.ends_with("second.toml")));
    let daemon: Vec<u32> = daemon.map(|process| process.pid).collect();
    let [pid] = daemon[..] else {
        panic!("one second containerd: {daemon:?}")
    };
    node.exec(&["kill", "-STOP", &pid.to_string()]).unwrap();
    undecided("");
    node.kill(&daemon).unwrap();
    assert!(node.path(&second.socket).exists());
    undecided("");
}

#[test]
fn a_process_that_is_no_part_of_a_sandbox_keeps_its_network() {
    let node = node();
    let pods = node.run_sandboxes(2).unwrap();
    node.wipe_metadata().unwrap();
    node.run_sandbox("live").unwrap();
    let visitor = node
        .spawn_in_netns(&pods[0].netns, &["sleep", "infinity"])
        .unwrap();
    soon("visitor", || verdict(&plan(&node, "--reap"), &pods[0]) == "live").unwrap();
    let report = plan(&node, "--reap");
    let kept = item(&report, &pods[0].id);
    assert!(
        kept.because()
            .contains(&format!("process {visitor} (sleep) lives there")),
        "{}",
        kept.because()
    );
    assert_eq!(verdict(&report, &pods[1]), "orphan");
    node.kill(&[visitor]).unwrap();
    soon("visitor's end", || {
        verdict(&plan(&node, "--reap"), &pods[0]) == "orphan"
    })
    .unwrap();
}

#[test]
fn a_runtime_that_is_silent_leaves_everything_open() {
    let node = node();
    let pods = node.run_sandboxes(1).unwrap();
    node.wipe_metadata().unwrap();
    node.end_processes(&pods).unwrap();
    node.stop_runtime().unwrap();
    let before = node.fingerprint().unwrap();
    let report = plan(&node, "--reap --records-lost");
    all(&report, &pods, "undecided");
    let refused = node
        .mend("mend-sandboxes --reap --records-lost --apply --yes --yes")
        .unwrap()
        .ended(4)
        .unwrap();
    assert!(refused.refused.unwrap().contains("not every source answered"));
    node.unchanged(&before).unwrap();
}
