//! Releasing the network namespace of a sandbox.

use nodemend_hostfs::FileId;
use nodemend_procns::release::release;
use nodemend_procns::residents;

use super::place::Place;
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::{Network, Sandbox};

/// Removes the files that the namespace is mounted on, if nobody lives in it. Gives how many were removed.
pub(crate) fn release_all(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<usize, Error> {
    let Some(network) = &sandbox.network else {
        return Ok(0);
    };
    let mut done = 0;
    for path in &network.paths {
        let there = match Place::of(path)? {
            Some(place) => place.stat()?,
            None => None,
        };
        // Gone with a DEL of another kind, or by the runtime. What else stands there now is refused by the release.
        if there.is_none() {
            continue;
        }
        nobody_lives_in(network)?;
        steps.write(Step::ReleaseNetns {
            path,
            netns: network.netns,
        })?;
        release(path, network.netns)?;
        done += 1;
    }
    Ok(done)
}

fn nobody_lives_in(network: &Network) -> Result<(), Error> {
    let own = rustix::fs::stat("/proc/self/ns/net");
    let own = own.map_err(Error::io("stat", "/proc/self/ns/net".as_ref()))?;
    let living = residents(network.netns)?;
    if FileId::from(&own) == network.netns || !living.is_empty() {
        let pids: Vec<String> = living.iter().take(5).map(u32::to_string).collect();
        return Err(Error::Running {
            reason: "somebody lives in its network namespace, which was kept",
            processes: format!("process {}", pids.join(", ")),
        });
    }
    Ok(())
}
