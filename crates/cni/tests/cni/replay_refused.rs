//! Given anything that does not fit, no plugin is called and the cache file stays.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use nodemend_cni::{Replay, ReplayError};
use nodemend_evidence::Confirmed;
use nodemend_hostfs::Host;
use serde_json::json;

use crate::node::{cached, is_there, pods};
use crate::plugins::{Guard, Lab, Leak, RECORDS, proof};

fn lab() -> Lab {
    Lab::new(&cached(&pods()), &["bridge", "portmap"])
}

fn nothing_happened(lab: &Lab) {
    assert_eq!(lab.order(), [""; 0]);
    assert!(is_there(&lab.cache_file()));
}

#[test]
fn without_a_proof() {
    let lab = lab();
    let none: [Confirmed<'_, Leak>; 0] = [];
    let refused = lab.replay.delete(&Host::local(), &lab.entry(), &none);
    assert!(matches!(refused, Err(ReplayError::Unproven { container }) if container == "5f0c1d"));
    nothing_happened(&lab);
}

#[test]
fn on_another_host() {
    let (lab, guard) = (lab(), Guard);
    let refused = lab
        .replay
        .delete(&lab.node.host(), &lab.entry(), &[proof(&guard)]);
    assert!(matches!(refused, Err(ReplayError::NotRunning { .. })));
    nothing_happened(&lab);
}

#[test]
fn with_a_plugin_that_is_not_there() {
    for missing in ["bridge", "portmap"] {
        let lab = lab();
        fs::remove_file(lab.node.path(&format!("/bin/{missing}"))).unwrap();
        match lab.delete() {
            Err(error @ ReplayError::NoPlugin { .. }) => {
                assert!(
                    error.to_string().contains(&format!("no plugin \"{missing}\"")),
                    "{error}"
                );
            }
            other => panic!("{other:?}"),
        }
        nothing_happened(&lab);
    }
}

#[test]
fn with_a_plugin_type_that_leads_elsewhere() {
    for kind in ["../evil", "/bin/sh", ".", "..", "a/b"] {
        let lab = Lab::new(&cached(&json!({"name": "pods", "type": kind})), &[]);
        fs::create_dir_all(lab.node.path("/bin/a")).unwrap();
        lab.plugin("../evil", &RECORDS.replace("$dir/", "$dir/bin/"));
        lab.plugin("a/b", RECORDS);
        assert!(!lab.entry().replayable);
        assert!(
            matches!(lab.delete(), Err(ReplayError::NoPlugin { .. })),
            "{kind}"
        );
        nothing_happened(&lab);
        assert!(!is_there(&lab.node.path("/bin/a/order")));
    }
}

#[test]
fn when_the_cache_file_is_not_the_one_of_the_survey() {
    type Change = fn(&Lab);
    let changes: [(Change, &str); 7] = [
        (|lab| swap(lab, &cached(&pods()).to_string()), "another file"),
        (
            |lab| {
                File::open(lab.cache_file())
                    .unwrap()
                    .set_modified(UNIX_EPOCH + Duration::from_secs(9))
                    .unwrap()
            },
            "rewritten",
        ),
        (|lab| mode(lab, 0o620), "others can write it"),
        (|lab| mode(lab, 0o602), "others can write it"),
        (
            |lab| fs::hard_link(lab.cache_file(), lab.node.path("/other")).unwrap(),
            "another name elsewhere",
        ),
        (|lab| link(lab), "symbolic links"),
        (
            |lab| {
                in_place(
                    lab,
                    &cached(&json!({"name": "other", "type": "bridge"})).to_string(),
                )
            },
            "another attachment",
        ),
    ];
    for (change, says) in changes {
        let lab = lab();
        let entry = lab.entry();
        change(&lab);
        let error = lab.delete_as(&entry).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
        nothing_happened(&lab);
    }
}

#[test]
fn when_the_configuration_is_of_another_network_or_version() {
    let mut other = cached(&pods());
    other["networkName"] = json!("other");
    let version = cached(&json!({"name": "pods", "cniVersion": "latest", "type": "bridge"}));
    let mut without = cached(&pods());
    without["config"] = json!("");
    for (file, says) in [
        (other, "another network"),
        (version, "no CNI version"),
        (without, "no configuration"),
    ] {
        let lab = Lab::new(&file, &["bridge", "portmap"]);
        let entry = nodemend_cni::cache_in(&Host::local(), [&*lab.node.path("/results")])
            .entries
            .remove(0);
        let error = lab.delete_as(&entry).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        nothing_happened(&lab);
    }
}

#[test]
fn a_file_that_the_next_add_rewrote_meanwhile_stays() {
    let lab = Lab::new(&cached(&pods()), &["bridge"]);
    lab.plugin(
        "portmap",
        r#"echo '{"new": 1}' > "$(dirname "$0")/../results/file""#,
    );
    let error = lab.delete().unwrap_err();
    assert!(
        error.to_string().contains("rewritten while its DEL ran"),
        "{error}"
    );
    assert!(is_there(&lab.cache_file()));
}

#[test]
fn a_file_that_somebody_else_removed_meanwhile_is_no_failure() {
    let lab = Lab::new(&cached(&pods()), &["bridge"]);
    lab.plugin("portmap", r#"rm "$(dirname "$0")/../results/file""#);
    lab.delete().unwrap();
}

#[test]
fn a_deadline_that_no_clock_holds_is_a_long_one() {
    let mut lab = lab();
    lab.replay = Replay {
        deadline: Duration::MAX,
        ..lab.replay
    };
    lab.delete().unwrap();
}

fn swap(lab: &Lab, content: &str) {
    let new = lab.node.write("/results/new", content);
    fs::rename(new, lab.cache_file()).unwrap();
}

fn mode(lab: &Lab, mode: u32) {
    fs::set_permissions(lab.cache_file(), fs::Permissions::from_mode(mode)).unwrap();
}

fn link(lab: &Lab) {
    let real = lab.node.path("/real");
    fs::rename(lab.cache_file(), &real).unwrap();
    std::os::unix::fs::symlink(real, lab.cache_file()).unwrap();
}

/// The same inode and the same second, other content.
fn in_place(lab: &Lab, content: &str) {
    let time = fs::metadata(lab.cache_file()).unwrap().modified().unwrap();
    fs::write(lab.cache_file(), content).unwrap();
    File::open(lab.cache_file()).unwrap().set_modified(time).unwrap();
}
