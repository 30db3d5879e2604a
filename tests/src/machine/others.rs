//! Containers of others on the same machine: no repair of the node's containerd may touch them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Machine;
use crate::breakage::random_id;
use crate::cri::{self, Cri};
use crate::error::{LabError, Result};
use crate::sandbox::random_uuid;
use crate::tools;

/// A second containerd, with everything of its own, as a CI runner has it.
const CONFIG: &str = r#"version = 2
root = "/var/lib/containerd-other"
state = "/run/containerd-other"

[grpc]
  address = "/run/containerd-other/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-other/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:3"
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/other.d"
"#;

const CONFLIST: &str = r#"{
  "cniVersion": "0.3.1",
  "name": "other",
  "plugins": [{
    "type": "bridge", "bridge": "cni-other", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]}
  }]
}
"#;

const UNIT: &str = "[Unit]
Description=another containerd

[Service]
ExecStart=/usr/bin/containerd --config /etc/containerd-other/config.toml
Type=notify
Delegate=yes
KillMode=process
Restart=always
";

const SOCKET: &str = "/run/containerd-other/containerd.sock";

/// One line each: a namespace as netavark mounts it, plugged into podman's bridge; a container's root on podman's storage.
const PODMAN: &str = r#"
mkdir -p /run/netns
touch /run/netns/NETNS
unshare --net=/run/netns/NETNS true
ip link add podman0 type bridge
ip link set podman0 up
ip link add veth0 type veth peer name eth0 netns "$(basename /run/netns/NETNS)"
ip link set veth0 master podman0 up
storage=/var/lib/containers/storage/overlay/aaaa
mkdir -p $storage/lower $storage/diff $storage/work $storage/merged
mount -t overlay overlay -o lowerdir=$storage/lower,upperdir=$storage/diff,workdir=$storage/work $storage/merged
"#;

/// The second containerd and a sandbox of it.
#[derive(Clone, Debug)]
pub struct Another {
    /// The runtime's id.
    pub id: String,
    /// Its namespace's file.
    pub netns: PathBuf,
}

/// Something of podman.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its namespace's file.
    pub netns: PathBuf,
    /// Where its container's root is mounted.
    pub mount: PathBuf,
    /// Its container's process, and conmon.
    pub processes: [u32; 2],
}

impl Machine {
    /// Starts a second containerd with a sandbox of its own.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn another_containerd(&self) -> Result<Another> {
        self.write("/etc/containerd-other/config.toml", CONFIG)?;
        self.write("/etc/cni/other.d/10-other.conflist", CONFLIST)?;
        self.write("/etc/systemd/system/containerd-other.service", UNIT)?;
        self.exec(&["systemctl", "daemon-reload"])?;
        self.exec(&["systemctl", "start", "containerd-other.service"])?;
        self.await_that("other runtime that is ready", Duration::from_secs(30), "", || {
            self.other_cri().ready().unwrap_or(false)
        })?;
        self.shell(&format!(
            "ctr --address {SOCKET} --namespace k8s.io images import /run/lab/pause.tar"
        ))?;
        self.await_that("pause image of the other", Duration::from_secs(20), "", || {
            self.other_cri().has_image("localhost/pause:3").unwrap_or(false)
        })?;
        let uid = random_uuid()?;
        let before = self.names("/run/netns");
        let config = cri::pod_config("other", &uid, &format!("/other/pod{uid}"));
        let id = self.other_cri().run(config)?;
        let mut new = self.names("/run/netns").into_iter();
        let netns = new.find(|name| !before.contains(name));
        let netns = netns.ok_or_else(|| LabError::Odd("the other sandbox has no network".to_owned()))?;
        Ok(Another {
            id,
            netns: Path::new("/run/netns").join(netns),
        })
    }

    /// Whether the second containerd still has its sandbox, ready.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn other_is_well(&self, other: &Another) -> Result<bool> {
        let listed = self.other_cri().list()?;
        let ready = i32::from(k8s_cri::v1::PodSandboxState::SandboxReady);
        let known = listed.iter().any(|one| one.id == other.id && one.state == ready);
        let enter = format!("--net={}", other.netns.display());
        Ok(known
            && self
                .exec(&["nsenter", &enter, "ip", "-4", "addr", "show", "eth0"])?
                .contains("10.99.0."))
    }

    fn other_cri(&self) -> Cri {
        Cri::new(self.path(SOCKET), self.suite().cri())
    }

    /// Makes what podman leaves on a machine while a container of it runs, without podman.
    ///
    /// # Errors
    ///
    /// When `ip` or a mount fails.
    pub fn like_podman(&self) -> Result<Other> {
        let name = format!("netns-{}", random_uuid()?);
        self.shell(&PODMAN.replace("NETNS", &name))?;
        let netns = Path::new("/run/netns").join(name);
        let pid = self.spawn_in_netns(&netns, &["sleep", "infinity"])?;
        let conmon = self.conmon(&random_id()?)?;
        self.shell(&format!(
            "for top in /sys/fs/cgroup/systemd /sys/fs/cgroup/memory /sys/fs/cgroup; do
               [ -e $top/cgroup.procs ] || continue
               mkdir -p $top/machine.slice/libpod-aaaa.scope
               echo {pid} >$top/machine.slice/libpod-aaaa.scope/cgroup.procs
               echo {conmon} >$top/machine.slice/libpod-aaaa.scope/cgroup.procs
               break
             done"
        ))?;
        Ok(Other {
            netns,
            mount: PathBuf::from("/var/lib/containers/storage/overlay/aaaa/merged"),
            processes: [pid, conmon],
        })
    }

    /// The program that watches over a container of podman's, with its command line.
    fn conmon(&self, id: &str) -> Result<u32> {
        let link = "/run/lab/bin/conmon";
        let lab = tools::lab_binary()?;
        self.shell(&format!(
            "mkdir -p /run/lab/bin; ln -sfn {} {link}",
            lab.display()
        ))?;
        let bundle = format!("/var/lib/containers/storage/overlay-containers/{id}/userdata");
        let argv = [
            "--api-version",
            "1",
            "-c",
            id,
            "-u",
            id,
            "-r",
            "/usr/bin/crun",
            "-b",
            &bundle,
            "-n",
            "web",
        ];
        let line: Vec<&str> = std::iter::once(link).chain(argv).collect();
        self.detach(&["--argv0", "/usr/bin/conmon"], &line)
    }

    /// Whether all of it is as it was.
    pub fn podman_is_well(&self, other: &Other) -> bool {
        let mounts = self.read("/proc/1/mounts").unwrap_or_default();
        let mounted = |path: &Path| mounts.contains(&format!(" {} ", path.display()));
        let plugged = self.exec(&["ip", "-o", "link", "show", "master", "podman0"]);
        other.processes.iter().all(|pid| self.is_alive(*pid))
            && mounted(&other.netns)
            && mounted(&other.mount)
            && plugged.is_ok_and(|links| links.contains("veth0"))
    }
}
