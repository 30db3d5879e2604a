//! Given these files of libcni and flannel, these attachments are found.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nodemend_cni::Cache;
use serde_json::{Value, json};

use crate::node::{Node, cached, pods};

const FILE: &str = "/var/lib/cni/results/pods-5f0c1d-eth0";

fn read(node: &Node) -> Cache {
    nodemend_cni::cache(&node.host())
}

fn one(content: impl AsRef<[u8]>) -> Cache {
    let node = Node::new();
    node.write(FILE, content);
    read(&node)
}

/// The usual file with one key set to something else; null takes it away.
fn with(key: &str, value: Value) -> String {
    let mut file = cached(&pods());
    file[key] = value;
    file.to_string()
}

#[test]
fn an_attachment_is_read_from_the_content_of_its_file() {
    let node = Node::new();
    // The name of the file says another thing on purpose.
    let file = node.write("/var/lib/cni/results/a-b-c-d", cached(&pods()).to_string());
    let found = read(&node);
    assert_eq!(found.problems, []);
    let entry = &found.entries[0];
    assert_eq!(
        (&*entry.network, &*entry.container_id, &*entry.ifname),
        ("pods", "5f0c1d", "eth0")
    );
    assert_eq!(entry.path, Path::new("/var/lib/cni/results/a-b-c-d"));
    assert_eq!(entry.netns, Path::new("/var/run/netns/cni-1b2c"));
    assert_eq!(entry.host_interfaces, ["cni0", "veth7817d4e7"]);
    assert_eq!(
        entry.ips,
        [
            "10.88.0.9".parse::<std::net::IpAddr>().unwrap(),
            "fd00::9".parse().unwrap()
        ]
    );
    assert_eq!(entry.data_dirs, [Path::new("/run/ipam")]);
    assert!(entry.replayable);
    let stat = rustix::fs::stat(&file).unwrap();
    assert_eq!(
        (entry.id.ino, entry.mtime),
        (stat.st_ino, u64::try_from(stat.st_mtime).unwrap())
    );
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Cache>(&json).unwrap(), found);
}

#[test]
fn results_of_every_version_give_their_addresses() {
    for (result, ips, host) in [
        (
            json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24"}, "ip6": {"ip": "fd00::2/64"}}),
            2,
            0,
        ),
        (
            json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.2/24"}]}),
            1,
            0,
        ),
        (
            json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}], "interfaces": [{"name": "vethabc"}]}),
            1,
            1,
        ),
        (
            json!({"ips": [{"address": "no address"}, 7, null], "interfaces": [{"name": "a/b"}, 7, {}]}),
            0,
            0,
        ),
        (json!({"ips": "x", "interfaces": {}}), 0, 0),
        (json!({}), 0, 0),
        (json!(null), 0, 0),
    ] {
        let found = one(with("result", result.clone()));
        let entry = &found.entries[0];
        assert_eq!(
            (entry.ips.len(), entry.host_interfaces.len()),
            (ips, host),
            "{result}"
        );
    }
}

#[test]
fn a_file_that_is_not_understood_is_a_problem_and_no_attachment() {
    let whole = cached(&pods()).to_string();
    for (content, says) in [
        (String::new(), "cut off or not JSON"),
        (whole[..whole.len() / 2].to_owned(), "cut off or not JSON"),
        ("\0".repeat(700), "cut off or not JSON"),
        ("[1]".to_owned(), "not an object"),
        ("{}".to_owned(), "no \"kind\""),
        (
            json!({"cniVersion": "0.3.1", "ips": []}).to_string(),
            "bare result",
        ),
        (json!({"ip4": {"ip": "10.1.0.2/24"}}).to_string(), "bare result"),
        (with("kind", json!("cniCacheV2")), "not cniCacheV1"),
        (with("kind", json!(7)), "not text"),
        (
            with("containerId", json!("../../etc/passwd")),
            "none that libcni accepts",
        ),
        (with("containerId", json!(null)), "no \"containerId\""),
        (with("networkName", json!("")), "none that libcni accepts"),
        (with("ifName", json!("eth0/../..")), "none that libcni accepts"),
        (with("cniArgs", json!([["K"]])), "list of pairs"),
        (with("cniArgs", json!({"K": "V"})), "list of pairs"),
        (with("capabilityArgs", json!([])), "not an object"),
        (with("result", json!("x")), "not an object"),
        (" ".repeat((1 << 20) + 1), "larger than"),
        ("[".repeat(500_000), "not JSON"),
    ] {
        let found = one(&content);
        assert_eq!(found.entries, [], "{says}");
        assert_eq!(found.problems[0].path, Path::new(FILE));
        assert!(
            found.problems[0].reason.contains(says),
            "{says}: {:?}",
            found.problems
        );
    }
}

