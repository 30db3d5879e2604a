//! The lab itself: a node works, and each breakage leaves what it says.
//!
//! Nothing is skipped here: on a machine that lacks something, the test fails and says what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nodemend_lab::{CNI_CACHE, Crowd, Engine, Hold, Node, Options, Reservation, Sandbox, random_id};

/// `NODEMEND_LAB_ENGINE=stand-in` runs all of this on the second engine, as an ordinary user always does.
fn options() -> Options {
    let asked = std::env::var("NODEMEND_LAB_ENGINE").unwrap_or_default();
    let known = [Engine::Containerd, Engine::StandIn]
        .into_iter()
        .find(|engine| engine.name() == asked);
    Options::on(known.unwrap_or_else(Engine::best))
}

fn node_with(pods: usize) -> (Node, Vec<Sandbox>) {
    let node = Node::start(options()).unwrap();
    let pods = node.run_sandboxes(pods).unwrap();
    (node, pods)
}

fn soon(what: &str, mut test: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !test() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn pods_answer_the_node_and_each_other() {
    let (node, pods) = node_with(3);
    println!(
        "{} with 3 pods after {:?}",
        node.options().engine.name(),
        node.age()
    );
    assert!(node.pings(pods[0].ips[0]));
    assert!(node.pings_from(&pods[1], pods[2].ips[0]));
    assert_eq!(node.list_sandboxes().unwrap().len(), 3);
    assert!(node.veths().unwrap().contains(&pods[0].host_veth));
    assert!(
        pods.iter()
            .all(|pod| node.is_alive(pod.pause) && node.shims(pod).len() == 1)
    );
    let reservation = node
        .read(node.reservations_of("cbr0").join(pods[0].ips[0].to_string()))
        .unwrap();
    assert_eq!(reservation, format!("{}\r\neth0", pods[0].id));
    if node.options().engine == Engine::Containerd {
        let cgroup = node.read(format!("/proc/{}/cgroup", pods[0].pause)).unwrap();
        assert!(
            cgroup.contains(&format!("pod{}/{}", pods[0].uid, pods[0].id)),
            "{cgroup}"
        );
    }
}

#[test]
fn a_ping_that_runs_sees_a_pod_unplugged() {
    let (node, pods) = node_with(2);
    let (quiet, hurt) = (
        node.watch(&pods[0], pods[1].ips[0]).unwrap(),
        node.watch(&pods[0], pods[1].ips[0]).unwrap(),
    );
    assert!(quiet.finish().unwrap().nothing_lost());
    node.exec(&["ip", "link", "set", &pods[1].host_veth, "down"])
        .unwrap();
    sleep(Duration::from_secs(1));
    assert!(!hurt.finish().unwrap().nothing_lost());
}

#[test]
fn a_removed_pod_leaves_nothing() {
    let (node, pods) = node_with(1);
    node.stop_sandbox(&pods[0].id).unwrap();
    node.remove_sandbox(&pods[0].id).unwrap();
    assert!(node.list_sandboxes().unwrap().is_empty());
    assert!(node.veths().unwrap().is_empty());
    assert!(node.reserved("cbr0").is_empty());
    assert!(node.names("/run/netns").is_empty());
}

#[test]
fn a_dual_stack_pod_has_two_addresses() {
    let node = Node::start(options().dual_stack()).unwrap();
    let pod = node.run_sandbox("both").unwrap();
    assert_eq!(pod.ips.len(), 2);
    assert_eq!(node.reserved("cbr0").len(), 2);
    assert!(pod.ips.iter().all(|ip| node.pings(*ip)), "{:?}", pod.ips);
}

#[test]
fn another_network_keeps_its_reservations_elsewhere() {
    let dir = PathBuf::from("/run/cni-ipam-state");
    let network = "kindnet".to_owned();
    let other = Options {
        network,
        data_dir: Some(dir.clone()),
        portmap: true,
        ip_masq: true,
        hook: false,
        ..options()
    };
    let node = Node::start(other).unwrap();
    let pod = node.run_sandbox("elsewhere").unwrap();
    assert!(node.names(dir.join("kindnet")).contains(&pod.ips[0].to_string()));
    assert!(node.veths().unwrap().contains(&pod.host_veth));
    assert!(
        node.exec(&["iptables-save", "-t", "nat"])
            .unwrap()
            .contains(&pod.id),
        "the chain names its pod"
    );
    assert!(node.in_flight_add("never").is_err());
    node.stop_sandbox(&pod.id).unwrap();
    assert!(node.reserved("kindnet").is_empty());
}

#[test]
fn a_machine_without_cni_plugins_has_the_same_node() {
    let own = Options {
        own_bridge: true,
        ..Options::on(Engine::StandIn).dual_stack()
    };
    let node = Node::start(own).unwrap();
    let pods = node.run_sandboxes(2).unwrap();
    assert!(
        pods[1].ips.len() == 2 && pods[1].ips.iter().all(|ip| node.pings_from(&pods[0], *ip)),
        "{pods:?}"
    );
    assert!(node.veths().unwrap().contains(&pods[0].host_veth));
    let reservation = node
        .read(node.reservations_of("cbr0").join(pods[0].ips[0].to_string()))
        .unwrap();
    assert_eq!(reservation, format!("{}\r\neth0", pods[0].id));
    node.fill_range().unwrap();
    assert!(
        node.run_sandbox("late")
            .unwrap_err()
            .to_string()
            .contains("no IP addresses available")
    );
    node.stop_sandbox(&pods[0].id).unwrap();
    assert_eq!(node.veths().unwrap(), [pods[1].host_veth.as_str()]);
    assert!(!node.reserved("cbr0").contains(&pods[0].ips[0]));
}

#[test]
fn a_wiped_runtime_knows_nothing_of_pods_that_run_on() {
    let (node, pods) = node_with(2);
    let aside = node.wipe_metadata().unwrap();
    assert!(node.path(aside).is_dir());
    assert!(node.list_sandboxes().unwrap().is_empty());
    assert!(pods.iter().all(|pod| node.is_alive(pod.pause)));
    assert!(node.pings(pods[1].ips[0]));
    let fresh = node.run_sandbox("fresh").unwrap();
    assert!(node.pings_from(&fresh, pods[0].ips[0]));
    node.end_processes(&pods).unwrap();
    assert_eq!(node.veths().unwrap().len(), 3, "the mounts hold the namespaces");
    node.drop_netns_file(&pods[0].netns).unwrap();
    soon("the pair goes with its namespace", || {
        node.veths().unwrap().len() == 2
    });
    assert_eq!(node.reserved("cbr0").len(), 3);
}

#[test]
fn a_namespace_lives_on_in_each_hidden_way() {
    let (node, pods) = node_with(Hold::ALL.len());
    node.wipe_metadata().unwrap();
    node.end_processes(&pods).unwrap();
    for ((name, way), pod) in Hold::ALL.into_iter().zip(&pods) {
        let holder = node.held_only_by(&pod.netns, way).unwrap();
        sleep(Duration::from_millis(200));
        assert!(node.veths().unwrap().contains(&pod.host_veth), "held by {name}");
        assert!(!node.path(&pod.netns).exists());
        node.kill(&[holder]).unwrap();
        soon(name, || !node.veths().unwrap().contains(&pod.host_veth));
    }
}

#[test]
fn a_del_that_fails_with_not_found_leaks_the_address() {
    let (node, pods) = node_with(2);
    node.leak_addresses(&pods[..1]).unwrap();
    assert_eq!(node.list_sandboxes().unwrap().len(), 1);
    assert_eq!(node.reserved("cbr0"), [pods[0].ips[0], pods[1].ips[0]]);
    assert!(
        node.names(CNI_CACHE)
            .iter()
            .any(|name| name.contains(&pods[0].id))
    );
}

#[test]
fn an_add_in_flight_is_in_no_list() {
    let (node, _) = node_with(1);
    let flight = node.in_flight_add("late").unwrap();
    assert_eq!(flight.id().len(), 64);
    assert_eq!(node.list_sandboxes().unwrap().len(), 1);
    assert_eq!(node.veths().unwrap().len(), 2);
    assert_eq!(node.reserved("cbr0").len(), 2);
    assert!(
        native_ids(&node).contains(&flight.id().to_owned()),
        "containerd's own list has it"
    );
    let pod = flight.finish().unwrap();
    assert!(node.pings(pod.ips[0]));
}

/// The sandboxes of containerd's own API.
fn native_ids(node: &Node) -> Vec<String> {
    use containerd_client::services::v1::ListContainersRequest;
    use containerd_client::tonic::Request;
    let socket = node.path(node.socket());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let answer = runtime.block_on(async {
        let client = containerd_client::Client::from_path(socket).await.unwrap();
        let request = containerd_client::with_namespace!(ListContainersRequest::default(), "k8s.io");
        client.containers().list(request).await.unwrap().into_inner()
    });
    let sandboxes = answer.containers.into_iter().filter(|one| {
        let extension = one.extensions.get("io.cri-containerd.sandbox.metadata");
        extension.is_some_and(|metadata| String::from_utf8_lossy(&metadata.value).contains("NetNSPath"))
    });
    sandboxes.map(|one| one.id).collect()
}

#[test]
fn the_incident_can_be_mended_by_hand() {
    let (node, pods) = node_with(3);
    node.wipe_metadata().unwrap();
    let live = node.run_sandbox("live").unwrap();
    node.end_processes(&pods).unwrap();
    let filled = node.fill_range().unwrap();
    assert!(node.run_sandbox("late").is_err());
    pods.iter()
        .for_each(|pod| node.drop_netns_file(&pod.netns).unwrap());
    for ip in filled.iter().chain(pods.iter().flat_map(|pod| &pod.ips)) {
        fs::remove_file(node.path(node.reservations_of("cbr0").join(ip.to_string()))).unwrap();
    }
    let late = node.run_sandbox("late").unwrap();
    assert!(node.pings_from(&late, live.ips[0]) && node.pings(late.ips[0]));
    soon("only the live pairs", || node.veths().unwrap().len() == 2);
}

#[test]
fn foreign_links_are_there_to_be_left_alone() {
    let (node, pods) = node_with(1);
    let foreign = node.foreign_links().unwrap();
    let names: Vec<String> = node
        .links()
        .unwrap()
        .into_iter()
        .map(|link| link.ifname)
        .collect();
    assert!(
        foreign.iter().all(|name| names.contains(&(*name).to_owned())),
        "{names:?}"
    );
    assert!(node.pings(pods[0].ips[0]));
}

#[test]
fn an_old_runtime_speaks_v1alpha2_only() {
    use k8s_cri::v1alpha2::{ListPodSandboxRequest, runtime_service_client::RuntimeServiceClient};
    let node = Node::start(Options::on(Engine::StandIn)).unwrap();
    node.run_sandbox("old").unwrap();
    node.only_v1alpha2().unwrap();
    let refused = node.list_sandboxes().unwrap_err().to_string();
    assert!(refused.contains("the stand-in has no runtime.v1"), "{refused}");
    let socket = node.path(node.socket());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listed = runtime.block_on(async {
        let mut client = RuntimeServiceClient::new(containerd_client::connect(socket).await.unwrap());
        client
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .unwrap()
            .into_inner()
    });
    assert_eq!(listed.items.len(), 1);
}

#[test]
fn a_sandbox_without_its_pause_is_not_ready_and_still_listed() {
    let (node, pods) = node_with(1);
    node.kill_pause(&pods[0]).unwrap();
    soon("NotReady", || {
        node.list_sandboxes().unwrap() == [(pods[0].id.clone(), false)]
    });
    assert_eq!(node.veths().unwrap().len(), 1);
}

#[test]
fn a_full_range_refuses_the_next_pod() {
    let (node, pods) = node_with(1);
    assert_eq!(node.fill_range().unwrap().len(), 124);
    let refused = node.run_sandbox("late").unwrap_err().to_string();
    assert!(refused.contains("no IP addresses available"), "{refused}");
    assert!(node.pings(pods[0].ips[0]));
}

#[test]
fn reservations_of_every_kind_are_written_as_they_are_found() {
    let (node, _) = node_with(0);
    let id = random_id().unwrap();
    for (name, what, content) in [
        ("10.88.0.9", Reservation::Empty, String::new()),
        ("10.88.0.10", Reservation::BeforeInterface(id.clone()), id.clone()),
        (
            "fd00:88::9",
            Reservation::Current(id.clone()),
            format!("{id}\r\neth0"),
        ),
        (
            "10.88.0.11",
            Reservation::Nerdctl(id.clone()),
            format!("default-{id}\r\neth0"),
        ),
        (
            "last_reserved_ip.0",
            Reservation::Text("10.88.0.11".to_owned()),
            "10.88.0.11".to_owned(),
        ),
    ] {
        let path = node.write_reservation("other", name, &what).unwrap();
        assert_eq!(node.read(path).unwrap(), content);
    }
    node.age_everything(Duration::from_secs(3600)).unwrap();
    let old = fs::metadata(node.path(node.reservations_of("other").join("10.88.0.9"))).unwrap();
    assert!(old.modified().unwrap().elapsed().unwrap() > Duration::from_secs(3500));
    assert_eq!(node.reserved("other").len(), 4);
}

#[test]
fn the_runtime_stops_hangs_and_moves() {
    let (node, pods) = node_with(1);
    node.restart_runtime().unwrap();
    assert_eq!(node.list_sandboxes().unwrap(), [(pods[0].id.clone(), true)]);
    node.move_socket("/run/elsewhere/runtime.sock").unwrap();
    assert_eq!(node.list_sandboxes().unwrap().len(), 1);
    node.hang_runtime().unwrap();
    let runtime = node.runtime_pid().unwrap();
    soon("a stopped process", || {
        node.read(format!("/proc/{runtime}/stat"))
            .unwrap()
            .contains(") T ")
    });
    node.resume_runtime().unwrap();
    node.stop_runtime().unwrap();
    assert!(node.runtime_pid().is_none() && node.is_alive(pods[0].pause));
    node.start_runtime().unwrap();
    assert_eq!(node.list_sandboxes().unwrap(), [(pods[0].id.clone(), true)]);
}

#[test]
fn a_crowd_of_namespaces_is_made_in_no_time() {
    let (node, _) = node_with(0);
    let begun = Instant::now();
    let files = node
        .crowd(Crowd {
            count: 50,
            processes: true,
        })
        .unwrap();
    println!("50 namespaces with a process each in {:?}", begun.elapsed());
    assert_eq!(node.veths().unwrap().len(), 50);
    assert!(files.iter().all(|file| node.path(file).exists()));
}

#[test]
fn a_process_can_be_put_into_a_pods_network() {
    let (node, pods) = node_with(1);
    let pid = node.spawn_in_netns(&pods[0].netns, &["sleep", "60"]).unwrap();
    let net = |pid: u32| node.exec(&["readlink", &format!("/proc/{pid}/ns/net")]).unwrap();
    assert_eq!(net(pid), net(pods[0].pause));
    assert_ne!(net(pid), net(1));
}
