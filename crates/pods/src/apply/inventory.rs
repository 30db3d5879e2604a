//! What lies in a pod directory now, volume by volume, and what may become of it.
//!
//! This is read from the disk under the lock, and once more when nothing is mounted any more: what was below a mount is seen
//! then for the first time. What the look before said of a volume counts where it is more careful.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::error::Error;
use crate::held::Held;
use crate::measure::measure;
use crate::pod::PodDir;
use crate::volume::{Class, Content, CsiVolume, Part};

/// Plugins whose content kubelet makes from the API, and can make again.
const MADE: [&str; 4] = [
    "kubernetes.io~secret",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
    "kubernetes.io~configmap",
];

/// Plugins whose content ends with the pod by contract.
const EPHEMERAL: [&str; 2] = ["kubernetes.io~empty-dir", "kubernetes.io~git-repo"];

/// The plugin whose volumes are a directory `mount` with a record beside it.
const CSI: &str = "kubernetes.io~csi";

/// The record of a CSI volume.
pub(crate) const RECORD: &str = "vol_data.json";

/// What kubelet itself puts into a pod directory beside volumes, and what is of no worth without the pod.
const OWN: [&str; 3] = ["etc-hosts", "containers", "userns"];

/// Something in a pod directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What would be moved or removed as a whole, below the pod directory.
    pub(crate) place: PathBuf,
    /// Where its data is, below the pod directory.
    pub(crate) leaf: PathBuf,
    /// The name of the plugin's directory; `subpath` for a subpath.
    pub(crate) plugin: String,
    pub(crate) part: Part,
    pub(crate) class: Class,
    pub(crate) content: Content,
    /// It has a `vol_data.json`.
    pub(crate) record: bool,
    pub(crate) csi: Option<CsiVolume>,
}

impl Found {
    /// True if its plugin makes its content again from the API.
    pub(crate) fn is_made(&self) -> bool {
        MADE.contains(&self.plugin.as_str())
    }

    pub(crate) fn is_mounted(&self) -> bool {
        matches!(self.content, Content::Mounted)
    }
}

/// Everything in the directory that could be lost. `covered` says of a path below it whether something is mounted there, in
/// whichever mount namespace.
pub(crate) fn take(pod: &Held, dir: &PodDir, covered: &dyn Fn(&Path) -> bool) -> Result<Vec<Found>, Error> {
    let said = dir
        .volumes
        .iter()
        .map(|volume| {
            let path = volume.path.strip_prefix(&dir.path).unwrap_or(&volume.path);
            (path.to_owned(), (volume.class, volume.csi.as_deref().cloned()))
        })
        .collect();
    let mut taking = Taking {
        pod,
        covered,
        said,
        found: Vec::new(),
    };
    taking.all()?;
    Ok(taking.found)
}

struct Taking<'a> {
    pod: &'a Held,
    covered: &'a dyn Fn(&Path) -> bool,
    /// What the look said, by the path of the leaf.
    said: HashMap<PathBuf, (Class, Option<CsiVolume>)>,
    found: Vec<Found>,
}

