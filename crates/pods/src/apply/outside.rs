//! What kubelet keeps of a pod's block volumes outside of its directory: looked at before anything changes, then let go as
//! kubelet itself lets it go (`pkg/volume/util/util.go`, `UnmapBlockVolume`).
//!
//! The loop device comes off first, then what is mounted on the pod's name, then the name. The directories above belong to
//! the volume and stay. No byte of a device is read or written.

use std::collections::HashSet;
use std::path::Path;

use super::deadline::within;
use super::gates;
use super::holders;
use super::steps::{Step, Steps, name};
use super::tables::{Home, Near, Tables};
use super::unmount::{self, PATIENCE};
use crate::block::{self, BlockLink, LinkKind, is_of_device_files};
use crate::error::Error;
use crate::held::Held;
use crate::uid::Uid;

/// One name of a pod in a directory of a block volume.
#[derive(Debug)]
pub(crate) struct Outside {
    link: BlockLink,
    /// The directory that it is in, of which the mount tables are asked as of `pods/`: each name in it is a pod's.
    home: Home,
    /// What is mounted on it here.
    mounts: Vec<Near>,
}

/// Everything of one pod that may be let go; or why not.
pub(crate) fn of_pod(root: &Path, uid: &Uid) -> Result<Vec<Outside>, String> {
    let (root, of) = (root.to_owned(), uid.clone());
    let links = within(PATIENCE, move || block::links(&root, &|uid| *uid == of, &|| {}));
    let links = match links {
        Ok(Some(links)) => links.map_err(|error| error.to_string())?,
        Ok(None) => return Err("the block volumes below plugins/ could not be looked at in time".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    links
        .into_iter()
        .map(|(_, link)| Outside::of(link, uid))
        .collect()
}

impl Outside {
    fn of(link: BlockLink, uid: &Uid) -> Result<Self, String> {
        let said = |error: Error| error.to_string();
        let gone = || format!("{} went away just now", link.path.display());
        let dir = above(&link.path).map_err(said)?.ok_or_else(gone)?;
        let home = Home::of(dir.path(), dir.mount()).map_err(said)?;
        let tables = Tables::take(&home).map_err(said)?;
        gates::mounts(uid.as_str(), &tables)?;
        let mounts = tables.ours(uid.as_str()).cloned().collect();
        let outside = Self { link, home, mounts };
        outside.is_kubelets()?;
        outside.is_free()?;
        Ok(outside)
    }

    /// An error if it is not what kubelet or a driver puts there.
    fn is_kubelets(&self) -> Result<(), String> {
        let path = self.link.path.display();
        let are_device_files = self.mounts.iter().all(|near| is_of_device_files(&near.mount));
        match &self.link.what {
            LinkKind::Mounted if self.link.device.is_none() || !are_device_files => {
                Err(format!("what is mounted at {path} is no block device"))
            }
            LinkKind::Mounted | LinkKind::Symlink(_) | LinkKind::EmptyFile | LinkKind::DeviceFile => Ok(()),
            LinkKind::Other(what) => Err(format!("{path} is {what}, which is not kubelet's")),
        }
    }

    /// An error if a process has the device open by this name, for then it cannot be unmounted.
    fn is_free(&self) -> Result<(), String> {
        for near in &self.mounts {
            let (path, id) = (near.mount.mountpoint.clone(), near.mount.id);
            let holds = within(PATIENCE, move || holders::holds(&path, Some(id)));
            let path = near.mount.mountpoint.display();
            match holds.map_err(|error| error.to_string())? {
                None => return Err(format!("{path}: not all processes could be asked in time")),
                Some(holds) => {
                    if let Some(hold) = holds.first() {
                        return Err(format!("process {} has {path} open", hold.pid));
                    }
                }
            }
        }
        Ok(())
    }

    /// Unmounts what was mounted on it when it was looked at, and removes it if nobody has anything mounted there any more.
    fn release(
        &self,
        uid: &Uid,
        steps: &mut Steps<'_>,
        hung: &mut HashSet<(u32, u32)>,
    ) -> Result<bool, String> {
        unmount::outside(uid, &self.home, &self.mounts, steps, hung)?;
        remove(&self.link.path, steps).map_err(|error| error.to_string())
    }
}

/// Lets all of it go. What is done is added to `done`, in words.
pub(crate) fn release(
    outside: &[Outside],
    uid: &Uid,
    steps: &mut Steps<'_>,
    hung: &mut HashSet<(u32, u32)>,
    done: &mut Vec<String>,
) -> Result<(), String> {
    for outside in outside {
        if outside.release(uid, steps, hung)? {
            let untold = match outside.link.is_published() {
                true => ", of which its driver was not told",
                false => "",
            };
            done.push(format!("removed {}{untold}", outside.link.path.display()));
        }
    }
    Ok(())
}

fn above(path: &Path) -> Result<Option<Held>, Error> {
    Ok(path.parent().map(Held::open).transpose()?.flatten())
}

/// Removes a name, if it is a symlink, an empty file or a device file now. False if it is gone, as kubelet is at work too.
fn remove(path: &Path, steps: &mut Steps<'_>) -> Result<bool, Error> {
    let Some(dir) = above(path)? else {
        return Ok(false);
    };
    let Some(link) = block::link(&dir, name(path))? else {
        return Ok(false);
    };
    let path = path.to_owned();
    let step = match link.what {
        LinkKind::Symlink(target) => Step::RemoveLink { path, target },
        LinkKind::EmptyFile | LinkKind::DeviceFile => Step::RemoveFile { path },
        LinkKind::Mounted => return Err(Error::Mounted { path }),
        LinkKind::Other(what) => return Err(Error::unfit(path, format!("is {what} by now"))),
    };
    steps.write(step)?;
    dir.unlink(name(&link.path))
}
