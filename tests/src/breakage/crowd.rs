//! Many namespaces at a low price, for measurements.

use std::fmt::Write;
use std::path::PathBuf;

use crate::error::Result;
use crate::network::BRIDGE;
use crate::node::Node;

/// What [`Node::crowd`] is to make.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// How many namespaces, each with a veth pair to the bridge.
    pub count: u32,
    /// Whether a process is in each.
    pub processes: bool,
}

impl Node {
    /// Makes network namespaces as a runtime names and mounts them, each with its veth pair, without a runtime. Their files.
    ///
    /// They have no addresses, reservations or cache. A second call makes others.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn crowd(&self, crowd: Crowd) -> Result<Vec<PathBuf>> {
        let first = self.names("/run/netns").len();
        let names: Vec<String> = (0..crowd.count)
            .map(|n| format!("cni-{first:08x}-0000-4000-8000-{n:012x}"))
            .collect();
        let mut batch = String::new();
        for (n, name) in names.iter().enumerate() {
            let veth = format!("veth{:08x}", (first << 16) + n);
            let _ = writeln!(batch, "netns add {name}");
            let _ = writeln!(batch, "link add {veth} type veth peer name eth0 netns {name}");
            let _ = writeln!(batch, "link set {veth} master {BRIDGE} up");
        }
        self.write("/run/lab/crowd", &batch)?;
        self.ensure_bridge()?;
        self.exec(&["ip", "-batch", "/run/lab/crowd"])?;
        let files: Vec<PathBuf> = names
            .iter()
            .map(|name| PathBuf::from("/run/netns").join(name))
            .collect();
        if crowd.processes {
            self.populate(&files)?;
        }
        Ok(files)
    }

    fn populate(&self, netns: &[PathBuf]) -> Result<()> {
        let mut script = String::new();
        for file in netns {
            let _ = writeln!(
                script,
                "nsenter --net={} setsid --fork sleep infinity </dev/null >/dev/null 2>&1",
                file.display()
            );
        }
        // Too long for a command line.
        self.write("/run/lab/populate", &script)?;
        self.exec(&["sh", "-e", "/run/lab/populate"]).map(drop)
    }
}
