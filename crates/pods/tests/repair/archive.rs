//! What ends with its pod by contract, kept all the same.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nodemend_evidence::Outcome;
use nodemend_pods::{Purge, Repair};
use rustix::fs::{CWD, FileType, Mode};

use crate::node::{Node, Pod, failed, fingerprint, mended, refused, run, tmpfs};

fn archiving(pod: &Pod<'_>, to: &Path) -> Outcome {
    pod.repair(&Repair::Purge(Purge {
        archive: Some(to.to_owned()),
        ..Purge::default()
    }))
}

fn archives(node: &Node) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(node.disk().join("archive"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}

fn fill(leaf: &Path) {
    let long = leaf.join("a".repeat(200)).join("b".repeat(120));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("file"), "far down").unwrap();
    fs::write(leaf.join("empty"), "").unwrap();
    fs::write(leaf.join("all bytes"), (0..=255).collect::<Vec<u8>>()).unwrap();
    fs::set_permissions(leaf.join("all bytes"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(leaf.join("all bytes"), leaf.join("second name")).unwrap();
    symlink("/etc/../etc//passwd/", leaf.join("link")).unwrap();
    symlink("x".repeat(300), leaf.join("long link")).unwrap();
    rustix::fs::mknodat(CWD, leaf.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        leaf.join("null"),
        FileType::CharacterDevice,
        Mode::RUSR,
        null,
    )
    .unwrap();
    let sparse = fs::File::create(leaf.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::chown(leaf.join("empty"), Some(1000), Some(2000)).unwrap();
}

#[test]
fn an_archive_gives_everything_back_byte_for_byte() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~empty-dir", "scratch");
    fill(&leaf);
    rustix::fs::mknodat(CWD, leaf.join("socket"), FileType::Socket, Mode::RUSR, 0).unwrap();
    let memory = pod.volume("kubernetes.io~empty-dir", "memory");
    tmpfs(&memory);
    fill(&memory);
    let before = (without_sockets(&leaf), without_sockets(&memory));
    let said = mended(&archiving(&pod, &node.disk().join("archive")));
    assert!(!pod.is_there());
    let made = archives(&node);
    assert_eq!(made.len(), 2, "{said}");
    let out = node.disk().join("out");
    fs::create_dir(&out).unwrap();
    for tar in made {
        assert_eq!(fs::metadata(&tar).unwrap().mode() & 0o777, 0o600);
        run(Command::new("tar")
            .args(["--same-owner", "-xpf"])
            .arg(tar)
            .arg("-C")
            .arg(&out));
    }
    let volumes = out.join(pod.uid.as_str()).join("volumes/kubernetes.io~empty-dir");
    let after = (
        fingerprint(&volumes.join("scratch")),
        fingerprint(&volumes.join("memory")),
    );
    assert_eq!(after, before);
    let ino = |name| fs::metadata(volumes.join("scratch").join(name)).unwrap().ino();
    assert_eq!(ino("all bytes"), ino("second name"));
    let table = fs::read_to_string(out.join("nodemend-manifest.json")).unwrap();
    assert!(table.contains(pod.uid.as_str()), "{table}");
}

fn without_sockets(dir: &Path) -> std::collections::BTreeMap<PathBuf, String> {
    let mut all = fingerprint(dir);
    all.remove(Path::new("socket"));
    all
}

#[test]
fn an_archive_for_which_there_is_no_room_is_refused_before_anything_changes() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~empty-dir", "scratch");
    let huge = fs::File::create(leaf.join("sparse")).unwrap();
    huge.set_len(1 << 40).unwrap();
    refused(&archiving(&pod, &node.disk().join("archive")), "has room for");
    assert!(leaf.join("sparse").exists());
    assert!(archives(&node).is_empty());
}

#[test]
fn an_archive_in_the_pods_directory_is_refused() {
    let node = Node::new();
    let pod = node.pod(1);
    fs::write(pod.volume("kubernetes.io~empty-dir", "scratch").join("x"), "x").unwrap();
    refused(&archiving(&pod, &pod.path), "is in pods/");
    assert!(pod.is_there());
}

#[test]
fn nothing_is_removed_if_the_archive_cannot_be_written() {
    let node = Node::new();
    let pod = node.pod(1);
    let leaf = pod.volume("kubernetes.io~empty-dir", "scratch");
    let mut deep = leaf.clone();
    for _ in 0..230 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let outcome = archiving(&pod, &node.disk().join("archive"));
    match &outcome {
        Outcome::Refused(_) => {}
        _ => failed(&outcome, "directories deep"),
    }
    assert!(deep.exists());
    assert!(archives(&node).is_empty(), "{:?}", archives(&node));
}
