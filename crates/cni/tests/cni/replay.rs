//! DEL with plugins that are shell scripts, and with the real bridge and host-local.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nodemend_cni::ReplayError;
use serde_json::{Value, json};

use crate::node::{cached, is_there, pods};
use crate::plugins::{Lab, RECORDS, runs};

#[test]
fn plugins_are_called_in_reverse_order_with_what_libcni_gives_them() {
    let lab = Lab::new(&cached(&pods()), &["bridge", "portmap"]);
    lab.delete().unwrap();
    assert_eq!(lab.order(), ["portmap", "bridge"]);
    assert!(!is_there(&lab.cache_file()));

    let bins = format!(
        "{}:{}",
        lab.node.path("/none").display(),
        lab.node.path("/bin").display()
    );
    for (key, value) in [
        ("CNI_COMMAND", "DEL"),
        ("CNI_CONTAINERID", "5f0c1d"),
        ("CNI_NETNS", ""),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns-0",
        ),
        ("CNI_PATH", &bins),
        (
            "PATH",
            "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin",
        ),
    ] {
        assert_eq!(lab.env("bridge", key).as_deref(), Some(value), "{key}");
    }
    for key in ["HOME", "CARGO", "CARGO_MANIFEST_DIR", "LANG"] {
        assert_eq!(lab.env("bridge", key), None, "{key}");
    }

    let (bridge, portmap) = (lab.stdin("bridge"), lab.stdin("portmap"));
    assert_eq!(
        (&bridge["name"], &bridge["cniVersion"]),
        (&json!("pods"), &json!("0.4.0"))
    );
    assert_eq!(bridge["ipam"]["type"], "host-local");
    assert_eq!(bridge["prevResult"], cached(&pods())["result"]);
    assert_eq!(bridge.get("runtimeConfig"), None);
    assert_eq!(
        portmap["runtimeConfig"],
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]})
    );
}

#[test]
fn the_result_goes_along_from_version_0_4_0_on() {
    let mut conf = pods();
    for (version, of_result, expected) in [
        ("0.3.1", "0.3.1", None),
        ("", "0.2.0", None),
        ("0.4.0", "0.2.0", None),
        ("1.0.0", "0.4.0", Some("1.0.0")),
        ("1.0.0", "1.0.0", Some("1.0.0")),
    ] {
        conf["cniVersion"] = json!(version);
        let mut file = cached(&conf);
        file["result"]["cniVersion"] = json!(of_result);
        let lab = Lab::new(&file, &["bridge", "portmap"]);
        lab.delete().unwrap();
        let given = lab.stdin("bridge");
        assert_eq!(
            given["prevResult"]["cniVersion"].as_str(),
            expected,
            "{version} {of_result}"
        );
        assert_eq!(given["cniVersion"], version);
    }
}

#[test]
fn a_single_configuration_is_one_call() {
    let lab = Lab::new(
        &cached(&json!({"name": "lo", "cniVersion": "1.0.0", "type": "loopback"})),
        &["loopback"],
    );
    lab.delete().unwrap();
    assert_eq!(lab.order(), ["loopback"]);
}

