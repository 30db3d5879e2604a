//! How a node is to be made.

use std::path::PathBuf;

/// What runs the node's sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The machine's containerd, runc and CNI plugins: a real runtime. Needs root.
    Containerd,
    /// The lab's own CRI server: processes as containers, real kernel objects, real files. Works for an ordinary user.
    StandIn,
}

impl Engine {
    /// The truest engine that this machine and this user can run.
    pub fn best() -> Engine {
        let has = |name| crate::tools::find(name).is_some();
        let programs = ["containerd", "runc", "ctr"].into_iter().all(has);
        if nix::unistd::geteuid().is_root() && programs && crate::tools::cni_plugins().is_some() {
            Engine::Containerd
        } else {
            Engine::StandIn
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Containerd => "containerd",
            Engine::StandIn => "stand-in",
        }
    }
}

/// The choices of [`Node::start`](crate::Node::start). The default is the node of the incident: flannel's network name and a /25.
#[derive(Clone, Debug)]
pub struct Options {
    /// What runs the sandboxes.
    pub engine: Engine,
    /// The ranges of the pod network, one address of each for every pod. Two of different families make a dual-stack node.
    pub subnets: Vec<String>,
    /// Where host-local keeps its reservations, if not in `/var/lib/cni/networks`.
    pub data_dir: Option<PathBuf>,
    /// The network's name, which is also the directory of its reservations.
    pub network: String,
    /// Whether the bridge plugin masquerades (it then leaves iptables chains behind).
    pub ip_masq: bool,
    /// Whether `portmap` is chained after the bridge.
    pub portmap: bool,
    /// Whether to use the lab's own `bridge` although the machine has CNI plugins. Only for the stand-in.
    pub own_bridge: bool,
    /// Whether the lab's own plugin is chained last. Without it a failed DEL and an ADD in flight cannot be made.
    pub hook: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            engine: Engine::best(),
            subnets: vec!["10.88.0.0/25".to_owned()],
            data_dir: None,
            network: "cbr0".to_owned(),
            ip_masq: false,
            portmap: false,
            own_bridge: false,
            hook: true,
        }
    }
}

impl Options {
    /// The default node on the given engine.
    pub fn on(engine: Engine) -> Self {
        Options {
            engine,
            ..Options::default()
        }
    }

    /// Adds an IPv6 range.
    pub fn dual_stack(mut self) -> Self {
        self.subnets.push("fd00:88::/112".to_owned());
        self
    }
}
