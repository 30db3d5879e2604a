//! Which containerd a sandbox is of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nodemend_evidence::Claim;
use nodemend_runtime::Keeper;

use crate::assemble::Subject;
use crate::ids::in_run;
use crate::scene::Scene;

/// Programs that make sandboxes and keep records of their own.
const OTHER_RUNTIMES: [&str; 2] = ["dockerd", "crio"];

/// It must be of a containerd that was asked, and of one only: another one has other records.
pub(super) fn keeper(scene: &Scene<'_>, subject: &Subject<'_>) -> Claim {
    let of = match keepers(scene, subject) {
        Ok(of) => of,
        Err(reason) => return Claim::unknown(reason),
    };
    if scene.containerds.is_empty() {
        return Claim::unknown("no containerd was asked");
    }
    let mut of = of.into_iter();
    match (of.next(), of.next()) {
        (Some(one), Some(other)) => Claim::unknown(format!(
            "it has parts of two containerds ({} and {}), under the same id",
            one.display(),
            other.display()
        )),
        (Some(one), None) => Claim::absent(format!("{}, which was asked", one.display())),
        (None, _) => unkept(scene),
    }
}

/// The sockets of the containerds that its parts name, all of which were asked; else why that cannot be said.
fn keepers(scene: &Scene<'_>, subject: &Subject<'_>) -> Result<BTreeSet<PathBuf>, String> {
    let traces = &subject.traces;
    let mut of: BTreeSet<PathBuf> = traces.tasks.iter().map(|(socket, _)| in_run(socket)).collect();
    for shim in &traces.shims {
        let Keeper::Containerd { address, .. } = &shim.keeper else {
            continue;
        };
        let Some(address) = address else {
            return Err(format!(
                "its shim (pid {}) does not say which containerd started it",
                shim.pid
            ));
        };
        if !scene.containerds.contains(&in_run(address)) {
            return Err(not_asked("its shim was started by the containerd at", address));
        }
        of.insert(in_run(address));
    }
    for state in &traces.state_dirs {
        match beside(scene, state) {
            Some(socket) => of.insert(socket),
            None => {
                return Err(not_asked(
                    "its files lie in the state directory of the containerd at",
                    state,
                ));
            }
        };
    }
    Ok(of)
}

/// The containerd that it is of, if that is not the one at a socket: a record lies in the containerd that made the shim.
pub(super) fn of_another(scene: &Scene<'_>, subject: &Subject<'_>, socket: &Path) -> Option<PathBuf> {
    let socket = in_run(socket);
    let mut of = keepers(scene, subject).ok()?.into_iter();
    let (Some(only), None) = (of.next(), of.next()) else {
        return None;
    };
    (only != socket && scene.containerds.contains(&socket)).then_some(only)
}

fn not_asked(what: &str, at: &Path) -> String {
    format!(
        "{what} {}, which was not asked; name its socket with --runtime-endpoint",
        at.display()
    )
}

/// The containerd that listens in its state directory, or in the one above it (microk8s).
fn beside(scene: &Scene<'_>, state: &Path) -> Option<PathBuf> {
    let is_there = |socket: &&PathBuf| {
        let dir = socket.parent().unwrap_or(Path::new("/"));
        state == dir || state == dir.join("containerd")
    };
    scene.containerds.iter().find(is_there).cloned()
}

/// Without a shim, a bundle, a state of runc, a task or a mount nothing says whose it was: it may be anybody's who runs on this node.
fn unkept(scene: &Scene<'_>) -> Claim {
    let mut processes = scene.survey.census.processes.iter();
    match processes.find(|process| OTHER_RUNTIMES.contains(&process.comm.as_str())) {
        Some(other) => Claim::unknown(format!(
            "nothing of it says which runtime made it, and {} (pid {}) runs here",
            other.comm, other.pid
        )),
        None => Claim::absent("every containerd that was found was asked"),
    }
}
