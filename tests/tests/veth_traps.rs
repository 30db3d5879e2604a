//! Veth pairs that look like leftovers, and the ones that do not: each trap of the field notes that a pair can be, by its number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::path::Path;

use nodemend_lab::tool::{Item, Report, Scene, Terminal, not_ready, outside, soon};
use nodemend_lab::{Crowd, Engine, Hold, Node, Options, Sandbox};
use serde_json::Value;

/// Mends what may be mended; the report.
fn apply(node: &Node) -> Report {
    node.mend("mend-veth --apply --yes").unwrap().ended(0).unwrap()
}

/// Mends, and proves that the dead of the scene went and nothing else.
fn only_the_dead_go(scene: &Scene) -> Report {
    let before = scene.node.fingerprint().unwrap();
    let report = apply(&scene.node);
    assert_eq!(report.with("orphan"), scene.dead_veths());
    let expected = scene.dead.iter().fold(before, |node, pod| node.unplugged(pod));
    scene.node.unchanged(&expected).unwrap();
    report
}

fn item(report: &Report, name: impl ToString) -> Item {
    let name = name.to_string();
    let found = report.item(&name);
    assert!(found.is_some(), "{name} is not in {report:?}");
    found.unwrap().clone()
}

#[test]
fn t01_a_sandbox_in_the_making_keeps_its_pair() {
    let scene = Scene::new(1, 1).unwrap();
    let known = scene.node.veths().unwrap();
    let flight = scene.node.in_flight_add("late").unwrap();
    let new: Vec<String> = scene.node.veths().unwrap();
    let new = new.iter().find(|name| !known.contains(name)).unwrap();
    let report = only_the_dead_go(&scene);
    let late = item(&report, new);
    assert_eq!(late.verdict, "live");
    assert!(late.is_known_to("CNI plugins at work"), "{late:?}");
    let pod = flight.finish().unwrap();
    assert!(scene.node.pings(pod.ips[0]));
}

#[test]
fn t02_a_plugin_at_work_is_enough_to_keep_a_pair() {
    let scene = Scene::new(1, 1).unwrap();
    let node = &scene.node;
    let netns = node.make_pair("veth0000a001", "", "cni-in-the-making").unwrap();
    let id = nodemend_lab::random_id().unwrap();
    let plugin = [
        "env",
        "CNI_COMMAND=ADD",
        &format!("CNI_CONTAINERID={id}"),
        &format!("CNI_NETNS={}", netns.display()),
        "CNI_IFNAME=eth0",
        "CNI_PATH=/opt/cni/bin",
        "sleep",
        "infinity",
    ];
    let plugin = node.spawn(&plugin).unwrap();
    let report = only_the_dead_go(&scene);
    let working = item(&report, "veth0000a001");
    assert_eq!(working.verdict, "live");
    assert!(working.is_known_to("CNI plugins at work"), "{working:?}");
    node.kill(&[plugin]).unwrap();
    assert_eq!(
        apply(node).count("orphan"),
        1,
        "when it has ended, nobody speaks for the pair"
    );
}

#[test]
fn t04_a_sandbox_that_is_not_ready_keeps_its_network() {
    let scene = Scene::new(2, 1).unwrap();
    let node = &scene.node;
    not_ready(node, &scene.live[0]).unwrap();
    let report = only_the_dead_go(&scene);
    let kept = item(&report, &scene.live[0].host_veth);
    assert_eq!(kept.verdict, "live");
    assert!(kept.is_known_to("cri "), "{kept:?}");
    assert!(!kept.is_known_to("processes"));
}

