//! Whether the empty answer of a containerd is good for a sandbox: the incident itself.
//!
//! After a wipe containerd lists nothing while shims run, and nobody can know by that alone whether it lost its records
//! or merely does not show them. But a record cannot be older than the database that it is in. So if the database was
//! made after the sandbox began, the sandbox has no record there, whatever the answer is; and the answer says that there
//! is none either.

use std::path::Path;

use nodemend_evidence::Claim;
use nodemend_hostfs::Spoken;
use nodemend_runtime::Made;

use crate::assemble::Subject;
use crate::ids::in_run;
use crate::judge::Policy;
use crate::scene::Scene;

/// How much younger the database must be, in seconds: the start of a process is counted since boot and the birth of a
/// file by the wall clock, which is set now and then by a little.
const MARGIN: u64 = 10;

/// What the database of a containerd says of a sandbox.
pub(crate) enum Proof {
    /// It was made after the sandbox began: it can hold no record of it.
    Younger(String),
    /// It was there when the sandbox began, or may have been.
    Older(String),
    /// Nobody can tell. The operator may know.
    Untold(String),
    /// It is no containerd, so its records are elsewhere.
    Another,
}

/// Compares the database of the containerd at a socket with the oldest sign of a sandbox.
pub(crate) fn proof(scene: &Scene<'_>, subject: &Subject<'_>, socket: &Path) -> Proof {
    if !scene.containerds.contains(&in_run(socket)) {
        return Proof::Another;
    }
    let mut files = scene.survey.metadata.iter();
    let Some(file) = files.find(|file| file.socket == socket) else {
        return Proof::Untold("nobody looked when its metadata was made".to_owned());
    };
    let (path, made) = match &file.made {
        Made::At { path, unix } => (path, *unix),
        Made::Untold { reason } => {
            return Proof::Untold(format!("nobody can tell when its metadata was made: {reason}"));
        }
    };
    let now = scene.survey.moment.unix;
    if made > now + MARGIN {
        return Proof::Untold(format!(
            "{}: it was made in the future, by the clock of today",
            path.display()
        ));
    }
    let Some(since) = subject.since else {
        return Proof::Untold("nothing tells when this sandbox began".to_owned());
    };
    let ago = Spoken(now.saturating_sub(made));
    if made > since + MARGIN {
        let later = Spoken(made - since);
        return Proof::Younger(format!(
            "made {ago} ago, {later} after this sandbox began: no record of it can be in it"
        ));
    }
    if made + MARGIN < since {
        return Proof::Older(format!(
            "made {ago} ago, before this sandbox began: a record of it may have been in it"
        ));
    }
    Proof::Untold(format!(
        "made {ago} ago, within {} of when this sandbox began: too close for the clocks to tell",
        Spoken(MARGIN)
    ))
}

impl Proof {
    /// What becomes of an empty answer that is not believed, because of `reason`.
    pub(crate) fn turn(&self, policy: &Policy, reason: &str) -> Claim {
        match self {
            Self::Younger(_) => {
                Claim::absent("it lists nothing, and its metadata is younger than this sandbox")
            }
            Self::Untold(_) if policy.records_lost => {
                Claim::absent(format!("believed for --records-lost, though {reason}"))
            }
            Self::Untold(_) => Claim::unknown(format!(
                "{reason}; if its root was wiped, say so with --records-lost"
            )),
            Self::Older(_) | Self::Another => Claim::unknown(reason),
        }
    }

    /// What the reader is told of the database.
    pub(crate) fn claim(self) -> Claim {
        match self {
            Self::Younger(words) => Claim::absent(words),
            Self::Older(words) | Self::Untold(words) => Claim::unknown(words),
            Self::Another => Claim::unknown("it is no containerd's, so it has none that could be looked at"),
        }
    }
}