#[test]
fn an_attachment_without_a_usable_configuration_is_known_but_its_del_cannot_be_repeated() {
    for (config, problems) in [
        (json!(null), 1),
        (json!(""), 1),
        (json!("%%%"), 1),
        (json!("e30="), 1),     // {}
        (json!("eyJuYW1l"), 1), // cut off
    ] {
        let found = one(with("config", config.clone()));
        assert!(!found.entries[0].replayable, "{config}");
        assert_eq!(found.entries[0].container_id, "5f0c1d");
        assert_eq!(found.problems.len(), problems, "{config}");
    }
    let found = one(cached(&json!({"name": "pods", "type": "../../../tmp/x"})).to_string());
    assert!(!found.entries[0].replayable);
}

#[test]
fn only_regular_files_with_proper_names_are_read() {
    let node = Node::new();
    let good = node.write(FILE, cached(&pods()).to_string());
    let dir = good.parent().unwrap();
    std::os::unix::fs::symlink(&good, dir.join("link")).unwrap();
    fs::create_dir(dir.join("directory")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::write(
        dir.join(OsStr::from_bytes(b"\xff\n")),
        cached(&pods()).to_string(),
    )
    .unwrap();
    let found = read(&node);
    assert_eq!(found.entries.len(), 1);
    assert_eq!(found.problems.len(), 4, "{:?}", found.problems);
    serde_json::to_string(&found).unwrap();
}

#[test]
fn both_places_are_read_and_one_directory_counts_once() {
    let node = Node::new();
    assert_eq!(read(&node), Cache::default(), "a missing directory is no problem");
    node.write("/var/lib/cni/cache/results/x", cached(&pods()).to_string());
    assert_eq!(read(&node).entries.len(), 1);
    std::os::unix::fs::symlink("cache/results", node.path("/var/lib/cni/results")).unwrap();
    assert_eq!(read(&node).entries.len(), 1);
    fs::remove_file(node.path("/var/lib/cni/results")).unwrap();
    node.write(FILE, cached(&pods()).to_string());
    assert_eq!(read(&node).entries.len(), 2);
}

#[test]
fn flannels_own_memory_is_read() {
    let node = Node::new();
    let conf = |ipam: &str| format!(r#"{{"name":"cbr0","type":"bridge","ipam":{ipam}}}"#);
    let local = |more: &str| {
        conf(&format!(
            r#"{{"type":"host-local","ranges":[[{{"subnet":"10.1.0.0/24"}}]]{more}}}"#
        ))
    };
    assert_eq!(nodemend_cni::flannel_scratch(&node.host()).problems, []);
    for (name, content) in [
        ("5f0c1d", local("")),
        ("6a", local(r#","dataDir":"/srv/ipam""#)),
        ("7b", String::new()),
        ("8c", local(r#","dataDir":"srv""#)),
        (".x", local("")),
    ] {
        node.write(&format!("/var/lib/cni/flannel/{name}"), content);
    }
    let found = nodemend_cni::flannel_scratch(&node.host());
    let entries: Vec<_> = found
        .entries
        .iter()
        .map(|e| (&*e.container_id, &*e.network, e.data_dir.as_deref()))
        .collect();
    assert_eq!(
        entries,
        [
            ("5f0c1d", "cbr0", None),
            ("6a", "cbr0", Some(Path::new("/srv/ipam")))
        ]
    );
    assert_eq!(found.problems.len(), 3, "{:?}", found.problems);
}
