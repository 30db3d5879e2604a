//! The repair of one sandbox: what holds it goes before what it holds.

use nodemend_cni::Replay;
use nodemend_evidence::{Confirmed, Outcome, Subject};

use super::ending::{self, Asked};
use super::steps::{Log, Steps};
use super::{attachments, bundle, cgroups, mounts, netns, runc, runtime};
use crate::error::Error;
use crate::sandbox::{Sandbox, SandboxIdentity};

/// A repair that has begun: the DELs were replayed, and the application was asked to end.
pub(crate) struct Begun<'l> {
    proof: Confirmed<'l, Sandbox>,
    said: Said,
    asked: Result<Option<Asked>, Error>,
}

/// A repair that is over.
pub(crate) struct Repaired {
    pub(crate) sandbox: Sandbox,
    said: Said,
    failed: Option<Error>,
}

/// What was done, and what is to be known of it.
#[derive(Debug, Default)]
struct Said {
    done: Vec<String>,
    notes: Vec<String>,
}

impl Said {
    fn count(&mut self, count: usize, one: &str, many: &str) {
        match count {
            0 => {}
            1 => self.done.push(one.to_owned()),
            count => self.done.push(format!("{count} {many}")),
        }
    }
}

/// The first part, which needs the network of the sandbox. Nothing here waits for a process to end.
pub(crate) fn begin<'l>(proof: Confirmed<'l, Sandbox>, replay: &Replay, log: &Log<'_>) -> Begun<'l> {
    let mut said = Said::default();
    let asked = ask(&proof, replay, log.of(&proof.subject().id), &mut said);
    Begun { proof, said, asked }
}

fn ask(
    proof: &Confirmed<'_, Sandbox>,
    replay: &Replay,
    steps: Steps<'_, '_>,
    said: &mut Said,
) -> Result<Option<Asked>, Error> {
    let sandbox = proof.subject();
    if !sandbox.reap {
        ending::nobody(sandbox)?;
    }
    let detached = attachments::detach(proof, replay, steps)?;
    said.count(detached.done, "its DEL was repeated", "DELs were repeated");
    if !detached.failed.is_empty() {
        let failed = detached.failed.join("; ");
        said.notes
            .push(format!("{failed}; its addresses stay for mend-ipam"));
    }
    match sandbox.reap {
        true => ending::ask(sandbox, steps).map(Some),
        false => Ok(None),
    }
}

impl Begun<'_> {
    /// The second part: all else.
    pub(crate) fn finish(self, log: &Log<'_>) -> Repaired {
        let Self {
            proof,
            mut said,
            asked,
        } = self;
        let steps = log.of(&proof.subject().id);
        let failed = asked.and_then(|asked| clear(proof.subject(), asked, steps, &mut said));
        Repaired {
            sandbox: proof.subject().clone(),
            said,
            failed: failed.err(),
        }
    }

    /// A signal came between the parts.
    pub(crate) fn stop(self) -> Repaired {
        Repaired {
            sandbox: self.proof.subject().clone(),
            said: self.said,
            failed: Some(self.asked.err().unwrap_or(Error::Stopped)),
        }
    }
}

fn clear(
    sandbox: &Sandbox,
    asked: Option<Asked>,
    steps: Steps<'_, '_>,
    said: &mut Said,
) -> Result<(), Error> {
    if let Some(asked) = asked {
        let ended = ending::end(sandbox, asked, steps)?;
        said.count(
            ended.willing,
            "1 process ended when asked",
            "processes ended when asked",
        );
        said.count(ended.killed, "1 process was killed", "processes were killed");
    }
    ending::nobody(sandbox)?;
    let left = runtime::leave(sandbox, steps)?;
    said.notes.extend(left.notes);
    let unmounted = mounts::unmount_all(sandbox, steps)?;
    said.count(unmounted, "1 mount was unmounted", "mounts were unmounted");
    let released = netns::release_all(sandbox, steps)?;
    said.count(
        released,
        "its network namespace was released",
        "files of its network namespace were removed",
    );
    let removed = cgroups::remove_all(sandbox, steps)?;
    said.count(removed, "1 cgroup was removed", "cgroups were removed");
    let mut bundles = 0;
    for one in &sandbox.bundles {
        bundles += usize::from(bundle::remove_bundle(one, steps)?);
    }
    for work in &left.work {
        bundle::remove_work(work, steps)?;
    }
    said.count(bundles, "its bundle was removed", "bundles were removed");
    let mut states = 0;
    for state in &sandbox.runc_states {
        states += usize::from(runc::remove_state(state, steps)?);
    }
    said.count(
        states,
        "runc's state of it was removed",
        "states of runc were removed",
    );
    Ok(())
}

impl Repaired {
    pub(crate) fn is_done(&self) -> bool {
        self.failed.is_none()
    }

    pub(crate) fn note(&mut self, note: String) {
        self.said.notes.push(note);
    }

    pub(crate) fn outcome(self) -> (SandboxIdentity, Outcome) {
        let identity = self.sandbox.identity();
        let mut parts = self.said.done;
        if parts.is_empty() {
            parts.push("nothing of it was left".to_owned());
        }
        let mut detail = parts.join(", ");
        for note in self.said.notes {
            detail.push_str("; ");
            detail.push_str(&note);
        }
        let outcome = match self.failed {
            None => Outcome::Mended(detail),
            Some(error) => Outcome::Failed(format!("{error}. Before that: {detail}")),
        };
        (identity, outcome)
    }
}