#[test]
fn t06_a_sandbox_that_the_cri_failed_to_load_keeps_its_network() {
    let scene = Scene::on(Options::on(Engine::Containerd), 2, 1).unwrap();
    let node = &scene.node;
    let lost = &scene.live[0];
    // The CRI finds its sandboxes by this label when it starts.
    let ctr = ["ctr", "--namespace", "k8s.io", "containers", "label"];
    node.exec(&[ctr.as_slice(), &[&lost.id, "io.cri-containerd.kind=lost"]].concat())
        .unwrap();
    node.restart_runtime().unwrap();
    assert!(
        !node
            .list_sandboxes()
            .unwrap()
            .iter()
            .any(|(id, _)| *id == lost.id)
    );
    let report = only_the_dead_go(&scene);
    let kept = item(&report, &lost.host_veth);
    assert_eq!(kept.verdict, "live");
    assert!(
        kept.is_known_to("containerd ") && !kept.is_known_to("cri "),
        "{kept:?}"
    );
}

#[test]
fn t07_pods_that_run_on_after_a_wipe_are_alive_and_the_reader_is_told_what_ends_them() {
    let node = Node::start(Options::default()).unwrap();
    let forgotten = node.run_sandboxes(2).unwrap();
    node.wipe_metadata().unwrap();
    node.run_sandbox("live").unwrap();
    let before = node.fingerprint().unwrap();
    let report = apply(&node);
    assert!(!report.changed);
    assert_eq!(report.count("live"), 3);
    for pod in &forgotten {
        let kept = item(&report, &pod.host_veth);
        let said = kept.said_by("processes").unwrap();
        assert_eq!(said.claim, "inUse");
        assert!(
            said.detail.contains(&format!("process {} (pause)", pod.pause)),
            "{said:?}"
        );
        assert!(said.detail.contains("mend-sandboxes"), "{said:?}");
        assert_eq!(kept.said_by("cri ").unwrap().claim, "absent", "the CRI lost it");
    }
    node.unchanged(&before).unwrap();
}

#[test]
fn t07_cut_running_takes_the_network_of_forgotten_pods_after_two_yeses() {
    let node = Node::start(Options::default()).unwrap();
    let forgotten = node.run_sandboxes(2).unwrap();
    node.wipe_metadata().unwrap();
    let live = node.run_sandboxes(2).unwrap();
    let watch = node.watch(&live[0], live[1].ips[0]).unwrap();
    let mut expected = node.fingerprint().unwrap();
    let once = node.mend("mend-veth --cut-running --apply --yes").unwrap();
    once.exited(2).unwrap();
    assert!(once.stderr.contains("--yes twice"), "{once}");
    node.unchanged(&expected).unwrap();

    let done = node
        .mend("mend-veth --cut-running --apply --yes --yes")
        .unwrap()
        .ended(0)
        .unwrap();
    for pod in &forgotten {
        let cut = item(&done, &pod.host_veth);
        assert_eq!(
            (cut.verdict.as_str(), cut.outcome()),
            ("orphan", "mended"),
            "{cut:?}"
        );
        assert!(
            node.is_alive(pod.pause),
            "the process runs on, without its network"
        );
        expected.links.remove(&pod.host_veth);
    }
    node.unchanged(&expected).unwrap();
    assert_eq!(done.count("live"), 2);
    assert!(watch.finish().unwrap().nothing_lost());
}

#[test]
fn t21_pairs_whose_ends_have_the_same_index_are_told_apart() {
    let scene = Scene::new(2, 2).unwrap();
    let peers: Vec<Option<u32>> = scene
        .node
        .links()
        .unwrap()
        .iter()
        .map(|link| link.link_index)
        .collect();
    assert_eq!(
        peers.iter().filter(|peer| **peer == Some(2)).count(),
        4,
        "all are `@if2`"
    );
    only_the_dead_go(&scene);
}

/// On a terminal the plan is shown, and waits for an answer.
fn planned(node: &Node) -> Terminal {
    let terminal = node
        .on_terminal("mend-veth --apply --grace 0s --settle 0s")
        .unwrap();
    terminal.wait_for("[y/N]").unwrap();
    assert!(
        terminal.screen().contains("ORPHAN"),
        "the plan comes before the question"
    );
    terminal
}

