//! A second containerd on the node, with a container of its own: nothing of it is a pod's.

use std::time::Duration;

use crate::error::{LabError, Result};
use crate::node::Node;
use crate::options::Engine;

const SOCKET: &str = "/run/second/containerd.sock";
const LOG: &str = "/run/lab/second.log";
const CONFIG: &str = r#"version = 2
root = "/var/lib/second"
state = "/run/second"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "/run/second/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "/run/lab/second-opt"
"#;

/// A container of the second containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Second {
    /// Its id, which a person gave it.
    pub id: String,
    /// Where its containerd listens, inside the node.
    pub socket: String,
    /// Its processes and its shim, by their ids inside the node.
    pub processes: Vec<u32>,
}

impl Node {
    /// Starts a second containerd, without CRI, and a container in it.
    ///
    /// # Errors
    ///
    /// When it does not start. The stand-in has no second one.
    pub fn second_runtime(&self) -> Result<Second> {
        if self.options.engine != Engine::Containerd {
            return Err(LabError::Missing(
                "only the machine's containerd runs twice".to_owned(),
            ));
        }
        self.write("/etc/containerd/second.toml", CONFIG)?;
        self.make_dirs("/run/second")?;
        self.detach(
            &["--log", LOG],
            &["containerd", "--config", "/etc/containerd/second.toml"],
        )?;
        let ctr = |words: &str| {
            let line = format!("ctr --address {SOCKET} {words}");
            self.exec(&line.split(' ').collect::<Vec<_>>())
        };
        self.await_that("second containerd", Duration::from_secs(30), LOG, || {
            ctr("version").is_ok()
        })?;
        ctr("images import /run/lab/pause.tar")?;
        let id = "second-web".to_owned();
        let cgroup = format!("/{}/second", self.cgroup());
        ctr(&format!("run --detach --cgroup {cgroup} localhost/pause:3 {id}"))?;
        let all = self.processes().into_iter();
        let of_it = |process: &crate::process::Process| {
            process.is_shim_of(&id)
                || self
                    .read(format!("/proc/{}/cgroup", process.pid))
                    .is_ok_and(|text| text.contains(&cgroup))
        };
        let processes = all.filter(of_it).map(|process| process.pid).collect();
        Ok(Second {
            id,
            socket: SOCKET.to_owned(),
            processes,
        })
    }
}
