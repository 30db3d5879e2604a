//! Which network namespace the plugins are told.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::node::{cached, pods};
use crate::plugins::Lab;

/// What the plugins get as `CNI_NETNS` if the cache names `path`.
fn told(path: &Path) -> String {
    let mut file = cached(&pods());
    file["netns"] = json!(path);
    let lab = Lab::new(&file, &["bridge", "portmap"]);
    lab.delete().unwrap();
    lab.env("bridge", "CNI_NETNS").unwrap()
}

#[test]
fn a_path_that_is_no_mounted_namespace_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cni-unmounted");
    fs::write(&file, "").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/proc/self/ns/net", &link).unwrap();
    let of_a_process = format!("/proc/{}/ns/net", std::process::id());
    for path in [
        &*file,
        &link,
        dir.path(),
        Path::new("/nowhere"),
        Path::new(""),
        Path::new(&of_a_process),
    ] {
        assert_eq!(told(path), "", "{}", path.display());
    }
}

#[test]
fn a_mounted_namespace_is_told_unless_it_is_the_hosts() {
    if !rustix::process::geteuid().is_root() {
        let text = "\nNOT TESTED: mounting a network namespace needs root\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run these tests as root"
        );
        return;
    }
    // In a mount namespace of its own, so that nothing is left on this machine.
    let inner = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "netns::inside_a_mount_namespace"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above"]
fn inside_a_mount_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let (container, host) = (dir.path().join("cni-live"), dir.path().join("host"));
    fs::write(&container, "").unwrap();
    fs::write(&host, "").unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("unshare")
        .arg(format!("--net={}", container.display()))
        .arg("true"));
    run(Command::new("mount")
        .args(["--bind", "/proc/self/ns/net"])
        .arg(&host));
    assert_eq!(told(&container), container.to_str().unwrap());
    assert_eq!(told(&host), "");
}
