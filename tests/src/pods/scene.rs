//! The node that most tests of pod directories begin with.

use std::path::PathBuf;

use crate::error::{LabError, Result};
use crate::kubelet::{Kubelet, Phase, Pod};
use crate::node::Node;
use crate::options::Options;
use crate::pods::{Bytes, Mounted, PodDir, Store};
use crate::sandbox::Sandbox;
use crate::tool::{Ran, engine_under_test};

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

    /// The pods in kubelet's list.
    pub fn known(&self) -> Vec<Pod> {
        self.known.clone()
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

    /// Runs `mend-pods` with kubelet's token, and believes a kubelet that has just come up.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn mend(&self, flags: &str) -> Result<Ran> {
        // One that hangs is a failed test, and no test without an end.
        self.node
            .mend(&format!("timeout --signal KILL 120 {} {flags}", PodScene::TOOL))
    }

    /// The command line of [`PodScene::mend`], for those who run it through something else.
    pub const TOOL: &str = "mend-pods --kubelet-token-file /run/lab/kubelet/token --kubelet-settled 0s";

    /// What is mounted in the directories of the pods that must stay.
    ///
    /// # Errors
    ///
    /// When the table cannot be read.
    pub fn mounts_of_the_kept(&self) -> Result<Vec<Mounted>> {
        let kept = self.must_stay();
        let mut mounts = self.node.mounts()?;
        mounts.retain(|mount| kept.iter().any(|dir| mount.at.starts_with(dir)));
        Ok(mounts)
    }

    /// Everything of the pods that must stay, and the data behind some mounts.
    ///
    /// # Errors
    ///
    /// When something cannot be read.
    pub fn seen(&self, also: &[Store]) -> Result<Seen> {
        let stores = [self.kept.as_slice(), also].concat();
        Ok(Seen {
            bytes: self.node.bytes(&stores)?,
            mounts: self.mounts_of_the_kept()?,
            stores,
        })
    }

    /// All of that must be as it was: directories, mounts, and every byte behind every mount.
    ///
    /// # Errors
    ///
    /// With every difference.
    pub fn same(&self, before: &Seen) -> Result<()> {
        self.node.same_bytes(&before.stores, &before.bytes)?;
        let mounts = self.mounts_of_the_kept()?;
        if mounts == before.mounts {
            return Ok(());
        }
        Err(LabError::Odd(format!(
            "{} mounts of live pods became {}",
            before.mounts.len(),
            mounts.len()
        )))
    }
}

/// What [`PodScene::same`] compares.
#[derive(Debug)]
pub struct Seen {
    stores: Vec<Store>,
    bytes: Bytes,
    mounts: Vec<Mounted>,
}
