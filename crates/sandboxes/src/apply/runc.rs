//! What runc keeps of a container, where nobody had runc delete it: the bundle was gone, and so the shim's `delete` was
//! not called.

use std::time::Instant;

use nodemend_procns::cgroup::Cgroup;

use super::bundle::{real, remove_tree};
use super::process::{self, Target};
use super::steps::Steps;
use crate::error::Error;
use crate::sandbox::RuncState;

/// Removes the state of a container in which nothing runs any more. False if it was gone before.
pub(crate) fn remove_state(state: &RuncState, steps: Steps<'_, '_>) -> Result<bool, Error> {
    let Some(path) = real(&state.path) else {
        return Ok(false);
    };
    has_nobody(state)?;
    remove_tree(&path, Some(state.dir), steps)
}

/// Neither its first process, nor one in its cgroups. Those need not be named for the container, and so need not be among
/// the cgroups of the sandbox.
fn has_nobody(state: &RuncState) -> Result<(), Error> {
    let mut alive = Vec::new();
    if let Some((pid, start_time)) = state.init {
        alive.extend(Target::open(pid, start_time)?);
    }
    for path in &state.cgroups {
        if let Some(cgroup) = Cgroup::open(path)? {
            alive.extend(Target::in_cgroup(&cgroup, &[].into())?);
        }
    }
    let left = process::wait(alive, Instant::now());
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Running {
        reason: "runc's state of it stays, as this container runs",
        processes: process::said(&left),
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nodemend_hostfs::{FileId, StateDir};
    use nodemend_procns::standing;

    use super::super::steps::Log;
    use super::*;

    fn removed(state: &RuncState) -> Result<bool, Error> {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = StateDir::at(dir.path()).journal().unwrap();
        remove_state(state, Log::new(&mut journal).of("8f3a"))
    }

    fn kept(at: &tempfile::TempDir) -> RuncState {
        let path = at.path().join("8f3a");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("state.json"), "{}").unwrap();
        RuncState {
            dir: FileId::from(&rustix::fs::stat(&path).unwrap()),
            path,
            container: "8f3a".into(),
            init: None,
            cgroups: vec!["/sys/fs/cgroup/memory/no-such-cgroup/8f3a".into()],
        }
    }

    #[test]
    fn a_state_stays_while_its_first_process_runs() {
        let at = tempfile::tempdir().unwrap();
        let mut state = kept(&at);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let start_time = standing(child.id()).unwrap().unwrap().start_time;
        state.init = Some((child.id(), start_time));
        let error = removed(&state);
        child.kill().unwrap();
        child.wait().unwrap();
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {} (sleep)", child.id())),
            "{error}"
        );
        assert!(state.path.join("state.json").exists());
        assert!(removed(&state).unwrap() && !state.path.exists());
        assert!(!removed(&state).unwrap(), "it was gone before");
    }

    #[test]
    fn another_directory_of_the_same_name_stays() {
        let at = tempfile::tempdir().unwrap();
        let mut state = kept(&at);
        state.dir.ino += 1;
        assert!(matches!(removed(&state), Err(Error::NotTheSame { .. })));
        std::fs::rename(&state.path, at.path().join("aside")).unwrap();
        std::os::unix::fs::symlink("aside", &state.path).unwrap();
        removed(&state).unwrap_err();
        assert!(at.path().join("aside/state.json").exists());
    }
}