#[test]
fn a_failing_plugin_is_quoted_and_the_del_can_be_repeated() {
    for (script, says) in [
        (
            r#"echo '{"code":999,"msg":"no such chain","details":"CNI-DN"}'; exit 1"#,
            "no such chain; CNI-DN",
        ),
        (
            r#"printf '%s' '{"code":999,"msg":"two\nlines"}'; exit 1"#,
            "two lines",
        ),
        (
            "echo first; echo iptables: not found >&2; exit 127",
            "iptables: not found",
        ),
        ("echo only stdout; exit 1", "only stdout"),
        ("exit 3", "exit status: 3, without a word"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let lab = Lab::new(&cached(&pods()), &["portmap"]);
        lab.plugin("bridge", script);
        match lab.delete() {
            Err(ReplayError::Failed {
                container,
                plugin,
                message,
            }) => {
                assert_eq!((&*container, &*plugin), ("5f0c1d", "bridge"));
                assert!(message.contains(says), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(lab.order(), ["portmap"]);
        assert!(is_there(&lab.cache_file()));
        lab.plugin("bridge", RECORDS);
        lab.delete().unwrap();
        assert_eq!(lab.order(), ["portmap", "portmap", "bridge"]);
        assert!(!is_there(&lab.cache_file()));
    }
}

#[test]
fn the_first_failure_ends_the_chain() {
    let lab = Lab::new(&cached(&pods()), &["bridge"]);
    lab.plugin("portmap", "exit 1");
    assert!(matches!(lab.delete(), Err(ReplayError::Failed { plugin, .. }) if plugin == "portmap"));
    assert_eq!(lab.order(), [""; 0]);
}

#[test]
fn a_plugin_that_hangs_is_named_and_killed_with_its_children() {
    let mut lab = Lab::new(&cached(&pods()), &["portmap"]);
    lab.replay.deadline = Duration::from_millis(300);
    lab.plugin("bridge", r#"sleep 60 & echo $! > "$(dirname "$0")/child"; wait"#);
    let start = Instant::now();
    match lab.delete() {
        Err(error @ ReplayError::Hung { .. }) => {
            assert!(
                error
                    .to_string()
                    .contains("container 5f0c1d: plugin bridge did not end"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(is_there(&lab.cache_file()));
    let child = lab.record("child");
    assert!(!child.is_empty());
    let until = Instant::now() + Duration::from_secs(5);
    while runs(&child) {
        assert!(Instant::now() < until, "the child still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_deadline_holds_for_the_whole_chain() {
    let mut lab = Lab::new(&cached(&pods()), &[]);
    lab.replay.deadline = Duration::from_millis(600);
    lab.plugin("portmap", "sleep 0.4");
    lab.plugin("bridge", "sleep 0.4");
    assert!(matches!(lab.delete(), Err(ReplayError::Hung { plugin, .. }) if plugin == "bridge"));
}

#[test]
fn no_plugin_can_hold_or_fill_this_process_through_its_pipes() {
    let mut conf = pods();
    conf["plugins"][0]["padding"] = json!("x".repeat(300_000));
    let mut lab = Lab::new(&cached(&conf), &[]);
    // Closes its stdin unread, floods both outputs.
    lab.plugin(
        "portmap",
        "exec <&-; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2",
    );
    // Reads nothing, and leaves a child behind that holds the pipes.
    lab.plugin("bridge", r#"sleep 3 & echo $! > "$(dirname "$0")/child"; exit 0"#);
    let start = Instant::now();
    lab.delete().unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(2500),
        "{:?}",
        start.elapsed()
    );
    // Writes for ever.
    let file = lab.node.write("/results/file", cached(&conf).to_string());
    rustix::fs::chmod(&file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    lab.plugin("portmap", "exec cat /dev/zero");
    lab.replay.deadline = Duration::from_millis(300);
    assert!(matches!(lab.delete(), Err(ReplayError::Hung { .. })));
}

#[test]
fn a_large_configuration_arrives_whole() {
    let mut conf = pods();
    conf["plugins"][0]["padding"] = json!("x".repeat(300_000));
    let lab = Lab::new(&cached(&conf), &["bridge", "portmap"]);
    lab.delete().unwrap();
    assert_eq!(lab.stdin("bridge")["padding"].as_str().unwrap().len(), 300_000);
}

/// The real plugins free both addresses of the dead container, and leave another one's alone.
#[test]
fn the_real_host_local_frees_what_the_attachment_had() {
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
    let data = tempfile::tempdir().unwrap();
    let mut lab = Lab::new(&cached(&with_ipam(data.path())), &[]);
    lab.replay.bin_dirs = vec![bins.to_owned()];
    let dir = data.path().join("pods");
    fs::create_dir(&dir).unwrap();
    for (ip, content) in [
        ("10.88.0.9", "5f0c1d\r\neth0"),
        ("fd00::9", "5f0c1d\r\neth0"),
        ("10.88.0.10", "5f0c1d\r\nnet1"),
        ("10.88.0.11", "77aa\r\neth0"),
    ] {
        fs::write(dir.join(ip), content).unwrap();
    }
    lab.delete().unwrap();
    let left = |ip: &str| is_there(&dir.join(ip));
    assert!(!left("10.88.0.9") && !left("fd00::9"));
    assert!(left("10.88.0.10") && left("10.88.0.11"));
    assert!(!is_there(&lab.cache_file()));
}

fn with_ipam(data: &Path) -> Value {
    let ranges = json!([[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00::/64"}]]);
    let ipam = json!({"type": "host-local", "dataDir": data, "ranges": ranges});
    json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "ipam": ipam}]})
}