/// Another pair in place of one that was planned to go, with a namespace of its own.
fn replaced(node: &Node, gone: &Sandbox, name: &str, index: &str) {
    node.drop_netns_file(&gone.netns).unwrap();
    soon("the planned pair has gone", || {
        !node.veths().unwrap().contains(&gone.host_veth)
    })
    .unwrap();
    node.make_pair(name, index, "replaced").unwrap();
}

#[test]
fn a_person_at_a_terminal_is_asked_and_may_say_no() {
    let scene = Scene::new(1, 1).unwrap();
    let before = scene.node.fingerprint().unwrap();
    planned(&scene.node).answer("n").unwrap().exited(0).unwrap();
    scene.node.unchanged(&before).unwrap();
    planned(&scene.node).answer("y").unwrap().exited(0).unwrap();
    scene.node.unchanged(&before.unplugged(&scene.dead[0])).unwrap();
}

#[test]
fn t22_t23_a_link_that_got_the_index_of_a_planned_one_is_left_alone() {
    let scene = Scene::new(1, 2).unwrap();
    let (node, gone) = (&scene.node, &scene.dead[0]);
    let index = node
        .links()
        .unwrap()
        .into_iter()
        .find(|link| link.ifname == gone.host_veth);
    let index = index.unwrap().ifindex.to_string();
    let quiet = node.fingerprint().unwrap().processes;
    let terminal = planned(node);
    replaced(node, gone, "vethdeadbeef", &format!("index {index}"));
    let mut expected = node.fingerprint().unwrap().unplugged(&scene.dead[1]);
    expected.processes = quiet;
    let ran = terminal.answer("y").unwrap();
    ran.exited(4).unwrap();
    assert!(ran.stdout.contains("it is not the same object any more"), "{ran}");
    node.unchanged(&expected).unwrap();
}

#[test]
fn t24_a_link_that_got_the_name_of_a_planned_one_is_left_alone() {
    let scene = Scene::new(1, 2).unwrap();
    let (node, gone) = (&scene.node, &scene.dead[0]);
    let quiet = node.fingerprint().unwrap().processes;
    let terminal = planned(node);
    replaced(node, gone, &gone.host_veth, "");
    let mut expected = node.fingerprint().unwrap().unplugged(&scene.dead[1]);
    expected.processes = quiet;
    let ran = terminal.answer("y").unwrap();
    ran.exited(0).unwrap();
    assert!(ran.stdout.contains("it was gone already"), "{ran}");
    node.unchanged(&expected).unwrap();
}

#[test]
fn t24_a_pair_that_changed_between_the_two_looks_is_left_open() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    let looks = "/run/lab/looks.json";
    let here = node.mend(&format!("mend-veth --record {looks}")).unwrap();
    assert_eq!(here.ended(0).unwrap().with("orphan"), scene.dead_veths());
    let changed = &scene.dead_veths()[0];
    for (key, value) in [
        ("mac", Value::from("02:00:00:00:00:01")),
        ("name", "vethdeadbeef".into()),
        ("ifindex", 4711.into()),
    ] {
        let mut recording: Value = serde_json::from_str(&node.read(looks).unwrap()).unwrap();
        assert_eq!(
            change_link(&mut recording["second"]["views"], changed, key, &value),
            1
        );
        node.write("/run/lab/changed.json", &recording.to_string())
            .unwrap();
        let file = node.path("/run/lab/changed.json").display().to_string();
        let report = outside(&format!("mend-veth --replay {file} --grace 0s --output json")).unwrap();
        let report = report.ended(0).unwrap();
        let name = if key == "name" { "vethdeadbeef" } else { changed };
        assert_eq!(item(&report, name).verdict, "undecided", "another {key}");
        assert_eq!(report.count("orphan"), 1, "the other one is what it was");
    }
}

