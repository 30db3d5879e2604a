//! Freeing by the CNI DEL of libcni's cache.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nodemend_evidence::{Outcome, Subject, VerdictKind};
use nodemend_ipam::Repair;
use serde_json::json;

use crate::node::{Node, age, id, modern, of};
use crate::repair::{Bench, failed, mended};

/// Frees what has the container's id, as host-local does.
const FREES: &str = "cd $PODS && rm -f $(grep -l $CNI_CONTAINERID [1f]*)";

/// A dead attachment of two families, and another one.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.node.reserve("10.88.0.9", modern(9));
    bench.node.reserve("fd00::9", modern(9));
    bench.node.cache(9, "eth0");
    bench
}

#[test]
fn the_plan_says_which_go_by_del() {
    let bench = bench();
    bench.node.reserve("10.88.0.10", modern(10));
    bench.node.reserve("10.88.0.11", format!("{}\r\nnet1", id(9)));
    let plan = bench.node.plan();
    let repair = |file| of(&plan, file).subject().repair;
    assert_eq!(
        (repair("10.88.0.9"), repair("fd00::9")),
        (Repair::Replay, Repair::Replay)
    );
    assert_eq!(
        (repair("10.88.0.10"), repair("10.88.0.11")),
        (Repair::Move, Repair::Move)
    );
    assert!(
        of(&plan, "fd00::9")
            .subject()
            .action()
            .starts_with("run the CNI DEL")
    );
}

#[test]
fn all_addresses_of_an_attachment_go_by_one_del() {
    let bench = bench();
    bench.plugin("bridge", &format!("echo $CNI_COMMAND >>$PODS/../calls; {FREES}"));
    let done = bench.repair();
    mended(&done, "10.88.0.9", "CNI DEL from libcni's cache freed it; a copy");
    mended(&done, "fd00::9", "CNI DEL from libcni's cache freed it");
    assert_eq!(
        fs::read_to_string(bench.node.path("networks/calls")).unwrap(),
        "DEL\n"
    );
    assert_eq!(bench.node.cached(), 0);
}

#[test]
fn what_a_del_leaves_is_moved() {
    let bench = bench();
    bench.plugin("bridge", "rm $PODS/10.88.0.9");
    let done = bench.repair();
    mended(&done, "10.88.0.9", "freed it");
    mended(
        &done,
        "fd00::9",
        "succeeded and left the file, which was then moved",
    );
    assert!(!bench.node.is_reserved("fd00::9"));
}

#[test]
fn a_failed_del_is_said_and_the_cache_entry_stays() {
    let bench = bench();
    bench.plugin(
        "bridge",
        r#"echo '{"code": 7, "msg": "no iptables here"}'; exit 1"#,
    );
    let done = bench.repair();
    mended(&done, "10.88.0.9", "no iptables here");
    mended(&done, "fd00::9", "the cache entry stays");
    assert!(!bench.node.is_reserved("10.88.0.9") && !bench.node.is_reserved("fd00::9"));
    assert_eq!(bench.node.cached(), 1);
}

#[test]
fn after_a_del_that_hung_no_other_is_tried() {
    let mut bench = bench();
    bench.node.reserve("10.88.0.10", modern(10));
    bench.node.cache(10, "eth0");
    bench.replay.deadline = Duration::from_millis(300);
    bench.plugin("bridge", "sleep 60");
    let start = std::time::Instant::now();
    let done = bench.repair();
    mended(&done, "10.88.0.9", "did not end before the deadline");
    mended(&done, "10.88.0.10", "one before it hung");
    assert!(start.elapsed() < Duration::from_secs(40));
    assert_eq!(bench.node.cached(), 2);
}

/// A DEL takes everything of the container, so it runs only if everything may go.
#[test]
fn an_attachment_with_a_doubtful_address_is_not_deleted_as_a_whole() {
    let bench = bench();
    age(&bench.node.reserve("10.88.0.10", modern(9)), Duration::ZERO);
    bench.plugin("bridge", FREES);
    let done = bench.repair();
    mended(&done, "10.88.0.9", "the file was moved");
    mended(&done, "fd00::9", "the file was moved");
    assert!(bench.node.is_reserved("10.88.0.10"));
    assert_eq!(bench.node.cached(), 1);
}

#[test]
fn both_interfaces_of_a_container_go_by_their_own_dels_once() {
    let bench = bench();
    bench.node.reserve("10.88.0.10", format!("{}\r\nnet1", id(9)));
    bench.node.reserve("fd00::10", format!("{}\r\nnet1", id(9)));
    bench.node.cache(9, "net1");
    bench.plugin(
        "bridge",
        r#"echo $CNI_IFNAME >>$PODS/../calls; cd $PODS && rm -f $(grep -l "$CNI_IFNAME" [1f]*)"#,
    );
    let done = bench.repair();
    for file in ["10.88.0.9", "10.88.0.10", "fd00::9", "fd00::10"] {
        mended(&done, file, "CNI DEL from libcni's cache freed it");
    }
    assert_eq!(
        fs::read_to_string(bench.node.path("networks/calls")).unwrap(),
        "eth0\nnet1\n"
    );
    assert_eq!(bench.node.cached(), 0);
}

