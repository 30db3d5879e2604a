//! What the library `nodemend-containerd` says of a real containerd: young, well, hung, stopped, and with a database that was
//! destroyed in each of the ways that a power loss or a bad disk does it.
//!
//! Nothing is skipped here: on a machine without containerd or root, the test fails and says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_containerd::{Amount, Health, Lock, Look, Origin, wait_for_cri};
use nodemend_lab::runtime::{ROOT, SOCKET};
use nodemend_lab::tool::soon;
use nodemend_lab::{Engine, Node, Options};

const META: &str = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db";
const LOG: &str = "/run/broken.log";

fn node() -> Node {
    Node::start(Options::on(Engine::Containerd)).unwrap()
}

fn look(node: &Node) -> Look {
    let said = node.exec(&["nodemend-lab", "look"]).unwrap();
    serde_json::from_str(&said).unwrap()
}

fn broken(look: &Look) -> String {
    assert!(matches!(look.health, Health::Broken { .. }), "{:?}", look.health);
    look.health.why().join(" | ")
}

fn unknown(look: &Look) -> String {
    assert!(matches!(look.health, Health::Unknown { .. }), "{:?}", look.health);
    look.health.why().join(" | ")
}

/// Every file of the root, with its size and its time of change.
fn files(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let data = entry.metadata().unwrap();
        found.push(format!(
            "{:?} {} {:?}",
            entry.path(),
            data.len(),
            data.modified().unwrap()
        ));
        if data.is_dir() {
            files(&entry.path(), found);
        }
    }
}

fn root(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    files(&node.path(ROOT), &mut found);
    found.sort();
    found
}

#[test]
fn a_containerd_is_young_then_healthy_then_hung_then_stopped() {
    let node = node();
    let pods = node.run_sandboxes(2).unwrap();
    let pid = node.runtime_pid().unwrap();

    let young = look(&node);
    assert!(unknown(&young).contains("was started only"), "{young:?}");
    assert_eq!(young.settings.origin, Origin::Process(pid));
    assert_eq!(young.settings.root, Path::new(ROOT));
    assert_eq!(young.settings.socket, Path::new(SOCKET));
    assert_eq!(young.databases[0].path, Path::new(META));
    assert_eq!(
        (young.databases[0].pages.len(), &young.databases[0].lock),
        (2, &Lock::Held(pid))
    );
    assert!(
        young.databases.iter().all(|database| database.faults.is_empty()),
        "{:?}",
        young.databases
    );
    assert!(
        young.databases.len() > 1,
        "the snapshotter has a database, too: {:?}",
        young.databases
    );
    assert!(
        matches!(young.estimate.entries, Amount::Exactly(entries) if entries > 20),
        "{:?}",
        young.estimate
    );
    assert!(
        matches!(young.estimate.snapshots, Amount::Exactly(3..)),
        "{:?}",
        young.estimate
    );
    assert!(!young.root.unwrap().is_mount_point || young.estimate.filesystem_bytes.is_some());
    let mut seen: Vec<_> = young.pods.iter().map(|pod| pod.sandbox.as_str()).collect();
    let mut wanted: Vec<_> = pods.iter().map(|pod| pod.id.as_str()).collect();
    seen.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
    assert!(
        young
            .pods
            .iter()
            .all(|pod| pod.shims.len() == 1 && pod.processes == 1 && pod.pod.is_some()),
        "{:?}",
        young.pods
    );
    assert_eq!(young.mounts_of_root.len(), 2, "{:?}", young.mounts_of_root);
    assert!(
        young
            .mounts_of_root
            .iter()
            .all(|found| found.uses.starts_with(ROOT))
    );
    let ready = wait_for_cri(&node.path(SOCKET), Duration::from_secs(20)).unwrap();
    assert_eq!((ready.runtime.as_str(), ready.api.as_str()), ("containerd", "v1"));

    while node.age() < Duration::from_secs(64) {
        sleep(Duration::from_millis(200));
    }
    let before = root(&node);
    let healthy = look(&node);
    assert_eq!(root(&node), before, "the look changed something");
    assert!(
        matches!(&healthy.health, Health::Healthy { runtime, age } if runtime.starts_with("containerd ") && *age >= 60),
        "{:?}",
        healthy.health
    );

    node.hang_runtime().unwrap();
    let begun = Instant::now();
    let hung = look(&node);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(
        broken(&hung).contains("does not answer: did not answer within 3 s"),
        "{hung:?}"
    );
    assert_eq!(hung.databases[0].lock, Lock::Held(pid));
    assert_eq!(hung.pods.len(), 2, "{:?}", hung.pods);
    let waited = wait_for_cri(&node.path(SOCKET), Duration::from_secs(1))
        .unwrap_err()
        .to_string();
    assert!(waited.contains("did not answer within"), "{waited}");
    node.resume_runtime().unwrap();

    node.stop_runtime().unwrap();
    let stopped = look(&node);
    assert!(broken(&stopped).starts_with("it does not run"), "{stopped:?}");
    assert_eq!(
        (&stopped.settings.origin, &stopped.databases[0].lock),
        (&Origin::Default, &Lock::Free)
    );
    assert_eq!(stopped.settings.root, Path::new(ROOT));
    assert_eq!(
        stopped.pods.len(),
        2,
        "pods outlive containerd: {:?}",
        stopped.pods
    );
    assert!(
        stopped.pods.iter().all(|pod| pod.pod.is_some()),
        "{:?}",
        stopped.pods
    );
}

