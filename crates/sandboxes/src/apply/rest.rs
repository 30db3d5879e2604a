//! What is seen only when all repairs are over: links that the kernel still removes, mounts in other mount namespaces.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nodemend_hostfs::{Host, mountinfo};
use nodemend_procns::{Census, mount_tables};
use nodemend_rtnl::blocking::host_links;

use super::repair::Repaired;
use crate::error::Error;

/// How long the kernel gets to end the released namespaces. It took 1 s for 900 on two cores.
const ENDING: Duration = Duration::from_secs(10);

/// Adds to each repair what stays of its sandbox although nobody could see it before.
pub(crate) fn name(repaired: &mut [Repaired], census: &Census) {
    if let Err(error) = links(repaired) {
        everyone(
            repaired,
            &format!("whether its veth is gone cannot be told: {error}"),
        );
    }
    if let Err(error) = mounts(repaired, census) {
        everyone(
            repaired,
            &format!("other mount namespaces could not be looked at: {error}"),
        );
    }
}

fn everyone(repaired: &mut [Repaired], note: &str) {
    repaired.iter_mut().for_each(|one| one.note(note.to_owned()));
}

/// Waits for the kernel to remove the pairs of released namespaces.
fn links(repaired: &mut [Repaired]) -> Result<(), Error> {
    let until = Instant::now() + ENDING;
    let mut pause = Duration::from_millis(2);
    loop {
        let there: HashSet<String> = host_links()?.into_iter().map(|link| link.name).collect();
        let stays = |one: &Repaired| {
            let veths = one.sandbox.network.iter().flat_map(|network| &network.veths);
            let names: Vec<&str> = veths
                .filter(|veth| there.contains(*veth))
                .map(String::as_str)
                .collect();
            (one.is_done() && !names.is_empty()).then(|| names.join(", "))
        };
        if !repaired.iter().any(|one| stays(one).is_some()) {
            return Ok(());
        }
        if Instant::now() > until {
            for one in repaired {
                if let Some(names) = stays(one) {
                    one.note(format!(
                        "{names} is still there: something holds its namespace; see mend-veth"
                    ));
                }
            }
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Names mounts of the sandboxes that are left in other mount namespaces: they go with those.
fn mounts(repaired: &mut [Repaired], census: &Census) -> Result<(), Error> {
    let mut wanted: HashMap<PathBuf, usize> = HashMap::new();
    for (at, one) in repaired.iter().enumerate() {
        wanted.extend(
            one.sandbox
                .mounts
                .iter()
                .map(|mount| (mount.mountpoint.clone(), at)),
        );
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let select = move |viewer: &nodemend_procns::Viewer, table: &[u8]| {
        if viewer.pid.is_none() {
            return Ok(Vec::new());
        }
        let mut seen = Vec::new();
        for mount in mountinfo::rows(table) {
            let mount = mount.map_err(|error| error.to_string())?;
            if let Some(at) = wanted.get(&mount.mountpoint) {
                seen.push((*at, mount.mountpoint));
            }
        }
        Ok(seen)
    };
    let tables = mount_tables(&Host::local(), census, select)?;
    for (viewer, seen) in tables.read {
        for (at, path) in seen {
            if let (Some(one), Some(pid)) = (repaired.get_mut(at), viewer.pid) {
                let (path, comm) = (path.display(), &viewer.comm);
                one.note(format!(
                    "{path} is still mounted for process {pid} ({comm}) and those with it"
                ));
            }
        }
    }
    Ok(())
}
