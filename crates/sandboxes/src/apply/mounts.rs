//! Unmounting what was mounted for a sandbox: never lazily, never by force.

use std::os::fd::AsFd;
use std::path::Path;

use nodemend_hostfs::Host;
use nodemend_hostfs::descent::mount_id;
use nodemend_hostfs::mountinfo::{self, Mount};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::holders;
use super::place::Place;
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::{Sandbox, SandboxMount};

/// Unmounts each mount that is still there, the deepest first. Gives how many were unmounted here.
///
/// # Errors
/// At the first that cannot be: [`Error::Busy`] with who holds it, [`Error::NotTheSame`] if another mount covers it.
pub(crate) fn unmount_all(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<usize, Error> {
    let mut mounts: Vec<&SandboxMount> = sandbox.mounts.iter().collect();
    // Of two on the same path the later one covers the other; ids of mounts say nothing of that, their order does.
    mounts.reverse();
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.mountpoint.components().count()));
    let mut done = 0;
    for mount in mounts {
        done += usize::from(one(mount, steps)?);
        tidy(sandbox, &mount.mountpoint)?;
    }
    Ok(done)
}

/// False if it is not there any more.
fn one(mount: &SandboxMount, steps: Steps<'_, '_>) -> Result<bool, Error> {
    let path = &mount.mountpoint;
    let table = table()?;
    if !table
        .iter()
        .any(|now| now.id == mount.id && now.mountpoint == *path)
    {
        return Ok(false);
    }
    if let Some(inner) = table.iter().find(|now| now.parent == mount.id) {
        return Err(Error::Busy {
            path: path.clone(),
            holders: format!("something is mounted on {}", inner.mountpoint.display()),
        });
    }
    let Some(place) = Place::of(path)? else {
        return Err(Error::not_the_same(path, "its directory cannot be reached"));
    };
    if top_of(&place, &table)? != Some(mount.id) {
        return Err(Error::not_the_same(path, "another mount covers it"));
    }
    steps.write(Step::Unmount { mount })?;
    match unmount(place.by_descriptor(), UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        // The runtime unmounts too.
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(Errno::BUSY) => Err(Error::Busy {
            path: path.clone(),
            holders: holders::of(path, mount.id),
        }),
        Err(errno) => Err(Error::io("unmount", path)(errno)),
    }
}

/// The mount that an unmount of this place would take off. Where the kernel does not tell it of an open file (before Linux
/// 3.15), it is the last one of the table on that path.
fn top_of(place: &Place, table: &[Mount]) -> Result<Option<u64>, Error> {
    let Some(file) = place.open()? else {
        return Ok(None);
    };
    let by_table = || {
        let mut last_first = table.iter().rev();
        last_first
            .find(|mount| mount.mountpoint == place.path())
            .map(|mount| mount.id)
    };
    Ok(mount_id(file.as_fd()).or_else(by_table))
}

/// Removes the directories that were made for a mount of the sandbox (`…/sandboxes/ID/shm`), if they are empty.
fn tidy(sandbox: &Sandbox, mountpoint: &Path) -> Result<(), Error> {
    let Some(own) = mountpoint.parent() else {
        return Ok(());
    };
    let of_bundle = sandbox.bundles.iter().any(|bundle| bundle.path == own);
    if of_bundle || own.file_name().is_none_or(|name| name != sandbox.id.as_str()) {
        return Ok(());
    }
    for path in [mountpoint, own] {
        let gone = match Place::of(path)? {
            Some(place) => place.rmdir()?,
            None => true,
        };
        if !gone {
            break;
        }
    }
    Ok(())
}

fn table() -> Result<Vec<Mount>, Error> {
    Ok(mountinfo::of_process(&Host::local(), std::process::id())?)
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::StateDir;

    use super::super::steps::Log;
    use super::*;

    /// A mount that is in no table: nothing is done for it, and nothing is written down.
    #[test]
    fn a_mount_that_is_gone_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = StateDir::at(dir.path()).journal().unwrap();
        let log = Log::new(&mut journal);
        let mount = SandboxMount {
            mountpoint: "/".into(),
            id: u64::MAX,
            fstype: "overlay".into(),
            lost_layer: None,
        };
        assert!(!one(&mount, log.of("8f3a")).unwrap());
        assert_eq!(std::fs::read(dir.path().join("journal.jsonl")).unwrap(), b"");
    }

    #[test]
    fn a_mount_with_another_inside_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = StateDir::at(dir.path()).journal().unwrap();
        let log = Log::new(&mut journal);
        let root = table()
            .unwrap()
            .into_iter()
            .find(|mount| mount.mountpoint == Path::new("/"))
            .unwrap();
        let mount = SandboxMount {
            mountpoint: "/".into(),
            id: root.id,
            fstype: root.fstype,
            lost_layer: None,
        };
        let error = one(&mount, log.of("8f3a")).unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        assert!(error.to_string().contains("something is mounted on /"), "{error}");
    }
}