/// Writes bytes into a database of a containerd that is stopped.
fn overwrite(node: &Node, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(node.path(META)).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn cut(node: &Node, size: u64) {
    let file = OpenOptions::new().write(true).open(node.path(META)).unwrap();
    file.set_len(size).unwrap();
}

/// Starts containerd on what it has, and waits until it has ended or has stood for some seconds; what it said.
fn start(node: &Node) -> (bool, String) {
    let _ = fs::remove_file(node.path(LOG));
    let pid = node
        .spawn(&["sh", "-c", &format!("exec containerd > {LOG} 2>&1")])
        .unwrap();
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end && node.is_alive(pid) {
        sleep(Duration::from_millis(100));
    }
    let said = node.read(LOG).unwrap_or_default();
    let fatal = [
        "panic",
        "fatal",
        "metadata.v1.bolt",
        "invalid database",
        "fault",
        "goroutine",
        "bbolt",
        "shutting down",
    ];
    let telling = said
        .lines()
        .filter(|line| fatal.iter().any(|word| line.contains(word)));
    (
        node.is_alive(pid),
        telling.take(12).collect::<Vec<_>>().join("\n"),
    )
}

fn end(node: &Node) {
    let pids: Vec<u32> = node
        .processes()
        .into_iter()
        .filter(|process| process.argv == ["containerd"] && !process.zombie)
        .map(|process| process.pid)
        .collect();
    node.kill(&pids).unwrap();
    soon("end of containerd", || {
        pids.iter().all(|pid| !node.is_alive(*pid))
    })
    .unwrap();
}

#[test]
fn a_destroyed_database_is_told_before_and_after_containerd_has_tried_it() {
    let node = node();
    node.run_sandboxes(1).unwrap();
    node.stop_runtime().unwrap();
    let sound = fs::read(node.path(META)).unwrap();
    let page = u64::from(u32::from_ne_bytes(sound[24..28].try_into().unwrap()));
    let word = |at: u64| {
        let at = usize::try_from(at).unwrap();
        u64::from_ne_bytes(sound[at..at + 8].try_into().unwrap())
    };
    // The newer of the two meta pages names the root bucket.
    let newest = if word(16 + 48) > word(page + 16 + 48) {
        0
    } else {
        page
    };
    let root = word(newest + 16 + 16) * page;
    let half = sound.len() as u64 / 2;
    let garbage = vec![b'_'; usize::try_from(page).unwrap()];
    let zeros = vec![0; usize::try_from(2 * page).unwrap()];
    // What is done, what the look says of it, and what containerd says: with two bad meta pages bbolt gives an error, and
    // containerd comes up without a CRI; with another bad page it panics.
    let damages: [(&str, &dyn Fn(), &str, &str); 4] = [
        (
            "zeros",
            &|| overwrite(&node, 0, &zeros),
            "meta page 0: it holds zeros alone; meta page 1: it holds zeros alone",
            "invalid database",
        ),
        (
            "torn meta pages",
            &|| {
                overwrite(&node, 0, &[b'x'; 60]);
                overwrite(&node, page + 40, &[0xff; 8]);
            },
            "not 0xed0cdaed; meta page 1: its checksum is wrong",
            "invalid database",
        ),
        (
            "another file's bytes in the root bucket",
            &|| overwrite(&node, root, &garbage),
            "should be its root bucket",
            "panic: ",
        ),
        ("cut in half", &|| cut(&node, half), "it is cut: ", "panic: "),
    ];
    for (what, damage, fault, said) in damages {
        fs::write(node.path(META), &sound).unwrap();
        damage();
        let before = look(&node);
        assert!(
            broken(&before).contains("meta.db is corrupt"),
            "{what}: {before:?}"
        );
        let faults = before.databases[0].faults.join(" | ");
        assert!(faults.contains(fault), "{what}: {faults}");

        let (stays, log) = start(&node);
        let after = broken(&look(&node));
        println!("{what}\nfaults: {faults}\ncontainerd stays: {stays}\n{log}\nthe look: {after}\n");
        assert!(log.contains(said), "{what}: {log}");
        assert_eq!(stays, !said.starts_with("panic"), "{what}: {log}");
        assert!(after.contains("meta.db is corrupt"), "{what}: {after}");
        assert_eq!(after.contains("has no CRI"), stays, "{what}: {after}");
        end(&node);
    }

    // One bad meta page is no fault: containerd starts.
    fs::write(node.path(META), &sound).unwrap();
    overwrite(&node, newest + 40, &[0xff; 8]);
    let one = look(&node);
    assert!(one.databases[0].faults.is_empty(), "{:?}", one.databases[0]);
    assert!(
        one.findings
            .iter()
            .any(|finding| finding.text.contains("bbolt uses the other one")),
        "{:?}",
        one.findings
    );
    node.start_runtime().unwrap();
}
