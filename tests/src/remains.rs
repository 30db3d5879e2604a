//! Every trace of a sandbox on a node: what is left when nobody remembers it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::application::Application;
use crate::cgroups;
use crate::node::Node;
use crate::runtime::BUNDLES;
use crate::sandbox::{CNI_CACHE, Sandbox};

/// The traces of a sandbox, each in words. Empty when nothing is left of it.
pub type Remains = Vec<String>;

/// How the cgroup of a pod is named among the remains. Kubelet removes it when it is empty.
pub const POD_CGROUP: &str = "the pod's cgroup";

/// Where containerd keeps what a sandbox shares among its containers, below its state directory.
const SANDBOXES: &str = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes";

/// Where the runtime's runtime keeps its state.
const RUNC: &str = "/run/containerd/runc/k8s.io";

impl Node {
    /// What is left of a sandbox and its applications: processes, mounts, the network namespace, the link, cgroups, cache
    /// files, reservations, bundles, runc's state.
    pub fn remains(&self, sandbox: &Sandbox, applications: &[Application]) -> Remains {
        let mut ids = vec![sandbox.id.as_str()];
        ids.extend(applications.iter().map(|application| application.id.as_str()));
        let mut remains = self.processes_of(sandbox, &ids);
        let table = self.read("/proc/1/mountinfo").unwrap_or_default();
        let mounts = table.lines().filter_map(|line| line.split(' ').nth(4));
        remains.extend(
            mounts
                .filter(|mount| names(mount, &ids))
                .map(|mount| format!("mount {mount}")),
        );
        if self.path(&sandbox.netns).exists() {
            remains.push(format!("netns {}", sandbox.netns.display()));
        }
        let links = self.links().unwrap_or_default();
        if links.iter().any(|link| link.ifname == sandbox.host_veth) {
            remains.push(format!("link {}", sandbox.host_veth));
        }
        let roots = cgroups::directories(self.cgroup());
        let named = |name: &str| names(name, &ids);
        roots
            .iter()
            .for_each(|root| below(root, &named, "cgroup", &mut remains));
        let pod = format!("pod{}", sandbox.uid);
        let named = |name: &str| name == pod;
        roots
            .iter()
            .for_each(|root| below(root, &named, POD_CGROUP, &mut remains));
        for dir in [CNI_CACHE, BUNDLES, SANDBOXES, RUNC] {
            let left = self.names(dir).into_iter().filter(|name| names(name, &ids));
            remains.extend(left.map(|name| format!("{dir}/{name}")));
        }
        let reserved = self.reserved(&self.options.network);
        let still = sandbox.ips.iter().filter(|ip| reserved.contains(ip));
        remains.extend(still.map(|ip| format!("reservation {ip}")));
        remains
    }

    fn processes_of(&self, sandbox: &Sandbox, ids: &[&str]) -> Remains {
        let all = self.processes().into_iter().filter(|process| !process.zombie);
        let of_it = all.filter(|process| {
            let cgroup = self
                .read(format!("/proc/{}/cgroup", process.pid))
                .unwrap_or_default();
            names(&cgroup, ids) || process.is_shim_of(&sandbox.id)
        });
        of_it
            .map(|process| format!("process {} {}", process.pid, process.argv.join(" ")))
            .collect()
    }
}

fn names(text: &str, ids: &[&str]) -> bool {
    ids.iter().any(|id| text.contains(id))
}

fn below(dir: &Path, named: &dyn Fn(&str) -> bool, what: &str, found: &mut Remains) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for entry in directories {
        let path: PathBuf = entry.path();
        if named(&entry.file_name().to_string_lossy()) {
            found.push(format!("{what} {}", path.display()));
        }
        below(&path, named, what, found);
    }
}
