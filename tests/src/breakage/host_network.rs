//! A pod that has no network of its own.

use k8s_cri::v1;

use crate::error::Result;
use crate::node::Node;

impl Node {
    /// Runs a sandbox on the node's own network; its id. It has no veth pair and no address.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn run_on_host_network(&self, name: &str) -> Result<String> {
        let mut config = self.pod_config(name)?;
        // Its name is the node's.
        config.hostname.clear();
        let options = config
            .linux
            .as_mut()
            .and_then(|linux| linux.security_context.as_mut())
            .and_then(|security| security.namespace_options.as_mut());
        if let Some(options) = options {
            options.network = v1::NamespaceMode::Node.into();
        }
        self.cri().run(config)
    }
}
