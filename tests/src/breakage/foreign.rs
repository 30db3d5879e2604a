//! What looks like a pod's and is somebody else's: a tool that touches one of these is wrong.

use crate::error::Result;
use crate::network::BRIDGE;
use crate::node::Node;

/// One line each: what it is, and the commands that make it.
const MAKE: &str = "
# Another runtime's container, on its own bridge, with the namespace mounted where that runtime keeps them.
ip link add docker0 type bridge
ip link set docker0 up
mkdir -p /run/docker/netns
touch /run/docker/netns/0123456789ab
unshare --net=/run/docker/netns/0123456789ab true
ip link add veth1234567 type veth peer name eth0 netns /run/docker/netns/0123456789ab
ip link set veth1234567 master docker0 up
# An operator's namespace by `ip netns`, plugged into the pods' bridge.
ip netns add probe
ip link add veth-probe type veth peer name eth0 netns probe
ip link set veth-probe master BRIDGE up
# A pair with both ends on the node, named as a CNI plugin names them.
ip link add veth0badcafe type veth peer name veth1badcafe
ip link set veth0badcafe master BRIDGE up
ip link set veth1badcafe up
# A port of the pods' bridge that is no veth at all: a virtual machine's. Not every kernel has every kind.
ip tuntap add vm-port mode tap 2>/dev/null || ip link add vm-port type dummy 2>/dev/null || ip link add vm-port type ifb
ip link set vm-port master BRIDGE up
";

impl Node {
    /// Makes links that are not the pods': of docker, of an operator, a pair with both ends here, a port that is no veth. Their names.
    ///
    /// # Errors
    ///
    /// When `ip` fails, as on a second call.
    pub fn foreign_links(&self) -> Result<Vec<&'static str>> {
        self.ensure_bridge()?;
        self.shell(&MAKE.replace("BRIDGE", BRIDGE))?;
        Ok(vec![
            "docker0",
            "veth1234567",
            "veth-probe",
            "veth0badcafe",
            "veth1badcafe",
            "vm-port",
        ])
    }

    /// The bridge is made by the first pod otherwise.
    pub(crate) fn ensure_bridge(&self) -> Result<()> {
        let make = format!("ip link add {BRIDGE} type bridge; ip link set {BRIDGE} up");
        self.shell(&format!("ip link show {BRIDGE} >/dev/null 2>&1 || {{ {make}; }}"))
            .map(drop)
    }
}
