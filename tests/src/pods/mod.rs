//! Pod directories, as kubelet and its plugins leave them on a node: real files, real mounts, real devices.
//!
//! kubelet's root gets a file system of its own, so that it is a disk as on a real node and not memory; local volumes lie on the same one, where
//! device numbers do not tell a mount. Its image, and everything that stands for a server elsewhere, is on the node's own memory: nothing
//! of it outlives the node.

mod block;
mod bytes;
mod crowd;
mod mounts;
mod odd;
mod scene;
mod traces;
mod volumes;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::breakage::random_id;
use crate::error::{Doing, LabError, Result};
use crate::kubelet::{PODS, Pod, ROOT};
use crate::node::Node;
use crate::tools;

pub use bytes::{Bytes, Store};
pub use crowd::{PodCrowd, crowd_uid, make as make_crowd};
pub use mounts::Mounted;
pub use odd::{apart, hang as hang_fuse};
pub use scene::{PodScene, Seen};
pub use volumes::{Csi, Global, Volume};

/// Where local volumes lie: on the file system of kubelet's root.
pub const LOCAL_DISKS: &str = "/var/lib/local-disks";

/// What stands for file servers.
pub const EXPORTS: &str = "/run/lab/exports";

const IMAGES: &str = "/run/lab/images";

impl Node {
    /// Gives kubelet's root, and the place of local volumes, an ext4 of so many megabytes; with so many inodes, if more than
    /// usual are needed. Needs root.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] for an ordinary user: a loop device is the machine's.
    pub fn kubelet_disk(&self, megabytes: u64, inodes: Option<u64>) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::Missing(
                "a disk for kubelet's root needs root".to_owned(),
            ));
        }
        let image = self.ext4("kubelet", megabytes, inodes)?;
        let aside = "/run/lab/disk";
        for dir in [aside, ROOT, LOCAL_DISKS] {
            self.make_dirs(dir)?;
        }
        // The device goes by itself with the last of these mounts.
        self.mount_image(&image, aside)?;
        for (part, at) in [("kubelet", ROOT), ("local-disks", LOCAL_DISKS)] {
            let from = format!("{aside}/{part}");
            self.make_dirs(&from)?;
            self.exec(&["mount", "--bind", &from, at])?;
        }
        self.exec(&["umount", aside])?;
        self.make_dirs(PODS)
    }

    /// Mounts an image; its loop device goes with the last mount of it. `mount -o loop` would do the same, but it asks every loop device of
    /// the machine for its file first, and one on a dead file server makes it wait for ever.
    fn mount_image(&self, image: &str, at: &str) -> Result<()> {
        let device = self.exec(&["losetup", "--find", "--show", image])?;
        let mounted = self.exec(&["mount", device.trim(), at]);
        // Of one that is in use this is a wish for later.
        self.exec(&["losetup", "--detach", device.trim()])?;
        mounted.map(drop)
    }

    /// Where an image lies. Its name tells people whose loop device it is, also from outside of the node.
    fn image(&self, name: &str) -> String {
        format!("{IMAGES}/{}-{name}", self.cgroup())
    }

    /// An image with an empty ext4.
    fn ext4(&self, name: &str, megabytes: u64, inodes: Option<u64>) -> Result<String> {
        tools::need("mkfs.ext4", "e2fsprogs")?;
        self.make_dirs(IMAGES)?;
        let image = self.image(name);
        self.exec(&["truncate", "--size", &format!("{megabytes}M"), &image])?;
        // Its own thread would go on writing zeros otherwise, into memory.
        let mut mkfs = vec![
            "mkfs.ext4",
            "-q",
            "-F",
            "-E",
            "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
        ];
        let count = inodes.map(|count| count.to_string());
        if let Some(count) = &count {
            // Many of them are small directories.
            mkfs.extend(["-N", count, "-b", "1024"]);
        }
        mkfs.push(&image);
        self.exec(&mkfs)?;
        Ok(image)
    }

    /// The directory of a pod, with what kubelet makes before anything else. It is there afterwards, empty of volumes.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn pod_dir(&self, pod: &Pod) -> Result<PodDir<'_>> {
        let made = PodDir {
            node: self,
            pod: pod.clone(),
            path: Path::new(PODS).join(&pod.uid),
            stores: Vec::new(),
            hidden: Vec::new(),
        };
        for dir in ["volumes", "plugins", "containers"] {
            self.make_dirs(made.path.join(dir))?;
        }
        Ok(made)
    }
}

/// A pod's directory, while things are put into it.
pub struct PodDir<'n> {
    node: &'n Node,
    /// The pod.
    pub pod: Pod,
    /// Where it is, inside the node.
    pub path: PathBuf,
    /// Where the data of its volumes really is: outside of it, and to be the same after any repair.
    pub stores: Vec<Store>,
    /// Processes that hold things for it.
    pub hidden: Vec<u32>,
}

impl PodDir<'_> {
    /// Writes a file of it.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn write(&self, below: impl AsRef<Path>, content: &str) -> Result<()> {
        self.node.write(self.path.join(below), content)
    }

    /// Makes a directory of it; its whole path.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn make(&self, below: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path.join(below);
        self.node.make_dirs(&path)?;
        Ok(path)
    }

    /// Makes a symlink in it.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn link(&self, below: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let path = self.path.join(below);
        if let Some(dir) = path.parent() {
            self.node.make_dirs(dir)?;
        }
        symlink(to, self.node.path(&path)).at("link", &path)
    }

    /// The hosts file that is bound into its containers, and names the pod.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn etc_hosts(&self) -> Result<()> {
        let text = format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.88.0.9\t{}\n",
            self.pod.name
        );
        self.write("etc-hosts", &text)
    }

    /// The message of a container's end: one file for each start.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn container(&self, name: &str) -> Result<()> {
        let id = random_id()?;
        self.write(format!("containers/{name}/{}", &id[..8]), "")
    }

    /// Whether it is still there.
    pub fn exists(&self) -> bool {
        self.node.path(&self.path).exists()
    }

    /// Data that must survive: a directory of the node outside of the pod's, with two files in it.
    fn store(&mut self, at: &Path) -> Result<()> {
        self.node.make_dirs(at)?;
        self.node
            .write(at.join("data"), &format!("the data of {}\n", self.pod.uid))?;
        self.node.write(at.join("sub/below"), "data of a subpath\n")?;
        self.stores.push(Store::Tree(at.to_owned()));
        Ok(())
    }

    fn bind(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
        self.node
            .exec(&["mount", "--bind", from.as_ref(), to.as_ref()])
            .map(drop)
    }

    fn tmpfs(&self, source: &str, at: &Path) -> Result<()> {
        let at = at.to_string_lossy();
        self.node
            .exec(&["mount", "-t", "tmpfs", "-o", "size=1m", source, at.as_ref()])
            .map(drop)
    }
}
