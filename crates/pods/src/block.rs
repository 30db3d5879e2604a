//! What kubelet keeps of a pod's block volumes outside of the pod directory.
//!
//! For each it has a name of the pod's in a directory of the volume (`pkg/volume/util/util.go`, `MapBlockVolume`):
//!
//! | where, below `plugins/` | what |
//! |---|---|
//! | `kubernetes.io/csi/volumeDevices/VOLUME/dev/UID` | the device, bound over an empty file; a loop device on it keeps it open |
//! | `kubernetes.io/csi/volumeDevices/publish/VOLUME/UID` | the device, as the driver was asked to put it there |
//! | `kubernetes.io/PLUGIN/volumeDevices/…/UID` | the same of a plugin of kubelet's own; of old kubelets a symlink |
//!
//! All that lies above the pod's name, and `staging/`, belongs to the volume and to every pod that uses it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::{self, Mount};
use rustix::fs::{AtFlags, CWD, FileType, Stat, readlinkat, statat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::held::Held;
use crate::uid::Uid;

/// A pod's name in the directory of a block volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockLink {
    /// Where it is, by the root's real path.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub path: PathBuf,
    /// What stands there.
    pub what: LinkKind,
    /// Major and minor number of the device, as far as they can be told without asking anybody but the kernel.
    pub device: Option<(u32, u32)>,
}

/// What stands at a pod's name in the directory of a block volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "is",
    content = "detail",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum LinkKind {
    /// Something is mounted on it: the device, if all is as kubelet does it.
    Mounted,
    /// A symlink, with where it leads.
    Symlink(
        #[serde(with = "nodemend_hostfs::text")]
        #[schemars(with = "PathBuf")]
        PathBuf,
    ),
    /// The empty file that the device was bound over.
    EmptyFile,
    /// A device file.
    DeviceFile,
    /// Nothing that kubelet or a driver puts there.
    Other(String),
}

impl BlockLink {
    /// True if a driver was asked to put it there, and would have to be asked to take it away.
    pub fn is_published(&self) -> bool {
        let mut names = self.path.iter().rev().skip(2);
        names.next().is_some_and(|name| name == PUBLISH) && names.next().is_some_and(|name| name == DEVICES)
    }
}

/// The directory of the block volumes of a plugin (`pkg/kubelet/config/defaults.go`).
const DEVICES: &str = "volumeDevices";
/// Where CSI drivers put devices for pods, and for the node (`pkg/volume/csi/csi_block.go`).
const PUBLISH: &str = "publish";
const STAGING: &str = "staging";
/// The directory of kubelet's own plugins. What lies in those of others is theirs.
const OWN: &str = "kubernetes.io";
/// `VOLUME/dev/UID`; the names of in-tree plugins' volumes have as many levels at most.
const LEVELS: usize = 4;

/// The names of these pods in all directories of block volumes, sorted by path. Nothing that is mounted is entered, and of
/// what is mounted only device files in memory are asked for their numbers. Calls `beat` for each directory.
///
/// # Errors
/// If one of these directories cannot be read, or the mount table.
pub(crate) fn links(
    root: &Path,
    is_one: &dyn Fn(&Uid) -> bool,
    beat: &dyn Fn(),
) -> Result<Vec<(Uid, BlockLink)>, Error> {
    let mut search = Search {
        is_one,
        beat,
        found: Vec::new(),
    };
    let plugins = Held::open(root)?.map(|root| root.down(OsStr::new("plugins")));
    if let Some(plugins) = plugins.transpose()?.flatten() {
        for name in plugins.names()? {
            let Some(plugin) = directory(&plugins, &name)? else {
                continue;
            };
            search.devices(&plugin)?;
            if name == OWN {
                for name in plugin.names()? {
                    if let Some(plugin) = directory(&plugin, &name)? {
                        search.devices(&plugin)?;
                    }
                }
            }
        }
    }
    let mut found = search.found;
    number_mounted(&mut found)?;
    found.sort_unstable_by(|one, other| one.1.path.cmp(&other.1.path));
    Ok(found)
}

struct Search<'a> {
    is_one: &'a dyn Fn(&Uid) -> bool,
    beat: &'a dyn Fn(),
    found: Vec<(Uid, BlockLink)>,
}

