//! Another root: a mounted disk, a fixture.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use nodemend_evidence::VerdictKind;
use nodemend_hostfs::Host;
use nodemend_ipam::{Policy, SurveyOptions, blocking, plan};

use crate::node::{expect, id, modern};

#[test]
fn of_another_root_everything_of_ours_is_undecided() {
    let root = tempfile::tempdir().unwrap();
    let networks = root.path().join("var/lib/cni/networks");
    fs::create_dir_all(root.path().join("etc/cni/net.d")).unwrap();
    let conf = r#"{"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.88.0.0/25"}}]}"#;
    fs::write(root.path().join("etc/cni/net.d/10-pods.conflist"), conf).unwrap();
    let hostile = OsStr::from_bytes(b"net\xff\n");
    for (dir, ip) in [
        (OsStr::new("pods"), "10.88.0.9"),
        (OsStr::new("podman"), "10.89.0.9"),
        (hostile, "10.90.0.9"),
    ] {
        fs::create_dir_all(networks.join(dir)).unwrap();
        fs::write(networks.join(dir).join(ip), modern(9)).unwrap();
    }
    // The same directory twice is one; a link out of the root leads nowhere.
    symlink("podman", networks.join("again")).unwrap();
    symlink("/etc", networks.join("out")).unwrap();
    let kind = root.path().join("run/cni-ipam-state/kindnet");
    fs::create_dir_all(&kind).unwrap();
    fs::write(kind.join("10.91.0.9"), id(9)).unwrap();

    let survey = blocking::survey(&Host::at(root.path()), &SurveyOptions::default()).unwrap();
    let policy = Policy {
        grace: std::time::Duration::ZERO,
        ..Policy::default()
    };
    let plan = plan(&survey, &survey, &policy);
    expect(&plan, "10.88.0.9", VerdictKind::Undecided, "another root is read");
    for file in ["10.89.0.9", "10.90.0.9", "10.91.0.9"] {
        expect(&plan, file, VerdictKind::Foreign, "no CNI configuration");
    }
    assert_eq!(plan.summary().undecided, 1);
    assert_eq!(
        plan.verdicts()
            .iter()
            .filter(|v| &*v.subject().file == "10.89.0.9")
            .count(),
        1
    );
    assert!(serde_json::to_string(&survey).is_ok());
}

#[test]
fn a_call_from_inside_an_async_runtime_works() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let root = tempfile::tempdir().unwrap();
    let host = Host::at(root.path());
    let survey = runtime.block_on(async { blocking::survey(&host, &SurveyOptions::default()) });
    assert!(survey.unwrap().reservations.is_empty());
}
