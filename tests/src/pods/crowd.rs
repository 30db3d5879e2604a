//! Many pod directories with many mounts, for measurements: made by one process inside the node, as a command for each would take minutes.

use std::fs;
use std::io::Write;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::error::{Doing, LabError, Result};
use crate::kubelet::{PODS, Phase, Pod};
use crate::node::Node;
use crate::pods::LOCAL_DISKS;
use crate::tools;

/// How many.
#[derive(Clone, Copy, Debug)]
pub struct PodCrowd {
    /// Pod directories.
    pub pods: u32,
    /// Of those, the first so many are in kubelet's list.
    pub known: u32,
    /// Mounts in each, 5 at most.
    pub mounts_each: u32,
}

/// Leaves of one directory: memory, or a bind of the same file system.
const LEAVES: [(&str, &str); 5] = [
    ("volumes/kubernetes.io~projected/kube-api-access", "memory"),
    ("volumes/kubernetes.io~secret/tls", "memory"),
    ("volumes/kubernetes.io~secret/keys", "memory"),
    ("volumes/kubernetes.io~local-volume/pv", "disk"),
    ("volume-subpaths/pv/app/0", "disk"),
];

const MEMORY: &str = "/run/lab/crowd-memory";

/// The uid of the `n`th.
pub fn crowd_uid(n: u32) -> String {
    format!("{n:08x}-0000-4000-8000-{n:012x}")
}

impl Node {
    /// Makes them, and tells kubelet of the known. [`Node::kubelet_disk`] needs about 16 inodes and 16 KiB for each.
    ///
    /// # Errors
    ///
    /// When the disk is full, or the kernel makes no more mounts (`fs.mount-max`).
    pub fn pod_crowd(&self, crowd: PodCrowd) -> Result<()> {
        self.make_dirs(MEMORY)?;
        self.exec(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", MEMORY])?;
        self.write(Path::new(MEMORY).join("token"), "token\n")?;
        self.write(Path::new(LOCAL_DISKS).join("crowd/data"), "data\n")?;
        let lab = tools::lab_binary()?;
        let (pods, each) = (crowd.pods.to_string(), crowd.mounts_each.to_string());
        let said = self.exec(&[&lab.to_string_lossy(), "pod-crowd", &pods, &each])?;
        if said.trim() != "done" {
            return Err(LabError::Odd(format!("no crowd: {said}")));
        }
        let known: Vec<Pod> = (0..crowd.known)
            .map(|n| Pod {
                uid: crowd_uid(n),
                name: format!("pod-{n}"),
                namespace: "default".to_owned(),
                phase: Phase::Running,
                is_static: false,
            })
            .collect();
        self.list_pods(&known)
    }
}

/// The subcommand.
///
/// # Errors
///
/// As [`Node::pod_crowd`].
pub fn make(pods: u32, each: u32) -> Result<()> {
    let each = usize::try_from(each).unwrap_or_default();
    for n in 0..pods {
        let dir = Path::new(PODS).join(crowd_uid(n));
        for (leaf, from) in LEAVES.iter().take(each) {
            let at = dir.join(leaf);
            fs::create_dir_all(&at).at("make", &at)?;
            let from = match *from {
                "memory" => Path::new(MEMORY).to_owned(),
                _ => Path::new(LOCAL_DISKS).join("crowd"),
            };
            let none: Option<&str> = None;
            mount(Some(from.as_path()), &at, none, MsFlags::MS_BIND, none).at("mount", &at)?;
        }
        let hosts = dir.join("etc-hosts");
        fs::create_dir_all(&dir).at("make", &dir)?;
        fs::write(&hosts, format!("10.88.0.9\tpod-{n}\n")).at("write", &hosts)?;
    }
    writeln!(std::io::stdout(), "done").doing(|| "say that it is done".to_owned())
}