#[test]
fn an_address_that_is_given_out_again_during_its_del_is_not_touched() {
    let bench = bench();
    let again = modern(77).replace("\r\n", "\\r\\n");
    bench.plugin("bridge", &format!("{FREES}; printf '{again}' >$PODS/10.88.0.9"));
    let done = bench.repair();
    mended(&done, "10.88.0.9", "it is given out again");
    assert_eq!(
        fs::read_to_string(bench.node.pods().join("10.88.0.9")).unwrap(),
        modern(77)
    );
}

#[test]
fn a_del_without_copies_does_not_run() {
    let bench = bench();
    bench.plugin("bridge", FREES);
    fs::create_dir_all(bench.state.path()).unwrap();
    fs::write(bench.state.path().join("undo"), "").unwrap();
    failed(&bench.repair(), "10.88.0.9", "nothing was removed");
    assert!(bench.node.is_reserved("10.88.0.9") && bench.node.cached() == 1);
}

/// The real host-local gives the addresses out, fills its range, and gives them out again after the repair.
#[test]
fn the_real_host_local_has_free_addresses_again() {
    let bins = Path::new("/usr/lib/cni");
    if !["bridge", "host-local"]
        .iter()
        .all(|name| bins.join(name).is_file())
    {
        let text =
            "\nNOT TESTED: no bridge and host-local in /usr/lib/cni (package containernetworking-plugins)\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        assert!(std::env::var_os("CI").is_none(), "CI must have the CNI plugins");
        return;
    }
    let mut bench = Bench::new();
    bench.replay.bin_dirs = vec![bins.to_owned()];
    let mut conf = bench.node.conf();
    conf["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": "10.88.0.0/29"}], [{"subnet": "fd00::/125"}]]);
    bench.node.configure(&conf);
    for n in 1..=5 {
        host_local(&bench.node, "ADD", n).unwrap();
    }
    let full = host_local(&bench.node, "ADD", 6).unwrap_err();
    assert!(full.contains("no IP addresses available in range set"), "{full}");

    for file in files(&bench.node) {
        age(&bench.node.pods().join(file), Duration::from_secs(7200));
    }
    bench.node.cache(1, "eth0");
    bench.node.cache(2, "eth0");
    let alive = bench.node.plan_with(&bench.policy, |survey| {
        crate::node::know(survey, crate::node::sandbox(5, crate::node::POD));
    });
    let summary = alive.summary();
    assert_eq!(
        (summary.orphans, summary.live, summary.undecided, summary.foreign),
        (8, 2, 0, 0)
    );
    let live: Vec<_> = alive
        .verdicts()
        .iter()
        .filter(|v| v.kind() == VerdictKind::Live)
        .map(|v| v.subject().title())
        .collect();
    let done = bench.carry_out(alive, "run-1", |_| {}).unwrap();
    assert!(
        done.values().all(|outcome| matches!(outcome, Outcome::Mended(_))),
        "{done:?}"
    );
    assert_eq!(
        done.values()
            .filter(|o| matches!(o, Outcome::Mended(how) if how.contains("CNI DEL")))
            .count(),
        4
    );
    assert_eq!(files(&bench.node).len(), 2, "{live:?}");
    assert_eq!(bench.node.cached(), 0);
    for n in 11..=14 {
        host_local(&bench.node, "ADD", n).unwrap();
    }
    host_local(&bench.node, "DEL", 5).unwrap();
    host_local(&bench.node, "ADD", 15).unwrap();
}

fn files(node: &Node) -> Vec<String> {
    let names = fs::read_dir(node.pods())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
        .collect()
}

/// Calls the plugin as the plugin bridge does.
fn host_local(node: &Node, command: &str, n: u8) -> Result<(), String> {
    let mut conf: serde_json::Value =
        serde_json::from_slice(&fs::read(node.path("net.d/10-pods.conflist")).unwrap()).unwrap();
    let ipam = conf["plugins"][0]["ipam"].take();
    let stdin = json!({"cniVersion": "0.4.0", "name": "pods", "type": "bridge", "ipam": ipam});
    let mut plugin = Command::new("/usr/lib/cni/host-local")
        .env_clear()
        .envs([
            ("CNI_COMMAND", command),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/usr/lib/cni"),
        ])
        .envs([("CNI_CONTAINERID", &*id(n)), ("CNI_NETNS", "/proc/self/ns/net")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    plugin
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.to_string().as_bytes())
        .unwrap();
    let ended = plugin.wait_with_output().unwrap();
    if ended.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}