impl Search<'_> {
    fn devices(&mut self, plugin: &Held) -> Result<(), Error> {
        match directory(plugin, OsStr::new(DEVICES))? {
            Some(devices) => self.level(&devices, LEVELS),
            None => Ok(()),
        }
    }

    fn level(&mut self, dir: &Held, levels: usize) -> Result<(), Error> {
        (self.beat)();
        for name in dir.names()? {
            let uid = name.to_str().and_then(|name| name.parse::<Uid>().ok());
            if let Some(uid) = uid {
                if (self.is_one)(&uid)
                    && let Some(link) = link(dir, &name)?
                {
                    self.found.push((uid, link));
                }
            } else if levels > 0
                && !(levels == LEVELS && name == STAGING)
                && let Some(below) = directory(dir, &name)?
            {
                self.level(&below, levels - 1)?;
            }
        }
        Ok(())
    }
}

/// A directory that is one, and on which nothing is mounted.
fn directory(above: &Held, name: &OsStr) -> Result<Option<Held>, Error> {
    match above.down(name) {
        Err(Error::Mounted { .. } | Error::NotADirectory { .. }) => Ok(None),
        other => other,
    }
}

/// What stands at a name. None if nothing does.
pub(crate) fn link(dir: &Held, name: &OsStr) -> Result<Option<BlockLink>, Error> {
    let path = dir.path().join(name);
    let (what, device) = match dir.stat_here(name) {
        Ok(None) => return Ok(None),
        Ok(Some(stat)) => kind(dir, name, &stat),
        Err(Error::Mounted { .. }) => (LinkKind::Mounted, None),
        Err(error) => return Err(error),
    };
    Ok(Some(BlockLink { path, what, device }))
}

fn kind(dir: &Held, name: &OsStr, stat: &Stat) -> (LinkKind, Option<(u32, u32)>) {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => match readlinkat(dir.fd(), name, Vec::new()) {
            Ok(target) => {
                let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
                let device = behind(&target);
                (LinkKind::Symlink(target), device)
            }
            Err(errno) => (LinkKind::Other(format!("a symlink: {errno}")), None),
        },
        FileType::RegularFile if stat.st_size == 0 => (LinkKind::EmptyFile, None),
        FileType::BlockDevice => (LinkKind::DeviceFile, Some(number(stat))),
        FileType::RegularFile => (LinkKind::Other("a file with data".to_owned()), None),
        FileType::Directory => (LinkKind::Other("a directory".to_owned()), None),
        FileType::CharacterDevice | FileType::Fifo | FileType::Socket | FileType::Unknown => {
            (LinkKind::Other("no block device".to_owned()), None)
        }
    }
}

/// A device file that is bound somewhere lies on a file system of the kernel's own, or of a driver's container, in memory.
fn number_mounted(links: &mut [(Uid, BlockLink)]) -> Result<(), Error> {
    if !links.iter().any(|(_, link)| link.what == LinkKind::Mounted) {
        return Ok(());
    }
    let mounts = own_table()?;
    for (_, link) in links
        .iter_mut()
        .filter(|(_, link)| link.what == LinkKind::Mounted)
    {
        let mut there = mounts.iter().filter(|mount| mount.mountpoint == link.path);
        if there.all(is_of_device_files) {
            let stat = statat(CWD, &link.path, AtFlags::SYMLINK_NOFOLLOW).ok();
            link.device = stat.filter(is_block).map(|stat| number(&stat));
        }
    }
    Ok(())
}

/// The mounts of this thread's mount namespace.
pub(crate) fn own_table() -> Result<Vec<Mount>, Error> {
    let table = Path::new("/proc/thread-self/mountinfo");
    let bytes = std::fs::read(table).map_err(Error::io("read", table))?;
    Ok(mountinfo::parse(&bytes)?)
}

/// True if a device file may lie there, and whoever asks for it gets an answer.
pub(crate) fn is_of_device_files(mount: &Mount) -> bool {
    matches!(&*mount.fstype, "devtmpfs" | "tmpfs")
}

/// The device that a path leads to. Only a path below /dev is asked: it is no network's.
pub(crate) fn behind(target: &Path) -> Option<(u32, u32)> {
    let is_plain = target.starts_with("/dev") && !target.iter().any(|name| name == "..");
    let stat = statat(CWD, is_plain.then_some(target)?, AtFlags::empty()).ok()?;
    is_block(&stat).then(|| number(&stat))
}

fn is_block(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
}

fn number(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}