/// Changes one thing of the link of that name, wherever it is; how often.
fn change_link(value: &mut Value, name: &str, key: &str, to: &Value) -> usize {
    match value {
        Value::Object(map) => {
            let is_it = map.get("name").and_then(Value::as_str) == Some(name) && map.contains_key("ifindex");
            if is_it {
                map.insert(key.to_owned(), to.clone());
                return 1;
            }
            map.values_mut()
                .map(|inner| change_link(inner, name, key, to))
                .sum()
        }
        Value::Array(all) => all
            .iter_mut()
            .map(|inner| change_link(inner, name, key, to))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[test]
fn t42_a_namespace_that_came_to_life_after_the_plan_is_left_alone() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    let mut expected = node.fingerprint().unwrap().unplugged(&scene.dead[1]);
    let terminal = planned(node);
    let pid = node
        .spawn_in_netns(&scene.dead[0].netns, &["sleep", "infinity"])
        .unwrap();
    expected.processes.insert(pid);
    let ran = terminal.answer("y").unwrap();
    ran.exited(4).unwrap();
    assert!(
        ran.stdout
            .contains(&format!("process {pid} (sleep) lives in this netns")),
        "{ran}"
    );
    node.unchanged(&expected).unwrap();
}

/// Two dead, of which the first is held in a hidden way.
fn held(way: Hold) -> (Scene, Sandbox, u32) {
    let mut scene = Scene::new(1, 2).unwrap();
    let hidden = scene.dead.remove(0);
    let holder = scene.node.held_only_by(&hidden.netns, way).unwrap();
    (scene, hidden, holder)
}

/// It stays while it is held, and the reader is told by whom; when the holder ends, the kernel removes it.
fn stays_while_held(way: Hold, verdict: &str, source: &str, words: &str) {
    let (scene, hidden, holder) = held(way);
    let report = only_the_dead_go(&scene);
    let kept = item(&report, &hidden.host_veth);
    assert_eq!(kept.verdict, verdict, "{kept:?}");
    let said = kept.said_by(source).unwrap();
    let words = words.replace("PID", &holder.to_string());
    assert!(said.detail.contains(&words), "{said:?}");
    let detailed = scene.node.mend("mend-veth --detailed-exitcode").unwrap();
    detailed
        .ended(if verdict == "undecided" { 5 } else { 0 })
        .unwrap();
    scene.node.kill(&[holder]).unwrap();
    soon("the pair goes with its holder", || {
        !scene.node.veths().unwrap().contains(&hidden.host_veth)
    })
    .unwrap();
}

#[test]
fn t25_a_namespace_that_only_a_thread_is_in_is_in_use() {
    stays_while_held(Hold::Thread, "live", "processes", "of process PID");
}

#[test]
fn t26_a_namespace_that_is_only_an_open_file_is_in_use() {
    stays_while_held(Hold::Fd, "live", "open files", "process PID (nodemend-lab)");
}

#[test]
fn t27_a_namespace_that_only_a_socket_keeps_leaves_its_pair_open() {
    stays_while_held(
        Hold::Socket,
        "undecided",
        "namespace id",
        "which no process, thread, mount or open file accounts for",
    );
}

#[test]
fn t28_a_namespace_that_is_mounted_for_one_process_only_is_in_use() {
    stays_while_held(
        Hold::Mount,
        "live",
        "mounts elsewhere",
        "in the mount namespace of process PID only",
    );
}

#[test]
fn t29_namespaces_below_the_state_directory_are_judged_like_all_others() {
    let node = Node::start(Options::on(Engine::Containerd)).unwrap();
    let config = node.read("/etc/containerd/config.toml").unwrap();
    let section = "[plugins.\"io.containerd.grpc.v1.cri\"]\n";
    let config = config.replace(
        section,
        &format!("{section}  netns_mounts_under_state_dir = true\n"),
    );
    node.write("/etc/containerd/config.toml", &config).unwrap();
    node.restart_runtime().unwrap();
    let dead = node.run_sandboxes(2).unwrap();
    let state = Path::new("/run/containerd/io.containerd.grpc.v1.cri/netns");
    assert!(
        dead.iter().all(|pod| pod.netns.starts_with(state)),
        "{}",
        dead[0].netns.display()
    );
    node.wipe_metadata().unwrap();
    let live = node.run_sandboxes(2).unwrap();
    node.end_processes(&dead).unwrap();
    // The one that is not ready has nothing but its record and its mount.
    not_ready(&node, &live[0]).unwrap();
    let scene = Scene { node, live, dead };
    let report = only_the_dead_go(&scene);
    assert_eq!(report.with("live"), scene.live_veths());
    assert_eq!(scene.node.names(state).len(), 2);
}

#[test]
fn mounts_that_an_operator_s_ip_netns_add_has_hidden_go_as_well() {
    let scene = Scene::new(2, 2).unwrap();
    // The first one of a boot binds /run/netns onto itself: what was mounted there is there twice, once out of sight.
    scene.node.exec(&["ip", "netns", "add", "probe"]).unwrap();
    let twice = scene.node.read("/proc/1/mountinfo").unwrap();
    let name = scene.dead[0].netns.file_name().unwrap().to_string_lossy();
    assert_eq!(
        twice.lines().filter(|line| line.contains(name.as_ref())).count(),
        2
    );
    only_the_dead_go(&scene);
    let table = scene.node.read("/proc/1/mountinfo").unwrap();
    assert!(!table.contains(name.as_ref()), "no copy of the mount is left");
}

#[test]
fn t30_a_namespace_with_the_name_that_cri_o_gives_is_judged_like_all_others() {
    let scene = Scene::new(1, 1).unwrap();
    let node = &scene.node;
    let ids = [
        "b9a1c0de-0a5e-4c6b-8f0e-7d2f5a4b1c01",
        "b9a1c0de-0a5e-4c6b-8f0e-7d2f5a4b1c02",
    ];
    for (id, veth) in ids.iter().zip(["veth0000a001", "veth0000a002"]) {
        node.make_pair(veth, "", id).unwrap();
    }
    let used = Path::new("/run/netns").join(ids[0]);
    node.spawn_in_netns(&used, &["sleep", "infinity"]).unwrap();
    let mut expected = node.fingerprint().unwrap().unplugged(&scene.dead[0]);
    let report = apply(node);
    assert_eq!(item(&report, "veth0000a001").verdict, "live");
    assert_eq!(item(&report, "veth0000a002").outcome(), "mended");
    expected.links.remove("veth0000a002");
    expected.netns.remove(&Path::new("/run/netns").join(ids[1]));
    node.unchanged(&expected).unwrap();
}

#[test]
fn t31_t32_t33_links_of_others_are_reported_and_never_touched() {
    let scene = Scene::new(1, 1).unwrap();
    let node = &scene.node;
    node.foreign_links().unwrap();
    node.shell(
        "touch /run/netns/other
         unshare --net=/run/netns/other true
         # A docker pair that somebody moved to the pods' bridge.
         ip link add veth89abcde type veth peer name eth1 netns other
         ip link set veth89abcde master cni0 up
         # LXC, systemd-nspawn, cilium; a pair of a CNI plugin on a bridge that is not this node's.
         ip link add lxcbr0 type bridge
         ip link add vethQ5XJ2K type veth peer name eth2 netns other
         ip link set vethQ5XJ2K master lxcbr0 up
         ip link add ve-web type veth peer name host0 netns other
         ip link add cilium_host type veth peer name cilium_net
         ip link add veth0123abcd type veth peer name eth3 netns other
         ip link set veth0123abcd master lxcbr0 up
         # One that a plugin made and an operator gave a name to.
         ip link add veth4567abcd type veth peer name eth4 netns other
         ip link set veth4567abcd alias mine master cni0 up",
    )
    .unwrap();
    let report = only_the_dead_go(&scene);
    for (name, words) in [
        ("veth1234567", "its name is not of the form"),
        ("veth-probe", "its name is not of the form"),
        ("veth89abcde", "its name is not of the form"),
        ("vethQ5XJ2K", "its name is not of the form"),
        ("ve-web", "its name is not of the form"),
        ("cilium_host", "its name is not of the form"),
        (
            "veth0badcafe",
            "both of its ends are in the host's network namespace",
        ),
        ("veth0123abcd", "its bridge is none of this node's"),
        ("veth4567abcd", "gave it an alias"),
    ] {
        let foreign = item(&report, name);
        assert_eq!(foreign.verdict, "foreign");
        assert!(foreign.because().contains(words), "{foreign:?}");
    }
    for name in ["docker0", "vm-port", "cni0", "lo"] {
        assert!(report.item(name).is_none(), "{name} is no veth pair");
    }
}

#[test]
fn t34_in_a_container_with_its_own_proc_nothing_is_proven() {
    let scene = Scene::new(1, 2).unwrap();
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    // Pid 1 is its own: only who answers on the runtime's socket gives it away.
    let enter = "unshare --pid --fork --mount-proc";
    let line = format!("{enter} mend-veth --grace 0s --settle 0s --output json");
    let argv: Vec<&str> = line.split_whitespace().collect();
    let report = node.ran(&argv).unwrap().ended(0).unwrap();
    assert_eq!(report.count("orphan"), 0);
    let ran = node
        .ran(&[argv.as_slice(), &["--apply", "--yes"]].concat())
        .unwrap();
    let refused = ran.ended(4).unwrap().refused.unwrap();
    assert!(refused.contains("outside of this pid namespace"), "{refused}");
    node.unchanged(&before).unwrap();
}

#[test]
fn t35_a_sandbox_that_is_only_in_the_records_keeps_its_network() {
    let scene = Scene::new(2, 1).unwrap();
    scene.node.end_processes(&scene.live[..1]).unwrap();
    let report = only_the_dead_go(&scene);
    let kept = item(&report, &scene.live[0].host_veth);
    assert_eq!(kept.verdict, "live");
    assert!(
        kept.is_known_to("cri ") && !kept.is_known_to("processes"),
        "{kept:?}"
    );
}

#[test]
fn t36_a_pod_on_the_host_s_network_is_in_nobody_s_way() {
    let scene = Scene::on(Options::on(Engine::Containerd), 1, 2).unwrap();
    let id = scene.node.run_on_host_network("host").unwrap();
    only_the_dead_go(&scene);
    assert!(scene.node.list_sandboxes().unwrap().contains(&(id, true)));
}

#[test]
fn t45_hundreds_of_pairs_go_in_one_run() {
    let scene = Scene::new(2, 0).unwrap();
    let node = &scene.node;
    let before = node.fingerprint().unwrap();
    let crowd = Crowd {
        count: 500,
        processes: false,
    };
    node.crowd(crowd).unwrap();
    let watch = node.watch(&scene.live[0], scene.live[1].ips[0]).unwrap();
    let report = apply(node);
    assert_eq!((report.count("orphan"), report.count("live")), (500, 2));
    assert!(watch.finish().unwrap().nothing_lost());
    node.unchanged(&before).unwrap();
}

#[test]
fn t47_asking_a_runtime_takes_nothing_away() {
    let scene = Scene::new(2, 1).unwrap();
    let node = &scene.node;
    // PodSandboxStatus of containerd removes a path that is no namespace any more.
    node.end_processes(&scene.live[..1]).unwrap();
    let path = scene.live[0].netns.to_string_lossy().into_owned();
    node.exec(&["umount", "--lazy", &path]).unwrap();
    soon("the pair goes with its namespace", || {
        !node.veths().unwrap().contains(&scene.live[0].host_veth)
    })
    .unwrap();
    only_the_dead_go(&scene);
    assert!(node.path(&scene.live[0].netns).exists());
}
