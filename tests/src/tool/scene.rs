//! The node that most tests of the tools begin with.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::node::Node;
use crate::options::{Engine, Options};
use crate::sandbox::Sandbox;

/// A node after the incident: its runtime has lost its records, the pods of before are dead, and pods of after run.
pub struct Scene {
    /// The node.
    pub node: Node,
    /// Pods that run, and that the runtime knows.
    pub live: Vec<Sandbox>,
    /// Sandboxes that nobody knows, without processes: mounts keep their namespaces.
    pub dead: Vec<Sandbox>,
}

impl Scene {
    /// With so many pods that live, and so many that are left over. Without any of those nothing has happened to it.
    ///
    /// # Errors
    ///
    /// When the node cannot be made or broken.
    pub fn new(live: usize, dead: usize) -> Result<Scene> {
        Scene::on(Options::on(engine_under_test()), live, dead)
    }

    /// The same, on a node made otherwise.
    ///
    /// # Errors
    ///
    /// When the node cannot be made or broken.
    pub fn on(options: Options, live: usize, dead: usize) -> Result<Scene> {
        let node = Node::start(options)?;
        let dead = node.run_sandboxes(dead)?;
        if !dead.is_empty() {
            node.wipe_metadata()?;
            node.end_processes(&dead)?;
        }
        let live = (0..live)
            .map(|n| node.run_sandbox(&format!("live-{n}")))
            .collect::<Result<_>>()?;
        Ok(Scene { node, live, dead })
    }

    /// The links of the dead, sorted.
    pub fn dead_veths(&self) -> Vec<String> {
        veths(&self.dead)
    }

    /// The links of the living, sorted.
    pub fn live_veths(&self) -> Vec<String> {
        veths(&self.live)
    }
}

fn veths(sandboxes: &[Sandbox]) -> Vec<String> {
    let mut names: Vec<String> = sandboxes
        .iter()
        .map(|sandbox| sandbox.host_veth.clone())
        .collect();
    names.sort();
    names
}

/// The best engine of this machine, unless `NODEMEND_LAB_ENGINE` names one.
pub fn engine_under_test() -> Engine {
    let asked = std::env::var("NODEMEND_LAB_ENGINE").unwrap_or_default();
    let known = [Engine::Containerd, Engine::StandIn]
        .into_iter()
        .find(|engine| engine.name() == asked);
    known.unwrap_or_else(Engine::best)
}

/// Kills the pause of a sandbox, and waits until the runtime says NotReady and has let its shim go.
///
/// # Errors
///
/// [`LabError::Timeout`] when it does not.
pub fn not_ready(node: &Node, pod: &Sandbox) -> Result<()> {
    node.kill_pause(pod)?;
    soon("a sandbox that is not ready", || {
        let listed = node.list_sandboxes().unwrap_or_default();
        listed.contains(&(pod.id.clone(), false)) && node.shims(pod).is_empty()
    })
}

/// Waits for something to become true.
///
/// # Errors
///
/// [`LabError::Timeout`] when it does not.
pub fn soon(what: &str, mut test: impl FnMut() -> bool) -> Result<()> {
    let limit = Duration::from_secs(20);
    let end = Instant::now() + limit;
    while !test() {
        if Instant::now() > end {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                seconds: limit.as_secs(),
                detail: String::new(),
            });
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
