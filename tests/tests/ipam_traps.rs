//! Reservations that look like leftovers, and the ones that do not: each trap of the field notes that a reservation can be, by its number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nodemend_lab::tool::{Fingerprint, Item, Report, Scene, engine_under_test, not_ready};
use nodemend_lab::{CNI_CACHE, Node, Options, Reservation, Sandbox, random_id};

const NETWORK: &str = "cbr0";
/// An address of the range that no test's pod gets.
const FREE: &str = "10.88.0.100";

fn apply(node: &Node, flags: &str) -> Report {
    let ran = node.mend(&format!("mend-ipam --apply --yes {flags}")).unwrap();
    ran.ended(0).unwrap()
}

fn item(report: &Report, name: impl ToString) -> Item {
    let name = name.to_string();
    let found = report.item(&name);
    assert!(found.is_some(), "{name} is not in {report:?}");
    found.unwrap().clone()
}

/// A node with a pod that lives, and a reservation of a container that never was.
fn node_with_a_leak() -> (Node, Sandbox) {
    let node = Node::start(Options::on(engine_under_test())).unwrap();
    let pod = node.run_sandbox("live").unwrap();
    node.write_reservation(NETWORK, FREE, &Reservation::orphan().unwrap())
        .unwrap();
    (node, pod)
}

fn reservation(name: &str) -> PathBuf {
    Path::new("/var/lib/cni/networks").join(NETWORK).join(name)
}

/// Mends, and proves that the leak went and nothing else.
fn only_the_leak_goes(node: &Node, flags: &str) -> Report {
    let mut expected = node.fingerprint().unwrap();
    expected
        .files
        .remove(&reservation(FREE))
        .expect("the leak is there");
    let report = apply(node, flags);
    assert_eq!(report.with("orphan"), [FREE]);
    node.unchanged(&expected).unwrap();
    report
}

#[test]
fn t01_the_address_of_a_sandbox_in_the_making_stays() {
    let (node, _) = node_with_a_leak();
    let before = node.reserved(NETWORK);
    let flight = node.in_flight_add("late").unwrap();
    let new = node.reserved(NETWORK);
    let new = new.iter().find(|ip| !before.contains(ip)).unwrap();
    let report = only_the_leak_goes(&node, "");
    assert_eq!(item(&report, new).verdict, "live");
    let pod = flight.finish().unwrap();
    assert!(node.pings(pod.ips[0]));
}

#[test]
fn t03_while_the_runtime_is_down_no_address_is_freed() {
    let (node, _) = node_with_a_leak();
    node.stop_runtime().unwrap();
    let before = node.fingerprint().unwrap();
    let planned = node.mend("mend-ipam --timeout 1s --detailed-exitcode").unwrap();
    assert_eq!(planned.ended(5).unwrap().with("undecided"), [FREE]);
    let refused = node.mend("mend-ipam --timeout 1s --apply --yes").unwrap();
    assert!(refused.ended(4).unwrap().refused.is_some());
    node.unchanged(&before).unwrap();
}

#[test]
fn t05_a_sandbox_that_is_not_ready_keeps_its_address() {
    let (node, pod) = node_with_a_leak();
    // A young runtime that lists no task at all would not be believed.
    node.run_sandbox("other").unwrap();
    not_ready(&node, &pod).unwrap();
    let report = only_the_leak_goes(&node, "");
    assert_eq!(item(&report, pod.ips[0]).verdict, "live");
}

#[test]
fn t07_pods_that_run_on_after_a_wipe_keep_their_addresses() {
    let node = Node::start(Options::on(engine_under_test())).unwrap();
    let forgotten = node.run_sandboxes(2).unwrap();
    node.wipe_metadata().unwrap();
    node.run_sandbox("live").unwrap();
    node.write_reservation(NETWORK, FREE, &Reservation::orphan().unwrap())
        .unwrap();
    let report = only_the_leak_goes(&node, "");
    for pod in forgotten {
        assert_eq!(item(&report, pod.ips[0]).verdict, "live");
    }
}

