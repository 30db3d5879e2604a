//! Releasing a network namespace that only its mounts keep alive.

use std::collections::HashSet;
use std::path::Path;

use nodemend_evidence::Confirmed;
use nodemend_procns::NetnsId;
use nodemend_procns::release::{self, Room};

use crate::error::Error;
use crate::pair::VethPair;

/// Removes each file that the namespace of a confirmed pair is mounted on, and with it the mounts. The kernel then
/// ends the namespace, and the pair goes with it, some time later.
///
/// Each file goes in one step ([`Room::remove`]): a run that is killed leaves it whole or not at all. False if this
/// kernel cannot do that; then [`on_host`] can.
///
/// # Errors
/// At the first file that is not the namespace that was judged, or that cannot be released. Those before it are
/// released.
pub(crate) fn in_room(confirmed: &Confirmed<'_, VethPair>, room: &mut Room) -> Result<bool, Error> {
    for (path, netns) in files(confirmed.subject()) {
        if !room.remove(path, netns)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same from the host's own mount namespace, in two steps.
///
/// # Errors
/// As [`in_room`].
pub(crate) fn on_host(confirmed: &Confirmed<'_, VethPair>) -> Result<(), Error> {
    files(confirmed.subject()).try_for_each(|(path, netns)| Ok(release::on_host(path, netns)?))
}

/// Each file once. A path that is there twice has a copy of the mount hidden below another mount.
fn files(pair: &VethPair) -> impl Iterator<Item = (&Path, NetnsId)> {
    let mut done = HashSet::new();
    let paths = pair.mounts().filter(move |path| done.insert(path.to_path_buf()));
    paths.filter_map(|path| Some((path, pair.netns?)))
}
