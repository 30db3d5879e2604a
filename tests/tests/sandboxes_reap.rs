//! Forgotten sandboxes that still run are ended and cleared, and nothing else is touched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use nodemend_lab::tool::{Fingerprint, Report, soon};
use nodemend_lab::{Application, Engine, Node, Options, POD_CGROUP, Sandbox};

/// A node after the wipe: sandboxes that nobody remembers and that run an application each, willing and stubborn in turns,
/// and pods of after.
struct Incident {
    node: Node,
    forgotten: Vec<(Sandbox, Vec<Application>)>,
    live: Vec<Sandbox>,
}

impl Incident {
    fn new(forgotten: usize, live: usize) -> Self {
        let node = Node::start(Options::on(Engine::Containerd)).unwrap();
        let pods = node.run_sandboxes(forgotten).unwrap();
        let apps = pods.iter().enumerate().map(|(n, pod)| {
            let port = 8080 + u16::try_from(n).unwrap();
            vec![node.run_application(pod, port, n % 2 == 1).unwrap()]
        });
        let apps: Vec<_> = apps.collect();
        node.wipe_metadata().unwrap();
        let live = (0..live)
            .map(|n| node.run_sandbox(&format!("live-{n}")).unwrap())
            .collect();
        Self {
            node,
            forgotten: pods.into_iter().zip(apps).collect(),
            live,
        }
    }

    fn remains(&self) -> Vec<String> {
        let of = |(pod, apps): &(Sandbox, Vec<Application>)| self.node.remains(pod, apps);
        self.forgotten.iter().flat_map(of).collect()
    }

    /// The fingerprint of this node without the forgotten.
    fn without_the_forgotten(&self) -> Fingerprint {
        let mut clean = self.node.fingerprint().unwrap();
        for (pod, apps) in &self.forgotten {
            clean = clean.unplugged(pod);
            let ids: Vec<&str> = apps
                .iter()
                .map(|app| app.id.as_str())
                .chain([pod.id.as_str()])
                .collect();
            clean.files.retain(|path, content| {
                let named = |id: &&str| content.contains(*id) || path.to_string_lossy().contains(*id);
                !ids.iter().any(named)
            });
            let shims = self.node.shims(pod);
            let gone = |pid: &u32| {
                *pid == pod.pause || shims.contains(pid) || apps.iter().any(|app| app.pid == *pid)
            };
            clean.processes.retain(|pid| !gone(pid));
        }
        clean
    }
}

/// An interrupted run may have ended all that names a pod. Then its empty cgroup is left to kubelet, which removes those of
/// pods that it does not know.
fn but_the_pods_cgroup(mut remains: Vec<String>) -> Vec<String> {
    remains.retain(|one| !one.starts_with(POD_CGROUP));
    remains
}

const REAP: &str = "mend-sandboxes --reap --apply --yes --yes";

/// What became of a sandbox: the state, and what was said of it.
fn outcome(report: &Report, pod: &Sandbox) -> (String, String) {
    let item = report
        .items
        .iter()
        .find(|item| item.subject["id"] == pod.id.as_str())
        .unwrap();
    let said = item
        .outcome
        .as_ref()
        .and_then(|outcome| outcome["detail"].as_str());
    (item.outcome().to_owned(), said.unwrap_or_default().to_owned())
}

#[test]
fn forgotten_sandboxes_are_ended_and_nothing_of_them_is_left() {
    let scene = Incident::new(3, 2);
    let node = &scene.node;
    let second = node.second_runtime().unwrap();
    node.foreign_links().unwrap();
    let watch = node.watch(&scene.live[0], scene.live[1].ips[0]).unwrap();
    let clean = scene.without_the_forgotten();
    for (pod, apps) in &scene.forgotten {
        let remains = node.remains(pod, apps).join("\n");
        for kind in ["process", "mount", "netns", "link", "cgroup", "reservation"] {
            assert!(remains.contains(kind), "it has a {kind} before: {remains}");
        }
    }

    let ran = node.mend(REAP).unwrap();
    let report = ran.ended(0).unwrap();
    assert!(report.changed, "{ran}");
    let mended = report.items.iter().filter(|item| item.outcome() == "mended");
    assert_eq!(mended.count(), 3, "{ran}");
    assert_eq!(scene.remains(), [] as [String; 0], "{ran}");
    node.unchanged(&clean).unwrap();
    for pid in second.processes {
        assert!(node.is_alive(pid), "the second containerd's process {pid} lives");
    }
    assert!(watch.finish().unwrap().nothing_lost());

    let again = node.mend(REAP).unwrap().ended(0).unwrap();
    assert!(!again.changed, "a second run has nothing to do");
}

#[test]
fn a_stubborn_application_is_killed_and_a_willing_one_ends_by_itself() {
    let scene = Incident::new(2, 1);
    let ran = scene.node.mend(REAP).unwrap();
    let report = ran.ended(0).unwrap();
    let of = |n: usize| outcome(&report, &scene.forgotten[n].0).1;
    // Pause is killed in either.
    assert!(
        of(0).contains("1 process ended when asked, 1 process was killed"),
        "{}",
        of(0)
    );
    assert!(of(1).contains("2 processes were killed"), "{}", of(1));
    assert_eq!(scene.remains(), [] as [String; 0]);
}

