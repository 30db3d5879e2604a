//! Images that are carried over into a new root, on a node of the lab that pulls nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap in a test's helper is a failed test, and what is printed is seen if it fails"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nodemend_lab::runtime::ROOT;
use nodemend_lab::tool::{Ran, soon};
use nodemend_lab::{Engine, Node, Options, tools};
use serde_json::Value;

const PAUSE: &str = "localhost/pause:3";
const KEPT: &str = "localhost/kept:1";
const OTHER: &str = "localhost/other:1";

/// Stops the node's containerd as systemd does, and waits until it has ended.
const STOP: &str = "pid=$(cat /run/lab/runtime.pid); kill $pid 2>/dev/null; while kill -0 $pid 2>/dev/null; do sleep 0.05; done";

/// A node with three images.
fn node() -> Node {
    let node = Node::start(Options::on(Engine::Containerd)).unwrap();
    node.import_image(KEPT).unwrap();
    node.import_image(OTHER).unwrap();
    node
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

fn mend(node: &Node, flags: &[&str]) -> Ran {
    let start = start();
    let mut argv = vec!["mend-containerd", "--output", "json", "--even-if-healthy"];
    argv.extend(["--stop-command", STOP, "--start-command", &start]);
    argv.extend(flags);
    node.ran(&argv).unwrap()
}

fn json(ran: &Ran, code: i32) -> Value {
    ran.exited(code).unwrap();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

/// What step 6 would do, or did.
fn start_step(report: &Value) -> String {
    let what = report["items"][5]["what"].as_array().unwrap();
    let lines: Vec<&str> = what.iter().map(|line| line.as_str().unwrap()).collect();
    lines.join("\n")
}

/// The names that people use, sorted.
fn names(node: &Node) -> Vec<String> {
    let all = node.shell("ctr --namespace k8s.io images ls -q").unwrap();
    let mut tags: Vec<String> = all
        .lines()
        .filter(|name| name.starts_with("localhost/"))
        .map(str::to_owned)
        .collect();
    tags.sort();
    tags
}

fn blobs(node: &Node) -> Vec<PathBuf> {
    let dir = node
        .path(ROOT)
        .join("io.containerd.content.v1.content/blobs/sha256");
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Runs garbage collection to its end: the removal of an image waits for it.
fn collect_garbage(node: &Node) {
    node.shell("ctr --namespace k8s.io images tag localhost/pause:3 localhost/gone:1 && ctr --namespace k8s.io images rm --sync localhost/gone:1")
        .unwrap();
}

/// The old root has gone, and with it the other links of the blobs.
fn await_removal(node: &Node) {
    soon("the end of the old root", || {
        let names = node.names("/var/lib").into_iter();
        !names
            .into_iter()
            .any(|name| name.starts_with(".containerd.nodemend-aside-"))
    })
    .unwrap();
}

/// A pod with a container of the image starts, unpacked anew from what was carried over.
fn runs(node: &Node, image: &str) {
    let pod = node.run_sandbox("new").unwrap();
    let pid = node.run_image(&pod, image).unwrap();
    assert!(node.is_alive(pid));
    let inside = format!("/proc/{pid}/root/name");
    assert_eq!(node.read(inside).unwrap(), image, "its own files are in it");
}

#[test]
fn all_images_are_carried_over_and_pods_start_without_a_pull() {
    let node = node();
    let before = names(&node);
    assert_eq!(before, [KEPT, OTHER, PAUSE]);

    let planned = json(&mend(&node, &["--keep-content"]), 0);
    assert!(
        start_step(&planned).contains("3 of 3 images are carried over"),
        "{planned:#}"
    );
    let ran = mend(&node, &["--keep-content", "--apply", "--yes"]);
    println!("{}", ran.stdout);
    let done = json(&ran, 0);
    assert_eq!(done["run"]["course"], "mended", "{done:#}");
    let said = start_step(&done);
    assert!(said.contains("images: 3 of 3 carried over"), "{said}");
    assert!(said.contains(" 0 copied"), "the blobs are linked: {said}");

    await_removal(&node);
    for blob in blobs(&node) {
        assert_eq!(fs::metadata(&blob).unwrap().nlink(), 1, "{}", blob.display());
    }
    let held = blobs(&node).len();
    collect_garbage(&node);
    assert_eq!(blobs(&node).len(), held, "no blob was garbage");
    assert_eq!(names(&node), before);
    runs(&node, KEPT);
    // It holds after a restart, too.
    node.stop_runtime().unwrap();
    node.start_runtime().unwrap();
    assert_eq!(names(&node), before);
    runs(&node, OTHER);
}

#[test]
fn of_the_images_those_that_are_named_are_carried_over() {
    let node = node();
    let list = format!("{PAUSE},{KEPT}");
    let unknown = json(
        &mend(&node, &["--keep-images", "localhost/no:1", "--keep-images", KEPT]),
        4,
    );
    assert_eq!(unknown["refusals"][0]["reason"], "imagesNotKept", "{unknown:#}");
    assert!(
        unknown["refusals"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("localhost/no:1")
    );
    assert_eq!(unknown["refusals"].as_array().unwrap().len(), 1);

    let done = json(&mend(&node, &["--keep-images", &list, "--apply", "--yes"]), 0);
    assert_eq!(done["run"]["course"], "mended", "{done:#}");
    assert!(
        start_step(&done).contains("images: 2 of 2 carried over"),
        "{done:#}"
    );
    assert_eq!(names(&node), [KEPT, PAUSE]);
    await_removal(&node);
    collect_garbage(&node);
    runs(&node, KEPT);
    let pod = node.run_sandbox("without").unwrap();
    let lost = node.run_image(&pod, OTHER).unwrap_err().to_string();
    assert!(lost.contains("not found"), "{lost}");
}

#[test]
fn without_a_database_the_names_are_lost_and_that_is_said() {
    let node = node();
    node.stop_runtime().unwrap();
    let database = node.path(ROOT).join("io.containerd.metadata.v1.bolt/meta.db");
    let size = usize::try_from(fs::metadata(&database).unwrap().len()).unwrap();
    fs::write(&database, vec![0x5a; size]).unwrap();
    for flags in [vec!["--keep-content"], vec!["--keep-images", KEPT]] {
        let refused = json(&mend(&node, &flags), 4);
        let refusal = &refused["refusals"][0];
        assert_eq!(refusal["reason"], "imagesNotKept", "{refused:#}");
        let detail = refusal["detail"].as_str().unwrap();
        assert!(
            detail.contains("names of the images are lost") && detail.contains("meta.db"),
            "{detail}"
        );
    }
    let without = json(&mend(&node, &[]), 0);
    assert_eq!(without["refusals"].as_array().unwrap().len(), 0, "{without:#}");
}

#[test]
fn an_image_of_which_a_blob_is_corrupt_stays_behind_and_the_others_do_not() {
    let node = node();
    // The largest blob of the image is its layer; a bit of it is turned, and its size stays.
    let layer = blobs(&node)
        .into_iter()
        .find(|path| {
            let bytes = fs::read(path).unwrap();
            bytes.starts_with(b"pause\0") && String::from_utf8_lossy(&bytes).contains(KEPT)
        })
        .unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[600] ^= 1;
    fs::write(&layer, bytes).unwrap();

    let done = json(&mend(&node, &["--keep-content", "--apply", "--yes"]), 0);
    let said = start_step(&done);
    assert!(said.contains("images: 2 of 3 carried over"), "{said}");
    assert!(
        said.contains(&format!("{KEPT} is not carried over: sha256:")),
        "{said}"
    );
    assert_eq!(names(&node), [OTHER, PAUSE]);
    runs(&node, OTHER);
}

#[test]
fn a_run_that_is_rolled_back_has_its_images_as_before() {
    let node = node();
    let before = names(&node);
    // A pod that is kept holds the old root, so the removal does not begin.
    let pod = node.run_sandbox("held").unwrap();
    let ran = mend(&node, &["--keep-content", "--keep-pods", "--apply", "--yes"]);
    let done = json(&ran, 0);
    assert_eq!(done["removal"]["state"], "refused", "{done:#}");
    assert!(node.is_alive(pod.pause));
    collect_garbage(&node);
    let back = json(&mend(&node, &["--roll-back", "--apply", "--yes"]), 0);
    assert_eq!(back["run"]["course"], "rolledBack", "{back:#}");
    soon("an answer of containerd", || node.list_sandboxes().is_ok()).unwrap();
    assert_eq!(names(&node), before);
    runs(&node, KEPT);
}

#[test]
fn blobs_that_cannot_be_linked_are_copied() {
    let node = node();
    let before = names(&node);
    // The content store is a link to another file system.
    node.stop_runtime().unwrap();
    node.shell(&format!(
        "mkdir /run/elsewhere && mount -t tmpfs elsewhere /run/elsewhere && \
         mv {ROOT}/io.containerd.content.v1.content /run/elsewhere/content && \
         ln -s /run/elsewhere/content {ROOT}/io.containerd.content.v1.content"
    ))
    .unwrap();
    node.start_runtime().unwrap();
    assert_eq!(names(&node), before);

    let done = json(&mend(&node, &["--keep-content", "--apply", "--yes"]), 0);
    let said = start_step(&done);
    assert!(
        said.contains("images: 3 of 3 carried over (0 blobs linked"),
        "{said}"
    );
    assert!(!said.contains(" 0 copied"), "{said}");
    await_removal(&node);
    collect_garbage(&node);
    assert_eq!(names(&node), before);
    runs(&node, KEPT);
}

/// A containerd that shares no blobs between namespaces takes nothing over that lies there.
#[test]
fn where_blobs_are_not_shared_their_bytes_are_sent() {
    let node = node();
    let config = "/etc/containerd/config.toml";
    let policy = "[plugins.\"io.containerd.metadata.v1.bolt\"]\n  content_sharing_policy = \"isolated\"\n";
    let text = node.read(config).unwrap() + policy;
    node.write(config, &text).unwrap();
    let done = json(&mend(&node, &["--keep-content", "--apply", "--yes"]), 0);
    let said = start_step(&done);
    assert!(
        said.contains("images: 3 of 3 carried over (0 blobs linked"),
        "{said}"
    );
    await_removal(&node);
    collect_garbage(&node);
    runs(&node, KEPT);
}

#[test]
fn a_root_that_is_a_mount_point_keeps_its_images_too() {
    let node = Node::start(Options::on(Engine::Containerd)).unwrap();
    node.stop_runtime().unwrap();
    node.shell(&format!("mount -t tmpfs own {ROOT}")).unwrap();
    node.start_runtime().unwrap();
    node.import_image(KEPT).unwrap();
    let done = json(&mend(&node, &["--keep-content", "--apply", "--yes"]), 0);
    assert_eq!(done["run"]["root"]["ownMount"], true, "{done:#}");
    let said = start_step(&done);
    assert!(
        said.contains("images: 2 of 2 carried over") && said.contains(" 0 copied"),
        "{said}"
    );
    soon("the end of the old root", || {
        let mut names = node.names(ROOT).into_iter();
        !names.any(|name| name.contains("nodemend-aside"))
    })
    .unwrap();
    collect_garbage(&node);
    assert_eq!(names(&node), [KEPT, PAUSE]);
    runs(&node, KEPT);
}

/// Kills a run when it is about to make the `nth` hard link. Its threads are followed, and the programs that it starts are not.
fn killed_at_link(node: &Node, nth: u32) {
    let inject = format!("inject=linkat:signal=KILL:when={nth}");
    let program = tools::workspace_binary("mend-containerd").unwrap();
    let (program, start) = (program.to_string_lossy(), start());
    let mut argv = vec!["strace", "--quiet=all", "--output=/dev/null", "--follow-forks"];
    argv.extend(["--detach-on=execve", "-e", &inject, &program]);
    argv.extend(["--stop-command", STOP, "--start-command", &start]);
    argv.extend(["--output", "json", "--even-if-healthy", "--keep-content"]);
    argv.extend(["--apply", "--yes"]);
    let ran = node.ran(&argv).unwrap();
    assert_eq!(ran.code, 137, "{ran}");
}

#[test]
fn a_run_that_was_killed_between_two_blobs_is_gone_on_with() {
    tools::find("strace").expect("this test needs strace (package strace)");
    let node = node();
    let before = names(&node);
    for nth in [1, 4, 9] {
        killed_at_link(&node, nth);
        let done = json(&mend(&node, &["--resume", "--apply", "--yes"]), 0);
        assert_eq!(done["run"]["course"], "mended", "{done:#}");
        let said = start_step(&done);
        assert!(said.contains("images: 3 of 3 carried over"), "link {nth}: {said}");
        await_removal(&node);
        collect_garbage(&node);
        assert_eq!(names(&node), before, "link {nth}");
        let leases = node.shell("ctr --namespace k8s.io leases ls -q").unwrap();
        assert_eq!(leases.trim(), "", "no lease is left");
    }
    runs(&node, KEPT);
}

/// All names of a database, those by digest and id, too.
fn all_names(images: &nodemend_containerd::Images) -> BTreeSet<String> {
    let images = images.images.iter();
    images.flat_map(|image| image.names.keys().cloned()).collect()
}

#[test]
fn every_name_of_a_real_database_is_read_and_none_is_made_up() {
    let node = node();
    node.shell(
        "for nth in $(seq 1 120); do ctr --namespace k8s.io images tag localhost/pause:3 localhost/tag-$nth:1 >/dev/null; done",
    )
    .unwrap();
    let listed = || -> BTreeSet<String> {
        let all = node.shell("ctr --namespace k8s.io images ls -q").unwrap();
        all.lines().map(str::to_owned).collect()
    };
    let root = node.path(ROOT);
    let known = listed();
    assert!(
        known.len() > 120,
        "so many that they take branches: {}",
        known.len()
    );
    let live = nodemend_containerd::images(&root);
    assert_eq!(all_names(&live), known, "while containerd runs");
    node.stop_runtime().unwrap();
    let read = nodemend_containerd::images(&root);
    assert_eq!(all_names(&read), known);
    assert_eq!((read.faults.len(), read.images.len()), (0, 3));
    assert!(read.images.iter().all(|image| image.lacks.is_none()), "{read:#?}");

    let path = root.join("io.containerd.metadata.v1.bolt/meta.db");
    let whole = fs::read(&path).unwrap();
    let mut told = 0;
    for page in 0..whole.len() / 4096 {
        let mut torn = whole.clone();
        torn[page * 4096..(page + 1) * 4096].fill(0x5a);
        fs::write(&path, torn).unwrap();
        let read = nodemend_containerd::images(&root);
        let names = all_names(&read);
        assert!(names.is_subset(&known), "page {page}: {names:?}");
        if names != known {
            assert!(
                read.unnamed.is_some() || !read.faults.is_empty() || page < 2,
                "page {page} is gone without a word"
            );
            told += 1;
        }
    }
    assert!(told > 3, "{told}");
}
