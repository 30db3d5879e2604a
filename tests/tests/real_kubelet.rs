//! A real kubelet beside the tools: it knows its pods, finishes what `--unblock` leaves, and comes back after the incident.
//!
//! Debian has no package of it, so these run on request only: `tests/README.md` says how to build one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a failed unwrap in a test's helper is a failed test, and what was measured is printed"
)]

use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_lab::kubelet::{MANIFESTS, Pod};
use nodemend_lab::machine::{Machine, Shims, Suite};
use nodemend_lab::pods::{Csi, Volume};
use nodemend_lab::tool::Ran;
use serde_json::Value;

const IMAGE: &str = "localhost/app:1";

const MEND_PODS: &str = "mend-pods --kubelet-settled 0s";

fn soon(what: &str, machine: &Machine, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(90);
    while !test() {
        assert!(
            Instant::now() < end,
            "not within 90 s: {what}\n{}",
            last_said(machine)
        );
        sleep(Duration::from_millis(100));
    }
}

/// A machine with a real kubelet that runs two static pods.
fn machine() -> Machine {
    let program = Machine::real_kubelet().unwrap();
    let machine = Machine::boot(Suite::asked().unwrap()).unwrap();
    machine.import_image(IMAGE).unwrap();
    machine.start_real_kubelet(&program).unwrap();
    for name in ["first", "second"] {
        describe(&machine, name);
    }
    soon("two pods that run", &machine, || running(&machine).len() == 2);
    machine
}

/// A static pod with scratch space on disk and in memory, and a part of a directory of the node.
fn describe(machine: &Machine, name: &str) {
    machine.write(format!("/srv/{name}/part/file"), name).unwrap();
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: {IMAGE}
    imagePullPolicy: Never
    command: [/pause]
    volumeMounts:
    - {{name: disk, mountPath: /disk}}
    - {{name: memory, mountPath: /memory}}
    - {{name: host, mountPath: /host, subPath: part}}
  volumes:
  - name: disk
    emptyDir: {{}}
  - name: memory
    emptyDir: {{medium: Memory}}
  - name: host
    hostPath: {{path: /srv/{name}}}
"
    );
    machine.write(format!("{MANIFESTS}/{name}.yaml"), &text).unwrap();
}

/// The uids of the pods whose container runs, sorted.
fn running(machine: &Machine) -> Vec<String> {
    let listed = machine.shell(
        r#"for id in $(ctr --namespace k8s.io tasks ls | awk '$3 == "RUNNING" { print $1 }'); do
             ctr --namespace k8s.io containers info $id | tr -d '\n' |
               sed -n 's/.*"io.cri-containerd.kind": "container".*"io.kubernetes.pod.uid": "\([^"]*\)".*/\1/p'
             echo
           done"#,
    );
    let mut uids: Vec<String> = listed
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    uids.sort();
    uids
}

