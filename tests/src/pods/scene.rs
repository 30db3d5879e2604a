//! The node that most tests of pod directories begin with.

use std::path::PathBuf;

use crate::error::Result;
use crate::kubelet::{Kubelet, Phase, Pod, TOKEN};
use crate::node::Node;
use crate::options::Options;
use crate::pods::{PodDir, Store};
use crate::sandbox::Sandbox;
use crate::tool::engine_under_test;

/// A node with kubelet and a pod in every state in which its directory must stay. Each has volumes of every plugin.
pub struct PodScene {
    /// The node.
    pub node: Node,
    /// How its kubelet runs, to start it again.
    pub kubelet: Kubelet,
    /// Runs: in kubelet's list, with a sandbox.
    pub live: Pod,
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// Waits for its volumes: in kubelet's list, no sandbox yet.
    pub pending: Pod,
    /// Has ended, and is still in the list; its sandbox is stopped.
    pub completed: Pod,
    /// From a manifest: its directory has the hash for a name, and no sandbox was seen yet.
    pub static_pod: Pod,
    /// Where the data behind the mounts of all of them is, and their directories.
    pub kept: Vec<Store>,
    known: Vec<Pod>,
}

impl PodScene {
    /// On the engine under test, with a kubelet as usual.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be made.
    pub fn new() -> Result<PodScene> {
        PodScene::with(Kubelet::default())
    }

    /// With a kubelet of one's own.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be made.
    pub fn with(kubelet: Kubelet) -> Result<PodScene> {
        let node = Node::start(Options::on(engine_under_test()))?;
        node.kubelet_disk(96, None)?;
        node.start_kubelet(&kubelet)?;
        let sandbox = node.run_sandbox("live")?;
        let ended = node.run_sandbox("completed")?;
        node.stop_sandbox(&ended.id)?;
        let mut scene = PodScene {
            live: Pod::of(&sandbox),
            sandbox,
            pending: Pod::new("pending")?.in_phase(Phase::Pending),
            completed: Pod::of(&ended).in_phase(Phase::Succeeded),
            static_pod: Pod::of_manifest("etcd"),
            kept: Vec::new(),
            known: Vec::new(),
            node,
            kubelet,
        };
        let pods = [&scene.live, &scene.pending, &scene.completed, &scene.static_pod].map(Clone::clone);
        let mut kept = Vec::new();
        for pod in &pods {
            let mut dir = scene.node.pod_dir(pod)?;
            dir.furnish()?;
            kept.push(Store::Tree(dir.path.clone()));
            kept.append(&mut dir.stores);
        }
        scene.node.write_manifest(&scene.static_pod)?;
        scene.node.list_pods(&pods)?;
        scene.known = pods.to_vec();
        scene.kept = kept;
        Ok(scene)
    }

    /// A pod that is gone, known to nobody, with an empty directory to be filled.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn orphan(&self, name: &str) -> Result<PodDir<'_>> {
        self.node.pod_dir(&Pod::new(name)?)
    }

    /// The directories of the pods that must stay.
    pub fn must_stay(&self) -> Vec<PathBuf> {
        let dir = |pod: &Pod| PathBuf::from(crate::kubelet::PODS).join(&pod.uid);
        self.known.iter().map(dir).collect()
    }

    /// Tells kubelet of one more pod, as when a uid comes back.
    ///
    /// # Errors
    ///
    /// When its list cannot be written.
    pub fn also_known(&mut self, pod: &Pod) -> Result<()> {
        self.known.push(pod.clone());
        self.node.list_pods(&self.known)
    }

    /// Runs `mend-pods` with kubelet's token.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn mend(&self, flags: &str) -> Result<crate::tool::Ran> {
        self.node
            .mend(&format!("mend-pods --kubelet-token-file {TOKEN} {flags}"))
    }
}
