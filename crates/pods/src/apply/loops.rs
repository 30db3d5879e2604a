//! Loop devices that kubelet made for block volumes, and that a pod left behind.
//!
//! kubelet puts one over the device of a block volume so that the device cannot go away
//! (`pkg/volume/util/volumepathhandler`). Its backing file has the pod's UID in its path.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use super::deadline::within;
use super::namespaces::numbers;
use crate::error::Error;

/// How long `losetup` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A loop device with a backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loop {
    /// `/dev/loop7`.
    pub(crate) node: PathBuf,
    /// Major and minor number.
    dev: (u32, u32),
    pub(crate) backing: PathBuf,
    sys: PathBuf,
}

/// All that have a backing file.
pub(crate) fn all() -> Result<Vec<Loop>, Error> {
    let block = Path::new("/sys/block");
    let entries = match std::fs::read_dir(block) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", block)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("list", block))?.file_name();
        if name.to_string_lossy().starts_with("loop") {
            found.extend(look(&block.join(&name), &Path::new("/dev").join(&name)));
        }
    }
    Ok(found)
}

fn look(sys: &Path, node: &Path) -> Option<Loop> {
    let text = std::fs::read(sys.join("loop/backing_file")).ok()?;
    let dev = std::fs::read_to_string(sys.join("dev")).ok()?;
    let (major, minor) = dev.trim().split_once(':')?;
    let backing = text.strip_suffix(b"\n").unwrap_or(&text);
    // Of a device file that was removed meanwhile, as after a purge that was killed.
    let backing = backing.strip_suffix(b" (deleted)").unwrap_or(backing);
    Some(Loop {
        node: node.to_owned(),
        dev: (major.parse().ok()?, minor.parse().ok()?),
        backing: OsString::from_vec(backing.to_vec()).into(),
        sys: sys.to_owned(),
    })
}

/// Those of one pod: the backing file is below kubelet's root, and the UID is a whole name on the way to it.
pub(crate) fn of_pod(root: &Path, uid: &str) -> Result<Vec<Loop>, Error> {
    let mut loops = all()?;
    loops.retain(|device| {
        let below = device.backing.strip_prefix(root);
        below.is_ok_and(|below| below.iter().any(|name| name == uid))
    });
    Ok(loops)
}

impl Loop {
    /// Who uses it, if anybody does or if it cannot be told.
    pub(crate) fn user(&self) -> Option<String> {
        let holders = std::fs::read_dir(self.sys.join("holders"));
        match holders.map(|mut entries| entries.next()) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
                return Some(format!("the device {} lies over it", name.to_string_lossy()));
            }
            Err(error) => return Some(format!("its holders cannot be read: {error}")),
        }
        if std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| {
            swaps
                .lines()
                .any(|line| line.split_whitespace().next() == self.node.to_str())
        }) {
            return Some("it is, or may be, swap".to_owned());
        }
        let this = self.clone();
        match within(PATIENCE, move || this.mounted_or_open()) {
            Ok(Some(user)) => user,
            Ok(None) | Err(_) => Some("not all processes could be asked in time".to_owned()),
        }
    }

    /// A process may have it open through a node of its own, so the number counts and not the path.
    fn mounted_or_open(&self) -> Option<String> {
        let (major, minor) = self.dev;
        let number = format!("{major}:{minor}");
        for pid in numbers("/proc").ok()? {
            let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            if table.lines().any(|line| line.split(' ').nth(2) == Some(&number)) {
                return Some(format!("it is mounted where process {pid} lives"));
            }
            for fd in numbers(&format!("/proc/{pid}/fd")).unwrap_or_default() {
                if self.is(&format!("/proc/{pid}/fd/{fd}")) {
                    return Some(format!("process {pid} has it open"));
                }
            }
        }
        None
    }

    /// No file server is asked: what the kernel knows by itself is enough for a device.
    fn is(&self, link: &str) -> bool {
        let stat = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.stx_mode.into()) == FileType::BlockDevice
                && (stat.stx_rdev_major, stat.stx_rdev_minor) == self.dev
        })
    }

    /// Detaches it by `losetup -d`, which kubelet itself uses, and looks whether it is free then.
    pub(crate) fn detach(&self) -> Result<(), Error> {
        let node = self.node.clone();
        let ran = within(PATIENCE, move || {
            let mut losetup = Command::new("losetup");
            losetup.arg("-d").arg(&node).stdin(Stdio::null());
            losetup.output()
        })?;
        let is_attached = || look(&self.sys, &self.node).is_some_and(|now| now.backing == self.backing);
        match ran {
            None => return Err(Error::unfit(&self.node, "losetup -d does not end")),
            Some(Err(error)) => return Err(Error::io("run losetup -d for", &self.node)(error)),
            // It may have gone by itself meanwhile.
            Some(Ok(output)) if !output.status.success() && is_attached() => {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Error::unfit(&self.node, format!("losetup -d: {words}")));
            }
            Some(Ok(_)) => {}
        }
        match is_attached() {
            true => Err(Error::unfit(
                &self.node,
                "somebody has it open, so it was not detached",
            )),
            false => Ok(()),
        }
    }
}