impl Taking<'_> {
    fn all(&mut self) -> Result<(), Error> {
        for name in self.pod.names()? {
            match name.as_bytes() {
                b"volumes" => self.volumes()?,
                b"volume-subpaths" => self.level(Path::new("volume-subpaths"), 3, Part::Subpath)?,
                b"volumeDevices" => self.level(Path::new("volumeDevices"), 2, Part::Device)?,
                b"plugins" => self.level(Path::new("plugins"), 2, Part::PluginData)?,
                other if OWN.iter().any(|own| own.as_bytes() == other) => {}
                _ => self.leaf(Path::new(&name), Path::new(&name), "unknown", Part::PluginData)?,
            }
        }
        Ok(())
    }

    fn volumes(&mut self) -> Result<(), Error> {
        let top = Path::new("volumes");
        let Some(plugins) = self.names(top)? else {
            return self.leaf(top, top, "unknown", Part::Volume);
        };
        for plugin in plugins {
            let path = top.join(&plugin);
            let text = plugin.to_string_lossy().into_owned();
            let Some(volumes) = self.names(&path)? else {
                self.leaf(&path, &path, &text, Part::Volume)?;
                continue;
            };
            for volume in volumes {
                let place = path.join(&volume);
                match text == CSI && !(self.covered)(&place) {
                    true => self.csi(&place)?,
                    false => self.leaf(&place, &place, &text, Part::Volume)?,
                }
            }
        }
        Ok(())
    }

    /// A CSI volume is its `mount`; what else lies beside it, but for the record, is nothing that kubelet made.
    fn csi(&mut self, place: &Path) -> Result<(), Error> {
        let leaf = place.join("mount");
        let Some(names) = self.names(place)? else {
            return self.leaf(place, place, CSI, Part::Volume);
        };
        let record = names.iter().any(|name| name == RECORD);
        let strange = names.iter().any(|name| name != RECORD && name != "mount");
        let at = self.found.len();
        self.leaf(if strange { place } else { &leaf }, place, CSI, Part::Volume)?;
        let said = self.said.get(&leaf).cloned();
        if let Some(found) = self.found.get_mut(at) {
            found.record = record;
            found.csi = said.and_then(|(_, csi)| csi);
        }
        Ok(())
    }

    /// What lies so many levels below a directory, and what lies higher and is no directory.
    fn level(&mut self, path: &Path, levels: usize, part: Part) -> Result<(), Error> {
        let plugin = match part {
            Part::Subpath => "subpath".to_owned(),
            Part::Volume | Part::Device | Part::PluginData => {
                let plugin = path.iter().nth(1).unwrap_or_default();
                plugin.to_string_lossy().into_owned()
            }
        };
        let names = match levels {
            0 => None,
            _ => self.names(path)?,
        };
        let Some(names) = names else {
            return self.leaf(path, path, &plugin, part);
        };
        names
            .iter()
            .try_for_each(|name| self.level(&path.join(name), levels - 1, part))
    }

    /// The names in a directory; None if it is something else, or something is mounted on it.
    fn names(&self, path: &Path) -> Result<Option<Vec<std::ffi::OsString>>, Error> {
        if (self.covered)(path) {
            return Ok(None);
        }
        match self.pod.below(path) {
            Ok(Some(dir)) => dir.names().map(Some),
            Ok(None) => Ok(Some(Vec::new())),
            Err(Error::Mounted { .. } | Error::NotADirectory { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn leaf(&mut self, leaf: &Path, place: &Path, plugin: &str, part: Part) -> Result<(), Error> {
        let content = match (self.covered)(leaf) {
            true => Content::Mounted,
            false => content(self.pod, leaf)?,
        };
        let own = class(plugin, part, &content);
        let said = self.said.get(leaf).map(|(class, _)| *class);
        // An empty thing loses nothing, and what is mounted no longer is not kept elsewhere by that.
        let class = match said {
            Some(Class::Ephemeral | Class::MaybeOnlyCopy) if own != Class::NothingLost => {
                own.max(said.unwrap_or(own))
            }
            Some(_) | None => own,
        };
        self.found.push(Found {
            place: place.to_owned(),
            leaf: leaf.to_owned(),
            plugin: plugin.to_owned(),
            part,
            class,
            content,
            record: false,
            csi: None,
        });
        Ok(())
    }
}

/// What a removal loses, by the plugin alone.
fn class(plugin: &str, part: Part, content: &Content) -> Class {
    let nothing = match content {
        Content::Empty => true,
        // kubelet's own marks in `plugins/` are empty files in directories.
        Content::Files { bytes, more, .. } => part == Part::PluginData && *bytes == 0 && !more,
        Content::Other(kind) => matches!(kind.as_str(), SYMLINK | DEVICE | EMPTY_FILE),
        Content::Mounted | Content::Unread(_) => false,
    };
    let is_volume = part == Part::Volume;
    if nothing || (is_volume && MADE.contains(&plugin)) {
        Class::NothingLost
    } else if is_volume && EPHEMERAL.contains(&plugin) {
        Class::Ephemeral
    } else if matches!(content, Content::Mounted) {
        Class::DurableElsewhere
    } else {
        Class::MaybeOnlyCopy
    }
}

/// Kinds of what is no directory.
const SYMLINK: &str = "a symlink";
const DEVICE: &str = "a device, fifo or socket";
pub(crate) const EMPTY_FILE: &str = "an empty file";
const FILE: &str = "a file";

/// What stands at a path below the pod directory: never opened, never followed.
pub(crate) fn content(pod: &Held, path: &Path) -> Result<Content, Error> {
    match pod.below(path) {
        Ok(Some(dir)) => return Ok(measure(&dir)?.content()),
        Ok(None) => return Ok(Content::Empty),
        Err(Error::Mounted { .. }) => return Ok(Content::Mounted),
        Err(Error::NotADirectory { .. }) => {}
        Err(error) => return Err(error),
    }
    let above = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or(OsStr::new(""));
    let Some(above) = pod.below(above)? else {
        return Ok(Content::Empty);
    };
    let Some(stat) = above.stat(name)? else {
        return Ok(Content::Empty);
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_size == 0 => EMPTY_FILE,
        FileType::RegularFile => FILE,
        FileType::Symlink => SYMLINK,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => DEVICE,
        // It became one meanwhile, or nobody knows what it is.
        FileType::Directory | FileType::Unknown => "something else",
    };
    Ok(Content::Other(kind.to_owned()))
}
