//! What a pod leaves on the node beside its directory, and what shows that it lives.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::breakage::random_id;
use crate::error::{Doing, Result};
use crate::kubelet::{Pod, ROOT};
use crate::node::Node;
use crate::pods::PodDir;

const CGROUPS: &str = "/sys/fs/cgroup";

impl PodDir<'_> {
    /// Logs of a container, and the link to them; the link.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn logs(&self, container: &str) -> Result<PathBuf> {
        let log = format!("{}/{container}/0.log", self.pod.log_dir());
        self.node
            .write(&log, "2026-01-05T10:00:00.000000000Z stdout F started\n")?;
        self.node.make_dirs("/var/log/containers")?;
        let Pod { name, namespace, .. } = &self.pod;
        let link = format!(
            "/var/log/containers/{name}_{namespace}_{container}-{}.log",
            random_id()?
        );
        symlink(&log, self.node.path(&link)).at("link", Path::new(&link))?;
        Ok(link.into())
    }

    /// The pod's cgroups, without a process in them: kubelet keeps them while the pod has volumes. They lie below the node's own.
    ///
    /// # Errors
    ///
    /// When they cannot be made.
    pub fn cgroups(&self) -> Result<Vec<PathBuf>> {
        let below = format!("{}/kubepods/burstable/pod{}", self.node.cgroup(), self.pod.uid);
        let hierarchies = ["pids", "memory"].map(|name| Path::new(CGROUPS).join(name));
        let mut dirs: Vec<PathBuf> = hierarchies.into_iter().filter(|dir| dir.is_dir()).collect();
        if dirs.is_empty() {
            dirs.push(CGROUPS.into());
        }
        for dir in &mut dirs {
            *dir = dir.join(&below);
            std::fs::create_dir_all(&*dir).at("make", dir)?;
        }
        Ok(dirs)
    }

    /// A process in the pod's cgroups, as a container that no runtime knows any more; its id inside the node.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn process(&mut self) -> Result<u32> {
        let dirs = self.cgroups()?;
        let pid = self.node.spawn(&["sleep", "infinity"])?;
        for dir in dirs {
            self.node
                .shell(&format!("echo {pid} >{}/cgroup.procs", dir.display()))?;
        }
        self.hidden.push(pid);
        Ok(pid)
    }
}

impl Node {
    /// Lets what is mounted below kubelet's root from now on be seen in copies of the mount namespace, and what is unmounted vanish there, as
    /// systemd does for everything.
    ///
    /// # Errors
    ///
    /// When kubelet's root is no mount.
    pub fn share_kubelet_root(&self) -> Result<()> {
        self.exec(&["mount", "--make-rshared", ROOT]).map(drop)
    }

    /// Shows kubelet's root at a second path as well, with all that is mounted in it.
    ///
    /// # Errors
    ///
    /// When it cannot be bound.
    pub fn see_kubelet_root_at(&self, also: &str) -> Result<()> {
        self.make_dirs(also)?;
        self.exec(&["mount", "--rbind", ROOT, also]).map(drop)
    }
}