#[test]
fn what_runs_is_left_alone_without_reap() {
    let scene = Incident::new(1, 1);
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    let ran = node.mend("mend-sandboxes --apply --yes").unwrap();
    assert!(!ran.ended(0).unwrap().changed, "{ran}");
    node.unchanged(&before).unwrap();
}

#[test]
fn a_busy_mount_stops_its_own_sandbox_only_and_its_holder_is_named() {
    let scene = Incident::new(2, 1);
    let node = &scene.node;
    let (busy, apps) = &scene.forgotten[0];
    let rootfs = format!(
        "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/rootfs",
        busy.id
    );
    let holder = node
        .spawn(&["sh", "-c", &format!("cd {rootfs} && exec sleep 1000")])
        .unwrap();
    soon("a process in the root file system", || {
        node.process(holder)
            .is_some_and(|process| process.argv.first().is_some_and(|name| name == "sleep"))
    })
    .unwrap();

    let ran = node.mend(REAP).unwrap();
    let report = ran.ended(4).unwrap();
    let (state, said) = outcome(&report, busy);
    assert_eq!(state, "failed", "{said}");
    assert!(
        said.contains(&format!("process {holder} (sleep) by its cwd")),
        "{said}"
    );
    assert_eq!(outcome(&report, &scene.forgotten[1].0).0, "mended", "{ran}");
    let (other, of_other) = &scene.forgotten[1];
    assert_eq!(node.remains(other, of_other), [] as [String; 0]);
    assert!(node.is_alive(holder), "who holds it is not ended");

    node.kill(&[holder]).unwrap();
    let again = node.mend(REAP).unwrap();
    again.ended(0).unwrap();
    assert_eq!(
        but_the_pods_cgroup(node.remains(busy, apps)),
        [] as [String; 0],
        "{again}"
    );
}

/// The state of a process that no signal reaches: `D`.
#[test]
fn a_process_that_does_not_die_is_named_and_the_rest_of_its_sandbox_stays() {
    let scene = Incident::new(2, 1);
    let node = &scene.node;
    let (frozen, apps) = &scene.forgotten[0];
    let Some(freezer) = freezer(node, &apps[0]) else {
        // Only cgroup v1 freezes so that SIGKILL waits; v2 lets it through.
        node.shell(&format!("echo 1 > {}/cgroup.freeze", unified(node, &apps[0])))
            .unwrap();
        node.mend(REAP).unwrap().ended(0).unwrap();
        assert_eq!(scene.remains(), [] as [String; 0]);
        return;
    };
    node.shell(&format!("echo FROZEN > {freezer}")).unwrap();

    let ran = node.mend(REAP).unwrap();
    let report = ran.ended(4).unwrap();
    let (state, said) = outcome(&report, frozen);
    assert_eq!(state, "failed", "{said}");
    let named = format!("killed, but not ended: process {} ", apps[0].pid);
    assert!(said.contains(&named) && said.contains("state D"), "{said}");
    assert_eq!(outcome(&report, &scene.forgotten[1].0).0, "mended", "{ran}");
    let remains = node.remains(frozen, apps).join("\n");
    for kind in [
        "process",
        "mount",
        "netns",
        "cgroup",
        "io.containerd.runtime.v2.task",
    ] {
        assert!(remains.contains(kind), "its {kind} stays: {remains}");
    }

    node.shell(&format!("echo THAWED > {freezer}")).unwrap();
    soon("the end of the thawed process", || !node.is_alive(apps[0].pid)).unwrap();
    node.mend(REAP).unwrap().ended(0).unwrap();
    assert_eq!(but_the_pods_cgroup(scene.remains()), [] as [String; 0]);
}

fn freezer(node: &Node, app: &Application) -> Option<String> {
    let path = cgroup_of(node, app, "freezer");
    path.map(|path| format!("/sys/fs/cgroup/freezer{path}/freezer.state"))
}

fn unified(node: &Node, app: &Application) -> String {
    format!("/sys/fs/cgroup{}", cgroup_of(node, app, "").unwrap())
}

/// The path of its cgroup in the hierarchy of a controller.
fn cgroup_of(node: &Node, app: &Application, controller: &str) -> Option<String> {
    let all = node.read(format!("/proc/{}/cgroup", app.pid)).unwrap();
    let mut lines = all
        .lines()
        .map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>());
    let own = lines.find(|line| line[0] == controller)?;
    Some(own[1].to_owned())
}

