//! What a dead pod left outside of its directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::node::{Node, Pod, mended};

fn logs(node: &Node, pod: &Pod<'_>, name: &str) -> (PathBuf, PathBuf) {
    let dir = node.places.pod_logs.join(format!("default_{name}_{}", pod.uid));
    fs::create_dir_all(dir.join("app")).unwrap();
    fs::write(dir.join("app/0.log"), "line\n").unwrap();
    let link = node
        .places
        .container_logs
        .join(format!("{name}_default_app-0123.log"));
    symlink(dir.join("app/0.log"), &link).unwrap();
    (dir, link)
}

#[test]
fn logs_links_and_empty_cgroups_of_this_pod_go_and_those_of_others_stay() {
    let node = Node::new();
    let (pod, other) = (node.pod(1), node.pod(2));
    let (dir, link) = logs(&node, &pod, "web");
    let (other_dir, other_link) = logs(&node, &other, "web-2");
    let stranger = node.places.pod_logs.join(format!("default_x_{}x", pod.uid));
    fs::create_dir(&stranger).unwrap();
    let uid = pod.uid.as_str();
    let cgroups = [
        format!("memory/kubepods/burstable/pod{uid}/0123"),
        format!(
            "cpu/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-0123.scope",
            pod.uid.in_slice()
        ),
    ]
    .map(|path| node.places.cgroups.join(path));
    let other_cgroup = node
        .places
        .cgroups
        .join(format!("memory/kubepods/pod{}", other.uid));
    for dir in cgroups.iter().chain([&other_cgroup]) {
        fs::create_dir_all(dir).unwrap();
    }
    mended(&pod.purge());
    assert!(!dir.exists() && link.symlink_metadata().is_err());
    assert!(other_dir.exists() && other_link.exists() && stranger.exists());
    for cgroup in &cgroups {
        assert!(!cgroup.parent().unwrap().exists());
        assert!(
            cgroup.ancestors().nth(2).unwrap().exists(),
            "only those of the pod"
        );
    }
    assert!(other_cgroup.exists());
}

#[test]
fn logs_that_somebody_reads_and_cgroups_with_processes_stay_and_that_is_said() {
    let node = Node::new();
    let pod = node.pod(1);
    let (dir, link) = logs(&node, &pod, "web");
    let cgroup = node.places.cgroups.join(format!("kubepods/pod{}/app", pod.uid));
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.procs"), "4711\n").unwrap();
    let reader = fs::File::open(dir.join("app/0.log")).unwrap();
    let said = mended(&pod.purge());
    drop(reader);
    assert!(
        said.contains(&format!("stays: process {} has", std::process::id())),
        "{said}"
    );
    assert!(said.contains("a process lives in it"), "{said}");
    assert!(!pod.is_there() && dir.exists() && link.exists() && cgroup.exists());
}