#[test]
fn t08_files_of_the_time_before_interfaces_were_written_are_read_by_their_id() {
    let (node, pod) = node_with_a_leak();
    let before_interface = Reservation::BeforeInterface;
    node.write_reservation(
        NETWORK,
        &pod.ips[0].to_string(),
        &before_interface(pod.id.clone()),
    )
    .unwrap();
    node.write_reservation(NETWORK, FREE, &before_interface(random_id().unwrap()))
        .unwrap();
    let report = only_the_leak_goes(&node, "");
    assert_eq!(item(&report, pod.ips[0]).verdict, "live");
}

#[test]
fn t10_an_empty_file_goes_only_when_asked_for_and_never_during_an_add() {
    let (node, _) = node_with_a_leak();
    node.write_reservation(NETWORK, FREE, &Reservation::Empty)
        .unwrap();
    let before = node.fingerprint().unwrap();
    let report = apply(&node, "");
    let empty = item(&report, FREE);
    assert_eq!(empty.verdict, "undecided");
    assert!(empty.because().contains("--include-empty"), "{empty:?}");
    node.unchanged(&before).unwrap();

    let flight = node.in_flight_add("late").unwrap();
    let busy = node.fingerprint().unwrap();
    let report = apply(&node, "--include-empty");
    assert_eq!(
        item(&report, FREE).verdict,
        "undecided",
        "it may be the one that is being written"
    );
    node.unchanged(&busy).unwrap();
    flight.finish().unwrap();
    only_the_leak_goes(&node, "--include-empty");
}

#[test]
fn t11_both_addresses_of_a_dual_stack_pod_stay_and_both_of_a_dead_one_go() {
    let scene = Scene::on(Options::on(engine_under_test()).dual_stack(), 2, 1).unwrap();
    let (node, live, dead) = (&scene.node, &scene.live[0], &scene.dead[0]);
    // The runtime's own list tells only one of a sandbox's addresses, and none of one that is not ready.
    not_ready(node, live).unwrap();
    node.mend("mend-veth --apply --yes").unwrap().ended(0).unwrap();
    let report = apply(node, "");
    assert_eq!((live.ips.len(), dead.ips.len()), (2, 2));
    for (ip, verdict) in live
        .ips
        .iter()
        .map(|ip| (ip, "live"))
        .chain(dead.ips.iter().map(|ip| (ip, "orphan")))
    {
        assert_eq!(item(&report, ip).verdict, verdict, "{ip}");
        assert_eq!(node.reserved(NETWORK).contains(ip), verdict == "live", "{ip}");
    }
}

#[test]
fn t12_t16_t18_what_host_local_did_not_write_is_reported_and_left() {
    let (node, _) = node_with_a_leak();
    let orphan = || Reservation::orphan().unwrap();
    let note = |text: &str| Reservation::Text(text.to_owned());
    let short = random_id().unwrap()[..12].to_owned();
    let foreign = [
        ("fd00:88:0::9", orphan()),
        ("FD00:88::9", orphan()),
        ("10.88.0.101", note("reserved for the printer")),
        ("10.88.0.102", note("dummy\r\neth0")),
        ("10.88.0.103", note(&format!("{short}\r\neth0"))),
        (
            "10.88.0.104",
            note("b2f6f0ce-6f3b-4f1d-9a55-0d6f6f1a2b3c\r\neth0"),
        ),
        ("notes.txt", note("")),
    ];
    for (name, content) in &foreign {
        node.write_reservation(NETWORK, name, content).unwrap();
    }
    let report = only_the_leak_goes(&node, "");
    for (name, _) in &foreign {
        assert_eq!(item(&report, name).verdict, "foreign", "{name}");
    }
}

