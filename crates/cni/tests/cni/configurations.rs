//! Given these configurations, these networks are found.

use std::fs;
use std::path::Path;

use nodemend_cni::{Configurations, DEFAULT_CONF_DIR, Network};

use crate::node::Node;

fn read(node: &Node) -> Configurations {
    nodemend_cni::configurations(&node.host(), Path::new(DEFAULT_CONF_DIR))
}

fn one(name: &str, content: &str) -> Configurations {
    let node = Node::new();
    node.write(&format!("{DEFAULT_CONF_DIR}/{name}"), content);
    read(&node)
}

fn ranges(network: &Network) -> Vec<String> {
    network
        .ipam
        .iter()
        .flat_map(|ipam| &ipam.range_sets)
        .map(ToString::to_string)
        .collect()
}

#[test]
fn files_are_taken_in_the_order_of_their_names_and_others_are_left_alone() {
    let node = Node::new();
    for (file, name) in [("20-b.conf", "b"), ("10-c.conflist", "c"), ("30-a.json", "a")] {
        let plugin = r#""type":"bridge""#;
        let body = if name == "c" {
            format!(r#""plugins":[{{{plugin}}}]"#)
        } else {
            plugin.to_owned()
        };
        node.write(
            &format!("{DEFAULT_CONF_DIR}/{file}"),
            format!(r#"{{"name":"{name}",{body}}}"#),
        );
    }
    for other in [
        "87-podman.conflist.bak",
        "README",
        "10-c.conflist.rpmnew",
        ".conflist",
    ] {
        node.write(&format!("{DEFAULT_CONF_DIR}/{other}"), "not JSON");
    }
    fs::create_dir(node.path("/etc/cni/net.d/whereabouts.json")).unwrap();
    let found = read(&node);
    assert_eq!(
        found
            .networks
            .iter()
            .map(|network| &*network.name)
            .collect::<Vec<_>>(),
        ["c", "b", "a"]
    );
    assert_eq!(found.networks[1].file, Path::new("/etc/cni/net.d/20-b.conf"));
    assert_eq!(found.problems, []);
}

#[test]
fn a_missing_directory_is_a_problem() {
    let found = read(&Node::new());
    assert_eq!(found.problems[0].path, Path::new(DEFAULT_CONF_DIR));
    assert!(found.networks.is_empty());
}

#[test]
fn bridges_are_those_of_the_plugins_bridge_and_flannel() {
    for (plugin, bridges, ptp) in [
        (r#"{"type":"bridge"}"#, vec!["cni0"], false),
        (
            r#"{"type":"bridge","bridge":"kube-bridge"}"#,
            vec!["kube-bridge"],
            false,
        ),
        (r#"{"type":"ptp"}"#, vec![], true),
        (r#"{"type":"calico"}"#, vec![], false),
        (r#"{"type":"macvlan","master":"eth0"}"#, vec![], false),
        (
            r#"{"type":"bridge"},{"type":"portmap"},{"type":"bridge","bridge":"br1"}"#,
            vec!["cni0", "br1"],
            false,
        ),
    ] {
        let found = one("10.conflist", &format!(r#"{{"name":"a","plugins":[{plugin}]}}"#));
        assert_eq!(found.bridges().collect::<Vec<_>>(), bridges, "{plugin}");
        assert_eq!(found.networks[0].ptp, ptp, "{plugin}");
        assert_eq!(found.problems, [], "{plugin}");
    }
}

#[test]
fn a_flannel_node_is_understood_with_its_subnet_file() {
    let node = Node::new();
    node.write(
        "/etc/cni/net.d/10-flannel.conflist",
        r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[
            {"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}},
            {"type":"portmap","capabilities":{"portMappings":true}}]}"#,
    );
    node.write(
        "/run/flannel/subnet.env",
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/25\nFLANNEL_IPV6_SUBNET=fd00:3::1/120\nFLANNEL_MTU=1450\n",
    );
    let found = read(&node);
    let network = &found.networks[0];
    assert_eq!(found.problems, []);
    assert_eq!(network.bridges, ["cni0"]);
    assert_eq!(network.plugins, ["flannel", "portmap"]);
    assert_eq!(network.cni_version, "0.3.1");
    assert_eq!(network.ipam[0].kind, "host-local");
    assert_eq!(network.ipam[0].data_dir(), Path::new("/var/lib/cni/networks"));
    assert_eq!(
        ranges(network),
        ["10.244.3.1-10.244.3.126", "fd00:3::1-fd00:3::ff"]
    );
    assert_eq!(network.ipam[0].range_sets[0].capacity(), 125);
}

#[test]
fn flannel_may_delegate_elsewhere_and_keep_its_reservations_elsewhere() {
    let node = Node::new();
    node.write(
        "/etc/cni/net.d/10-flannel.conf",
        r#"{"name":"f","type":"flannel","subnetFile":"/srv/subnet.env","ipam":{"dataDir":"/srv/ipam"},
            "delegate":{"type":"ptp"}}"#,
    );
    node.write("/srv/subnet.env", "FLANNEL_SUBNET=10.1.0.1/24\n");
    let network = &read(&node).networks[0];
    assert!(network.ptp && network.bridges.is_empty());
    assert_eq!(network.ipam[0].data_dir(), Path::new("/srv/ipam"));
    assert_eq!(ranges(network), ["10.1.0.1-10.1.0.254"]);
}

#[test]
fn a_flannel_subnet_file_that_says_nothing_is_a_problem_and_the_bridge_stays() {
    let conf = r#"{"name":"cbr0","plugins":[{"type":"flannel","delegate":{"bridge":"cbr0"}}]}"#;
    for (env, says) in [
        (None, "No such file"),
        (Some(&b"FLANNEL_MTU=1450\n"[..]), "no FLANNEL_SUBNET"),
        (Some(b"FLANNEL_SUBNET=10.244.3.1\n"), "not a network"),
        (Some(b"FLANNEL_SUBNET=10.244.3.1/32\n"), "too small"),
        (Some(b"\xff"), "not UTF-8"),
    ] {
        let node = Node::new();
        node.write("/etc/cni/net.d/10-flannel.conflist", conf);
        if let Some(env) = env {
            node.write("/run/flannel/subnet.env", env);
        }
        let found = read(&node);
        assert_eq!(found.bridges().collect::<Vec<_>>(), ["cbr0"]);
        assert_eq!(found.problems[0].path, Path::new("/run/flannel/subnet.env"));
        assert!(found.problems[0].reason.contains(says), "{:?}", found.problems);
    }
}

#[test]
fn networks_that_multus_delegates_to_are_networks_too() {
    let found = one(
        "00-multus.conf",
        r#"{"name":"multus-cni-network","type":"multus","delegates":[
            {"name":"pods","cniVersion":"0.3.1","plugins":[{"type":"bridge","bridge":"cbr0"}]},
            {"name":"plain","type":"bridge","ipam":{"type":"host-local","subnet":"10.5.0.0/24"}},
            {"name":"again","type":"multus","delegates":[]}, 7, {"type":"bridge"}]}"#,
    );
    let names: Vec<_> = found.networks.iter().map(|network| &*network.name).collect();
    assert_eq!(names, ["multus-cni-network", "pods", "plain"]);
    assert_eq!(found.bridges().collect::<Vec<_>>(), ["cbr0", "cni0"]);
    assert_eq!(found.problems.len(), 3, "{:?}", found.problems);
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let node = Node::new();
    for (name, content) in [
        ("10-empty.conflist", String::new()),
        ("11-cut.conflist", r#"{"name":"a","plugins":[{"type":"#.to_owned()),
        (
            "12-out.conflist",
            r#"{"name":"../../etc","plugins":[{"type":"bridge"}]}"#.to_owned(),
        ),
        ("13-deep.conf", "[".repeat(200_000)),
        ("14-large.conf", " ".repeat((1 << 20) + 1)),
        (
            "15-list.conf",
            r#"{"name":"a","plugins":[{"type":"bridge"}]}"#.to_owned(),
        ),
    ] {
        node.write(&format!("{DEFAULT_CONF_DIR}/{name}"), content);
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        node.path("/etc/cni/net.d/16-pipe.conf"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("/nowhere", node.path("/etc/cni/net.d/17-dangling.conf")).unwrap();
    node.write(
        &format!("{DEFAULT_CONF_DIR}/90-good.conflist"),
        r#"{"name":"good","plugins":[{"type":"bridge"}]}"#,
    );
    let found = read(&node);
    assert_eq!(found.problems.len(), 8, "{:?}", found.problems);
    assert_eq!(found.networks.len(), 1);
}

#[test]
fn a_configuration_that_is_linked_is_read() {
    let node = Node::new();
    node.write("/opt/net.json", r#"{"name":"linked","type":"bridge"}"#);
    fs::create_dir_all(node.path(DEFAULT_CONF_DIR)).unwrap();
    std::os::unix::fs::symlink("/opt/net.json", node.path("/etc/cni/net.d/10-net.json")).unwrap();
    assert_eq!(read(&node).networks[0].name, "linked");
}

#[test]
fn gc_that_is_switched_off_is_noted() {
    let found = one(
        "10.conflist",
        r#"{"name":"a","disableGC":true,"plugins":[{"type":"bridge"}]}"#,
    );
    assert!(found.networks[0].disable_gc);
}

#[test]
fn a_recording_of_configurations_gives_the_same() {
    let found = one(
        "10.conflist",
        r#"{"name":"a","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]]}}]}"#,
    );
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Configurations>(&json).unwrap(), found);
}
