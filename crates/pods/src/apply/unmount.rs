//! Unmounting what is in a pod directory: never lazily, never by force.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::deadline::within;
use super::holders;
use super::steps::{Step, Steps};
use super::tables::{Home, Near, Tables};
use super::work::Work;
use crate::error::Error;
use crate::held::Held;
use crate::pod::PodDir;
use crate::uid::Uid;

/// How long one unmount may take. kubelet's own has two minutes; a dead file server takes for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often the table is read again while mounts that were there from the beginning are still there.
const ROUNDS: usize = 8;

/// Unmounts what is in a pod directory and was there when it was judged: what was mounted last goes first. Adds to `done`
/// what is unmounted.
pub(crate) fn once(
    dir: &PodDir,
    judged: &[Near],
    work: &mut Work<'_, '_>,
    done: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    work.look().map_err(said)?;
    let ours = judged_ones(&dir.uid, work.tables().map_err(said)?, judged)?;
    let mut steps = Steps {
        journal: work.tools.journal,
        run: work.tools.run,
        uid: dir.uid.clone(),
    };
    for near in deepest_first(ours) {
        one(&near, &mut steps, &mut work.hung, done)?;
    }
    Ok(())
}

/// What is mounted of a pod here; an error if it was not when it was judged.
fn judged_ones(uid: &Uid, tables: &Tables, judged: &[Near]) -> Result<Vec<Near>, String> {
    let ours: Vec<Near> = tables.ours(uid.as_str()).cloned().collect();
    let known: HashSet<u64> = judged.iter().map(|near| near.mount.id).collect();
    if let Some(new) = ours.iter().find(|near| !known.contains(&near.mount.id)) {
        let place = new.mount.mountpoint.display();
        return Err(format!(
            "{place} was mounted while this run was at work: somebody uses the pod"
        ));
    }
    Ok(ours)
}

/// Unmounts what is mounted on a name that lies outside of the pod directory, as [`once`] and [`rest`] do inside.
pub(crate) fn outside(
    uid: &Uid,
    home: &Home,
    judged: &[Near],
    steps: &mut Steps<'_>,
    hung: &mut HashSet<(u32, u32)>,
) -> Result<(), String> {
    for _ in 0..ROUNDS {
        let tables = Tables::take(home).map_err(|error| error.to_string())?;
        let ours = judged_ones(uid, &tables, judged)?;
        if ours.is_empty() {
            return nothing_left(uid.as_str(), &tables);
        }
        for near in deepest_first(ours) {
            one(&near, steps, hung, &mut Vec::new())?;
        }
    }
    Err(still_mounted())
}

fn still_mounted() -> String {
    format!("after {ROUNDS} rounds something is still mounted in it")
}

/// Unmounts what is left after [`once`], which ended at that moment, and ends with a look at all mount namespaces, which must
/// show none.
pub(crate) fn rest(
    dir: &PodDir,
    judged: &[Near],
    since: Instant,
    work: &mut Work<'_, '_>,
    done: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    work.look_since(since).map_err(said)?;
    for _ in 1..ROUNDS {
        let tables = work.tables().map_err(said)?;
        if tables.ours(dir.uid.as_str()).next().is_none() {
            return nothing_left(dir.uid.as_str(), tables);
        }
        once(dir, judged, work, done)?;
        work.look_again().map_err(said)?;
    }
    Err(still_mounted())
}

/// The table has them in the order in which they were mounted; a child that was moved there is older than its parent.
fn deepest_first(mut ours: Vec<Near>) -> Vec<Near> {
    let mut order = Vec::with_capacity(ours.len());
    while !ours.is_empty() {
        let parents: HashSet<u64> = ours.iter().map(|near| near.mount.parent).collect();
        let (stay, mut leaves): (Vec<Near>, Vec<Near>) = ours
            .into_iter()
            .partition(|near| parents.contains(&near.mount.id));
        leaves.reverse();
        if leaves.is_empty() {
            // No table has a circle; what cannot be sorted is tried as it stands.
            order.extend(stay);
            break;
        }
        order.append(&mut leaves);
        ours = stay;
    }
    order
}

fn nothing_left(uid: &str, tables: &Tables) -> Result<(), String> {
    if let Some(unread) = tables.unread.first() {
        return Err(format!("not every mount table can be read: {unread}"));
    }
    match tables.of(uid).first() {
        None => Ok(()),
        Some(near) => Err(format!("unmounted here, but {}", seen(near))),
    }
}

/// Where a mount is seen, in words.
pub(crate) fn seen(near: &Near) -> String {
    let place = near.mount.mountpoint.display();
    let what = match near.tie {
        crate::mount::Tie::In => "is mounted",
        crate::mount::Tie::From => "is something of it, mounted",
    };
    match &near.seer {
        None => format!("{place} {what} here"),
        Some(seer) => format!(
            "{place} {what} in the mount namespace {} of process {} ({})",
            seer.namespace, seer.pid, seer.comm
        ),
    }
}

fn one(
    near: &Near,
    steps: &mut Steps<'_>,
    hung: &mut HashSet<(u32, u32)>,
    done: &mut Vec<PathBuf>,
) -> Result<(), String> {
    let place = near.mount.mountpoint.clone();
    if hung.contains(&near.mount.dev) {
        return Err(format!(
            "{}: not unmounted, since an unmount of the same file system did not end",
            place.display()
        ));
    }
    steps
        .write(Step::Unmount { mount: &near.mount })
        .map_err(|error| error.to_string())?;
    let path = place.clone();
    let ended = within(PATIENCE, move || unmount(&path)).map_err(|error| error.to_string())?;
    match ended {
        Some(Ok(true)) => done.push(place),
        // It is not there, or not any more: kubelet is at work too, and the table will tell.
        Some(Ok(false)) => {}
        Some(Err(Error::Io { source, .. })) if is_busy(&source) => {
            let id = near.mount.id;
            return Err(format!(
                "{}: busy: {}",
                place.display(),
                holders::of(&place, Some(id))
            ));
        }
        Some(Err(error)) => return Err(error.to_string()),
        None => {
            hung.insert(near.mount.dev);
            return Err(format!(
                "{}: its unmount did not end within {} s ({} {}): its server does not answer",
                place.display(),
                PATIENCE.as_secs(),
                near.mount.fstype,
                near.mount.source.display()
            ));
        }
    }
    Ok(())
}

fn is_busy(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

/// Unmounts what was mounted last on a path. The way there is walked name by name, so a symlink that somebody put there
/// leads nowhere. False if nothing is mounted there.
fn unmount(path: &Path) -> Result<bool, Error> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let Some(above) = Held::open(above)? else {
        return Ok(false);
    };
    let mut place = OsString::from(format!("/proc/self/fd/{}/", above.fd().as_raw_fd()));
    place.push(name);
    match rustix::mount::unmount(place.as_os_str(), UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::io("unmount", path)(errno)),
    }
}