#[test]
fn t13_an_address_of_a_live_pod_in_a_second_network_stays() {
    let (node, pod) = node_with_a_leak();
    let attachment = Reservation::Text(format!("{}\r\nnet1", pod.id));
    for address in ["10.99.0.5", "10.99.0.6"] {
        node.write_reservation("macvlan", address, &attachment).unwrap();
    }
    let second = r#"{"cniVersion": "0.3.1", "name": "macvlan", "plugins": [{"type": "macvlan", "master": "lo",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]}}]}"#;
    node.write("/etc/cni/net.d/20-macvlan.conflist", second).unwrap();
    let report = only_the_leak_goes(&node, "");
    for address in ["10.99.0.5", "10.99.0.6"] {
        let kept = item(&report, address);
        assert_eq!(kept.verdict, "live", "{kept:?}");
    }
}

#[test]
fn t14_an_id_with_nerdctl_s_namespace_before_it_is_the_same_id() {
    let (node, pod) = node_with_a_leak();
    node.write_reservation(NETWORK, "10.88.0.101", &Reservation::Nerdctl(pod.id.clone()))
        .unwrap();
    let report = only_the_leak_goes(&node, "");
    assert_eq!(item(&report, "10.88.0.101").verdict, "live");
}

#[test]
fn t15_networks_that_this_node_does_not_configure_are_left() {
    let (node, _) = node_with_a_leak();
    for network in ["podman", "nomad", "bridge"] {
        node.write_reservation(network, "10.99.0.5", &Reservation::orphan().unwrap())
            .unwrap();
    }
    let report = only_the_leak_goes(&node, "");
    let others: Vec<&Item> = report
        .items
        .iter()
        .filter(|item| item.name() == "10.99.0.5")
        .collect();
    assert_eq!(others.len(), 3);
    for other in others {
        assert!(
            ["undecided", "foreign"].contains(&other.verdict.as_str()),
            "{other:?}"
        );
    }
}

#[test]
fn t17_the_bookkeeping_of_host_local_is_no_reservation() {
    let (node, _) = node_with_a_leak();
    let bookkeeping = [
        "lock",
        "last_reserved_ip",
        "last_reserved_ip.0",
        "last_reserved_ip.1",
    ];
    for name in bookkeeping {
        node.write_reservation(NETWORK, name, &Reservation::Text(FREE.to_owned()))
            .unwrap();
    }
    let report = only_the_leak_goes(&node, "");
    for name in bookkeeping {
        assert!(report.item(name).is_none(), "{name}");
    }
}

