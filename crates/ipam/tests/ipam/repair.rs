//! A whole repair: two looks, the lock, the third look, the removal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nodemend_cni::Replay;
use nodemend_evidence::{Outcome, Plan};
use nodemend_hostfs::{Host, StateDir};
use nodemend_ipam::{Error, Policy, Reservation, Survey, Tools, apply};

use crate::node::Node;

pub(crate) struct Bench {
    pub(crate) node: Node,
    pub(crate) state: StateDir,
    pub(crate) replay: Replay,
    pub(crate) stop: AtomicBool,
    pub(crate) policy: Policy,
}

/// What became of each file.
pub(crate) type Done = BTreeMap<String, Outcome>;

impl Bench {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        fs::create_dir(node.path("bin")).unwrap();
        let replay = Replay {
            bin_dirs: vec![node.path("bin")],
            deadline: Duration::from_secs(10),
        };
        let state = StateDir::at(node.path("state"));
        Self {
            node,
            state,
            replay,
            stop: AtomicBool::new(false),
            policy: Policy::default(),
        }
    }

    /// Makes a plugin that is a shell script. `$PODS` is the directory of the network.
    pub(crate) fn plugin(&self, name: &str, script: &str) {
        let path = self.node.path("bin").join(name);
        let text = format!("#!/bin/sh\nPODS='{}'\n{script}\n", self.node.pods().display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Plans, changes the node, and carries the plan out.
    pub(crate) fn run(&self, between: impl FnOnce(&Node), third: impl FnOnce(&mut Survey)) -> Done {
        let plan = self.node.plan_with(&self.policy, |_| {});
        between(&self.node);
        self.carry_out(plan, "run-1", third).unwrap()
    }

    pub(crate) fn repair(&self) -> Done {
        self.run(|_| {}, |_| {})
    }

    pub(crate) fn carry_out(
        &self,
        plan: Plan<Reservation>,
        run: &str,
        third: impl FnOnce(&mut Survey),
    ) -> Result<Done, Error> {
        let lock = self.state.lock().unwrap();
        let mut again = self.node.look();
        third(&mut again);
        let tools = Tools {
            state: &self.state,
            run,
            host: &Host::local(),
            replay: &self.replay,
            journal: &mut self.state.journal().unwrap(),
            stop: &self.stop,
            progress: &mut |_| {},
        };
        let outcomes = apply(plan.into_orphans(), &lock, &again, &self.policy, tools)?;
        Ok(outcomes
            .into_iter()
            .map(|(identity, outcome)| (identity.file.to_string(), outcome))
            .collect())
    }

    /// What was written down before the actions.
    pub(crate) fn journal(&self) -> String {
        fs::read_to_string(self.state.path().join("journal.jsonl")).unwrap()
    }
}

/// Fails unless the file was freed in that way.
pub(crate) fn mended(done: &Done, file: &str, how: &str) {
    assert!(
        matches!(&done[file], Outcome::Mended(detail) if detail.contains(how)),
        "{file}: {:?}",
        done[file]
    );
}

/// Fails unless the attempt failed for that reason.
pub(crate) fn failed(done: &Done, file: &str, why: &str) {
    assert!(
        matches!(&done[file], Outcome::Failed(detail) if detail.contains(why)),
        "{file}: {:?}",
        done[file]
    );
}