#[test]
fn a_failed_del_keeps_the_addresses_and_says_so() {
    let scene = Incident::new(1, 1);
    let node = &scene.node;
    node.fail_del("the plugin has its reasons").unwrap();
    let ran = node.mend(REAP).unwrap();
    let report = ran.ended(0).unwrap();
    node.mend_del();
    let (pod, apps) = &scene.forgotten[0];
    let said = outcome(&report, pod).1;
    assert!(
        said.contains("the plugin has its reasons") && said.contains("mend-ipam"),
        "{said}"
    );
    let left = node.remains(pod, apps);
    assert!(
        !left.is_empty()
            && left
                .iter()
                .all(|one| one.starts_with("reservation") || one.starts_with("/var/lib/cni")),
        "{left:?}"
    );
    node.mend("mend-ipam --apply --yes").unwrap().ended(0).unwrap();
    assert_eq!(node.remains(pod, apps), [] as [String; 0]);
}

/// A containerd that starts without records removes bundles by itself: 1.4 all of them, 2.1 those of applications.
#[test]
fn what_runc_keeps_goes_where_the_bundles_are_gone() {
    let node = Node::start(Options::on(Engine::Containerd)).unwrap();
    let pods = node.run_sandboxes(2).unwrap();
    let apps: Vec<_> = (8080..)
        .zip(&pods)
        .map(|(port, pod)| [node.run_application(pod, port, false).unwrap()])
        .collect();
    node.kill_runtime().unwrap();
    let mut dead = node.shims(&pods[0]);
    node.kill(&dead).unwrap();
    dead = vec![pods[0].pause, apps[0][0].pid];
    node.kill(&dead).unwrap();
    let ids = |n: usize| [pods[n].id.clone(), apps[n][0].id.clone()];
    for id in ids(0).iter().chain(&ids(1)) {
        let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}");
        node.exec(&["umount", "--lazy", &format!("{bundle}/rootfs")])
            .unwrap();
        node.exec(&["rm", "-r", &bundle]).unwrap();
    }
    node.wipe_metadata().unwrap();
    let live = node.run_sandbox("live").unwrap();
    let state = |id: &str| format!("/run/containerd/runc/k8s.io/{id}/state.json");
    let kept = node.read(state(&live.id)).unwrap();

    let report = node.mend("mend-sandboxes --reap").unwrap().ended(0).unwrap();
    assert_eq!(report.items.len(), 3, "one object for each: {report:#?}");
    for (n, pod) in pods.iter().enumerate() {
        let found = report.item(&pod.id).unwrap();
        assert_eq!(found.verdict, "orphan", "{:#?}", found.evidence);
        assert_eq!(found.subject["bundles"].as_array().unwrap().len(), 0);
        assert_eq!(found.subject["runcStates"].as_array().unwrap().len(), 2);
        assert_eq!(found.subject["pod"]["name"], format!("pod-{n}"));
        assert_eq!(
            found.subject["containers"][1]["name"],
            format!("app-{}", apps[n][0].port)
        );
    }
    let left = node.mend("mend-sandboxes --apply --yes").unwrap();
    left.ended(0).unwrap();
    assert_eq!(
        but_the_pods_cgroup(node.remains(&pods[0], &apps[0])),
        [] as [String; 0],
        "{left}"
    );
    for id in ids(1) {
        assert!(node.path(state(&id)).exists(), "what runs keeps its state");
    }
    let reaped = node.mend(REAP).unwrap();
    reaped.ended(0).unwrap();
    assert_eq!(node.remains(&pods[1], &apps[1]), [] as [String; 0], "{reaped}");
    assert_eq!(node.read(state(&live.id)).unwrap(), kept);
}

/// Kills a run when it enters its `nth` call of this kind; whether it made that many.
fn killed_at(node: &Node, call: &str, nth: u32) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let tool = "mend-sandboxes --reap --apply --yes --yes --grace 0s --settle 0s --output json";
    let line = format!("strace --follow-forks --quiet=all --output=/dev/null -e {inject} {tool}");
    let argv: Vec<&str> = line.split_whitespace().collect();
    let ran = node.ran(&argv).unwrap();
    assert!(ran.code == 137 || ran.code == 0, "{ran}");
    ran.code == 137
}

#[test]
fn killed_at_any_step_a_run_is_finished_by_the_next() {
    nodemend_lab::tools::find("strace").expect("this test needs strace (package strace)");
    // The journal is synced before each step: the DELs, the signals, the tasks, the shims, and so on.
    for nth in [1, 2, 3, 4, 6, 8, 10, 13] {
        let scene = Incident::new(2, 1);
        let clean = scene.without_the_forgotten();
        let killed = killed_at(&scene.node, "fdatasync", nth);
        assert!(killed || nth > 8, "it makes no {nth} steps");
        soon(
            &format!("the end of what is left after a kill at step {nth}"),
            || {
                scene.node.mend(REAP).unwrap().exited(0).is_ok()
                    && but_the_pods_cgroup(scene.remains()).is_empty()
            },
        )
        .unwrap_or_else(|error| panic!("{error}: {:#?}", scene.remains()));
        let changes = clean.changes(&scene.node.fingerprint().unwrap());
        assert!(
            changes.is_empty(),
            "killed at step {nth}:\n{}",
            changes.join("\n")
        );
    }
}