/// The findings of a report, as text.
fn findings(report: &Report) -> String {
    report
        .details
        .get("findings")
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[test]
fn t37_an_address_in_use_without_a_file_is_reported() {
    let (node, pod) = node_with_a_leak();
    assert!(!findings(&node.mend("mend-ipam").unwrap().ended(0).unwrap()).contains("without a reservation"));
    fs::remove_file(node.path(reservation(&pod.ips[0].to_string()))).unwrap();
    let report = node.mend("mend-ipam").unwrap().ended(0).unwrap();
    let found = findings(&report);
    assert!(
        found.contains("address in use without a reservation") && found.contains(&pod.ips[0].to_string()),
        "{found}"
    );
}

#[test]
fn t38_an_address_that_two_pods_have_is_reported() {
    let (node, pod) = node_with_a_leak();
    let other = node.run_sandbox("other").unwrap();
    let again = format!("{}/25", pod.ips[0]);
    node.exec_in_netns(&other.netns, &["ip", "address", "add", &again, "dev", "eth0"])
        .unwrap();
    let report = node.mend("mend-ipam").unwrap().ended(0).unwrap();
    let found = findings(&report);
    assert!(
        found.contains("the same address twice") && found.contains(&pod.ips[0].to_string()),
        "{found}"
    );
}

#[test]
fn t41_a_link_in_place_of_a_file_is_left() {
    let (node, _) = node_with_a_leak();
    node.write("/run/lab/elsewhere", "x").unwrap();
    let link = reservation("10.88.0.101");
    node.exec(&["ln", "--symbolic", "/run/lab/elsewhere", &link.to_string_lossy()])
        .unwrap();
    let report = apply(&node, "");
    assert_eq!(report.with("orphan"), [FREE]);
    assert!(node.path(link).symlink_metadata().unwrap().is_symlink());
    assert_eq!(node.read("/run/lab/elsewhere").unwrap(), "x");
}

#[test]
fn t43_a_network_that_other_runtimes_share_is_left_open() {
    let (node, _) = node_with_a_leak();
    let path = nodemend_lab::network::CONFLIST;
    let shared = node
        .read(path)
        .unwrap()
        .replacen('{', "{\n  \"disableGC\": true,", 1);
    node.write(path, &shared).unwrap();
    let before = node.fingerprint().unwrap();
    let report = apply(&node, "");
    let kept = item(&report, FREE);
    assert_eq!(kept.verdict, "undecided");
    assert!(kept.because().contains("disableGC"), "{kept:?}");
    node.unchanged(&before).unwrap();
}

#[test]
fn t44_a_file_from_the_future_has_no_age() {
    let (node, _) = node_with_a_leak();
    let path = reservation(FREE);
    node.exec(&["touch", "--date", "+1 hour", &path.to_string_lossy()])
        .unwrap();
    let report = apply(&node, "");
    let kept = item(&report, FREE);
    assert_eq!(kept.verdict, "undecided");
    assert!(kept.because().starts_with("age: "), "{kept:?}");
}

/// A node whose pod 0 was removed while DEL failed: its address and its cache are left.
fn node_after_a_failed_del() -> (Node, Sandbox, Sandbox) {
    let node = Node::start(Options::on(engine_under_test())).unwrap();
    let mut pods = node.run_sandboxes(2).unwrap();
    node.leak_addresses(&pods[..1]).unwrap();
    let live = pods.remove(1);
    (node, pods.remove(0), live)
}

#[test]
fn an_address_that_a_failed_del_left_is_freed_by_repeating_the_del() {
    let (node, dead, live) = node_after_a_failed_del();
    let report = apply(&node, "");
    let freed = item(&report, dead.ips[0]);
    assert_eq!(freed.outcome(), "mended");
    let how = freed.outcome.clone().unwrap().to_string();
    assert!(how.contains("CNI DEL"), "{how}");
    assert_eq!(node.reserved(NETWORK), live.ips);
    let cached = node.names(CNI_CACHE);
    assert!(
        !cached
            .iter()
            .any(|name| name.contains(&format!("{NETWORK}-{}", dead.id))),
        "{cached:?}"
    );
}

#[test]
fn t46_a_cache_that_cannot_be_read_does_not_keep_an_address() {
    let (node, dead, live) = node_after_a_failed_del();
    let cache = format!("{CNI_CACHE}/{NETWORK}-{}-eth0", dead.id);
    node.write(&cache, "{\"kind\":\"cniCacheV1\",\"contai").unwrap();
    let report = apply(&node, "");
    assert_eq!(item(&report, dead.ips[0]).outcome(), "mended");
    assert_eq!(node.reserved(NETWORK), live.ips);
}

#[test]
fn a_del_that_fails_again_is_said_and_the_rest_goes_on() {
    let (node, dead, live) = node_after_a_failed_del();
    node.write_reservation(NETWORK, FREE, &Reservation::orphan().unwrap())
        .unwrap();
    node.fail_del("the disk is on fire").unwrap();
    let ran = node.mend("mend-ipam --apply --yes").unwrap();
    let report = ran.report().unwrap();
    assert_eq!(item(&report, FREE).outcome(), "mended");
    let failed = item(&report, dead.ips[0]);
    // The plugins' own state may stay; the address does not.
    assert_eq!((failed.outcome(), ran.code), ("mended", 0), "{failed:?}");
    let how = failed.outcome.unwrap().to_string();
    assert!(
        how.contains("the disk is on fire"),
        "the reader is told what the plugin said: {how}"
    );
    assert_eq!(node.reserved(NETWORK), live.ips);
}

/// The runs that can be undone, the newest last.
fn undoable(node: &Node) -> Vec<String> {
    let said = node.exec(&["mend-ipam", "undo", "--output", "json"]).unwrap();
    serde_json::from_str(&said).unwrap()
}

/// Content by path, whatever the inode.
fn contents(node: &Fingerprint) -> BTreeMap<PathBuf, String> {
    let files = node
        .files
        .iter()
        .filter(|(path, _)| path.starts_with("/var/lib/cni/networks"));
    files
        .map(|(path, text)| {
            (
                path.clone(),
                text.split_once(' ').unwrap_or_default().1.to_owned(),
            )
        })
        .collect()
}

#[test]
fn undo_puts_back_what_a_run_freed_as_it_was() {
    let (node, _, _) = node_after_a_failed_del();
    node.write_reservation(NETWORK, FREE, &Reservation::orphan().unwrap())
        .unwrap();
    let before = node.fingerprint().unwrap();
    assert!(undoable(&node).is_empty());
    assert_eq!(apply(&node, "").count("orphan"), 2);
    let runs = undoable(&node);
    assert_eq!(runs.len(), 1);
    node.exec(&["mend-ipam", "undo", &runs[0]]).unwrap();
    assert_eq!(contents(&node.fingerprint().unwrap()), contents(&before));
    node.ran(&["mend-ipam", "undo", "no-such-run"])
        .unwrap()
        .exited(1)
        .unwrap();
}

#[test]
fn undo_does_not_put_back_an_address_that_somebody_has_now() {
    let (node, _) = node_with_a_leak();
    apply(&node, "");
    let taken = Reservation::orphan().unwrap();
    node.write_reservation(NETWORK, FREE, &taken).unwrap();
    let before = node.fingerprint().unwrap();
    let run = undoable(&node).remove(0);
    let ran = node.ran(&["mend-ipam", "undo", &run]).unwrap();
    ran.exited(4).unwrap();
    assert!(
        ran.stdout
            .contains(&format!("NOT BACK  {}", reservation(FREE).display())),
        "{ran}"
    );
    node.unchanged(&before).unwrap();
}

#[test]
fn t48_a_run_that_is_killed_at_any_step_can_be_undone_and_finished() {
    nodemend_lab::tools::find("strace").expect("this test needs strace (package strace)");
    let node = Node::start(Options::on(engine_under_test())).unwrap();
    let live = node.run_sandbox("live").unwrap();
    let mut killed = 0;
    for call in [
        "fdatasync,fsync",
        "unlink,unlinkat",
        "rename,renameat,renameat2",
        "mkdir,mkdirat",
        "flock",
    ] {
        for nth in 1..=3 {
            for free in ["10.88.0.100", "10.88.0.101", "10.88.0.102"] {
                node.write_reservation(NETWORK, free, &Reservation::orphan().unwrap())
                    .unwrap();
            }
            let before = contents(&node.fingerprint().unwrap());
            let known = undoable(&node);
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let line = format!(
                "strace --follow-forks --quiet=all --output=/dev/null -e {inject} \
                 mend-ipam --apply --yes --grace 0s --settle 0s"
            );
            let argv: Vec<&str> = line.split_whitespace().collect();
            if node.ran(&argv).unwrap().code == 137 {
                killed += 1;
            }
            for run in undoable(&node).iter().filter(|run| !known.contains(run)) {
                let undone = node.ran(&["mend-ipam", "undo", run]).unwrap();
                assert!(undone.code == 0 || undone.code == 4, "{undone}");
            }
            assert_eq!(
                contents(&node.fingerprint().unwrap()),
                before,
                "killed at {call} number {nth}, what went comes back"
            );
            apply(&node, "");
            assert_eq!(node.reserved(NETWORK), live.ips, "and the next run finishes");
        }
    }
    println!("{killed} runs were killed before their end");
    assert!(killed >= 3);
}
