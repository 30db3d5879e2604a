//! Disks to break: image files with a file system of their own, in a private mount namespace.
//!
//! The image has no name once it is mounted, the mount is in no other namespace, and the mount points are on a tmpfs of
//! that namespace. So nothing stays behind, however the test ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Doing, LabError, Result};
use crate::tools;

/// Where the mount points are, in the private namespace.
pub(crate) const GROUND: &str = "/mnt";

/// A file system that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ext4 with a journal.
    Ext4,
    /// XFS; at least 300 MB.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The command that makes it, its arguments, and the Debian package of it.
    fn mkfs(self) -> (&'static str, [&'static str; 2], &'static str) {
        match self {
            Self::Ext4 => ("mkfs.ext4", ["-q", "-F"], "e2fsprogs"),
            Self::Xfs => ("mkfs.xfs", ["-q", "-f"], "xfsprogs"),
            Self::Btrfs => ("mkfs.btrfs", ["-q", "-f"], "btrfs-progs"),
        }
    }
}

/// A private mount namespace for the calling thread and what it starts, with an empty tmpfs at `/mnt`. It goes with the
/// last of them.
#[derive(Debug)]
pub struct Ground(());

impl Ground {
    /// Moves the calling thread into a mount namespace of its own. Needs root.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .doing(|| "enter a mount namespace".to_owned())?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .at("make private", Path::new("/"))?;
        mount(Some("ground"), GROUND, Some("tmpfs"), MsFlags::empty(), none)
            .at("mount a tmpfs at", Path::new(GROUND))?;
        Ok(Self(()))
    }

    /// An empty file system of so many megabytes, mounted at a new directory.
    ///
    /// # Errors
    /// If a tool is missing or fails; the error has its words.
    pub fn disk(&self, format: Format, megabytes: u64) -> Result<PathBuf> {
        self.disk_with(format, megabytes, &[], &[])
    }

    /// As [`disk`](Self::disk), with further options for mkfs and for mount.
    ///
    /// # Errors
    /// As of [`disk`](Self::disk).
    pub fn disk_with(
        &self,
        format: Format,
        megabytes: u64,
        mkfs_options: &[&str],
        mount_options: &[&str],
    ) -> Result<PathBuf> {
        let image =
            tempfile::NamedTempFile::new_in("/var/tmp").at("make an image in", Path::new("/var/tmp"))?;
        image
            .as_file()
            .set_len(megabytes << 20)
            .at("size", image.path())?;
        let (mkfs, flags, package) = format.mkfs();
        succeed(
            Command::new(tools::need(mkfs, package)?)
                .args(flags)
                .args(mkfs_options)
                .arg(image.path()),
        )?;
        self.mounted(image.path(), mount_options)
        // Here the image loses its name; the loop device keeps it until the mount goes.
    }

    /// An image, mounted at a new directory.
    ///
    /// # Errors
    /// As of [`disk`](Self::disk).
    pub fn mounted(&self, image: &Path, options: &[&str]) -> Result<PathBuf> {
        let at = self.directory()?;
        let options = [&["loop"], options].concat().join(",");
        succeed(Command::new("mount").args(["-o", &options]).arg(image).arg(&at))?;
        Ok(at)
    }

    /// A new, empty directory on the tmpfs.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn directory(&self) -> Result<PathBuf> {
        tempfile::Builder::new()
            .prefix("disk-")
            .tempdir_in(GROUND)
            .map(tempfile::TempDir::keep)
            .at("make a directory in", Path::new(GROUND))
    }
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().doing(|| format!("run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Command {
        command: format!("{command:?}"),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn every_format_can_be_made_and_nothing_of_it_is_seen_outside() {
        let ground = Ground::enter().unwrap();
        for format in Format::ALL {
            let disk = ground.disk(format, 320).unwrap();
            std::fs::write(disk.join("file"), "x").unwrap();
            let machine = std::fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(!machine.contains(disk.to_str().unwrap()), "{machine}");
        }
    }
}