fn last_said(machine: &Machine) -> String {
    let log = machine.journal("kubelet.service").unwrap();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// How often kubelet's log has this text.
fn said(machine: &Machine, text: &str) -> usize {
    let log = machine.journal("kubelet.service").unwrap();
    log.lines().filter(|line| line.contains(text)).count()
}

fn mend(machine: &Machine, line: &str) -> Ran {
    machine.mend(line).unwrap()
}

/// The reports of a tool about the pods of these uids are all `live`.
fn all_live(machine: &Machine, uids: &[String]) {
    let report = mend(machine, MEND_PODS).ended(0).unwrap();
    for uid in uids {
        let item = report.item(uid).unwrap();
        assert_eq!(item.verdict, "live", "{item:?}");
        assert!(item.is_known_to("kubelet"), "{item:?}");
    }
}

/// Which pods there are, and that each tool leaves them alone.
#[test]
#[ignore = "needs a kubelet, named by NODEMEND_KUBELET"]
fn its_pods_are_live_to_every_tool() {
    let machine = machine();
    let uids = running(&machine);
    all_live(&machine, &uids);
    for tool in ["mend-sandboxes", "mend-veth", "mend-ipam"] {
        let report = mend(&machine, tool).ended(0).unwrap();
        assert_eq!(report.count("live"), 2, "{tool}: {report:?}");
        assert_eq!(report.items.len(), 2, "{tool}: {report:?}");
    }
}

/// A pod that went while kubelet was down, of which a driver that is not there any more has left its record.
#[test]
#[ignore = "needs a kubelet, named by NODEMEND_KUBELET"]
fn it_finishes_what_unblock_leaves() {
    let machine = machine();
    let known = running(&machine);
    let mut orphan = machine.pod_dir(&Pod::new("gone").unwrap()).unwrap();
    let leaf = orphan.volume("pv", &Volume::Csi(Csi::unstaged())).unwrap();
    orphan.unmount(&leaf).unwrap();
    let uid = orphan.pod.uid.clone();
    let complaint = format!("orphaned pod \"{uid}\" found, but volume paths are still present on disk");
    soon("kubelet's complaint", &machine, || said(&machine, &complaint) > 1);

    all_live(&machine, &known);
    let done = mend(&machine, &format!("{MEND_PODS} --apply --yes"))
        .ended(0)
        .unwrap();
    assert_eq!(done.item(&uid).unwrap().verdict, "orphan", "{done:?}");
    soon("the end of the directory", &machine, || !orphan.exists());
    let before = said(&machine, &complaint);
    sleep(Duration::from_secs(5));
    assert_eq!(said(&machine, &complaint), before, "it complains no more");
    assert_eq!(running(&machine), known);
    all_live(&machine, &known);
}

/// What a containerd that lost its shims leaves of a pod: see docs/incident.md.
#[test]
#[ignore = "needs a kubelet, named by NODEMEND_KUBELET"]
fn it_removes_the_empty_cgroups_of_pods_that_it_does_not_know() {
    let machine = machine();
    let known = running(&machine);
    let pod = Pod::new("gone").unwrap();
    let in_each = |what: &str| {
        let dirs = "/sys/fs/cgroup/*/kubepods/besteffort";
        let line = format!(
            "for dir in {dirs}; do {what} $dir/pod{}; done 2>/dev/null",
            pod.uid
        );
        machine.shell(&format!("{line} || true")).unwrap()
    };
    in_each("mkdir");
    // It knows the controllers, and not the tree without any beside them.
    let left = || {
        in_each("ls -d")
            .lines()
            .filter(|dir| !dir.contains("/unified/"))
            .count()
    };
    assert!(left() > 1);
    soon("the end of the cgroups", &machine, || left() == 0);
    assert_eq!(running(&machine), known);
}

/// The whole incident, and the pods of before come back as new ones.
#[test]
#[ignore = "needs a kubelet, named by NODEMEND_KUBELET"]
fn it_runs_its_pods_again_after_the_incident() {
    let machine = machine();
    let old = running(&machine);
    let pauses = machine.list_sandboxes().unwrap();
    machine.break_metadata(Shims::Live).unwrap();
    let line = "mend-containerd --reap-pods --apply --yes --output json";
    let ran = machine.ran(&line.split(' ').collect::<Vec<_>>()).unwrap();
    println!("{}", ran.stdout);
    let done: Value = serde_json::from_str(&ran.exited(0).unwrap().stdout).unwrap();
    assert_eq!(done["run"]["course"], "mended", "{done:#}");

    machine
        .shell("ctr --namespace k8s.io images import /run/lab/pause.tar")
        .unwrap();
    machine.import_image(IMAGE).unwrap();
    soon("the pods that run again", &machine, || running(&machine) == old);
    let now = machine.list_sandboxes().unwrap();
    assert!(now.iter().all(|pod| !pauses.contains(pod)), "{now:?}");
    all_live(&machine, &old);
    for tool in ["mend-sandboxes", "mend-veth", "mend-ipam"] {
        let report = mend(&machine, tool).ended(0).unwrap();
        assert_eq!(report.count("live"), report.items.len(), "{tool}: {report:?}");
    }
}
