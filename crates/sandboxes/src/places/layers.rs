//! Overlays whose layers are gone: whoever runs on one loses its files as soon as it closes them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;
use nodemend_hostfs::pool::{self, Pulse};
use rustix::fs::{AtFlags, CWD, StatxFlags, lstat, statx};
use rustix::io::Errno;

use crate::error::Error;
use crate::sandbox::SandboxMount;

/// The mounts, each overlay with the first of its layers that is not there. One that cannot be looked at
/// counts as there, and so does one that a relative path names: nobody knows from where.
pub(super) fn check<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Result<Vec<SandboxMount>, Error> {
    let mounts: Vec<_> = mounts.collect();
    let jobs: Vec<(usize, Vec<PathBuf>)> = mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.fstype == "overlay")
        .map(|(at, mount)| (at, layers(&mount.options)))
        .collect();
    let work =
        |(at, dirs): &(usize, Vec<PathBuf>), pulse: &Pulse, answer: &mut dyn FnMut((usize, PathBuf))| {
            let gone = dirs.iter().find(|dir| {
                pulse.beat();
                dir.is_absolute() && is_gone(dir)
            });
            gone.into_iter().for_each(|dir| answer((*at, dir.clone())));
        };
    let done = pool::run(jobs, Box::new(work)).map_err(Error::Thread)?;
    let mut found: Vec<_> = mounts.into_iter().map(plain).collect();
    for (at, dir) in done.answers {
        if let Some(mount) = found.get_mut(at) {
            mount.lost_layer = Some(dir);
        }
    }
    Ok(found)
}

fn plain(mount: &Mount) -> SandboxMount {
    SandboxMount {
        mountpoint: mount.mountpoint.clone(),
        id: mount.id,
        fstype: mount.fstype.clone(),
        lost_layer: None,
    }
}

fn is_gone(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let there = match statx(CWD, path, flags, StatxFlags::TYPE) {
        Err(Errno::NOSYS) => lstat(path).map(drop),
        other => other.map(drop),
    };
    matches!(there, Err(Errno::NOENT | Errno::NOTDIR))
}

/// The layers in the options of an overlay: `lowerdir=a:b`, from Linux 6.5 on also `lowerdir+=a`, and `upperdir=c`. A
/// backslash stands before a colon or a comma that is part of a name (Documentation/filesystems/overlayfs.rst).
fn layers(options: &OsStr) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for option in split(options.as_bytes(), b',') {
        let list = option.strip_prefix(b"lowerdir=").map(|list| split(list, b':'));
        let one = [&b"lowerdir+="[..], b"upperdir="];
        let one = one
            .iter()
            .find_map(|name| option.strip_prefix(*name))
            .map(|dir| vec![dir]);
        let named = list.or(one).unwrap_or_default();
        let named = named.into_iter().filter(|dir| !dir.is_empty());
        dirs.extend(named.map(|dir| PathBuf::from(OsString::from_vec(unescaped(dir)))));
    }
    dirs
}

fn split(text: &[u8], at: u8) -> Vec<&[u8]> {
    let mut escaped = false;
    let is_border = |byte: &u8| {
        let border = *byte == at && !escaped;
        escaped = *byte == b'\\' && !escaped;
        border
    };
    text.split(is_border).collect()
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        let literal = if byte == b'\\' { rest.next() } else { None };
        bytes.push(*literal.unwrap_or(&byte));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(options: &str) -> Vec<String> {
        let dirs = layers(OsStr::new(options));
        dirs.into_iter()
            .map(|dir| dir.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_layers_of_an_overlay_are_read_in_every_spelling() {
        assert_eq!(
            dirs("rw,lowerdir=/a/1/fs:/a/2/fs,upperdir=/a/3/fs,workdir=/a/3/work"),
            ["/a/1/fs", "/a/2/fs", "/a/3/fs"]
        );
        assert_eq!(
            dirs(r"rw,lowerdir=/a\:b:/c\,d,upperdir=/u"),
            ["/a:b", "/c,d", "/u"]
        );
        assert_eq!(dirs("rw,lowerdir+=/a,lowerdir+=/b"), ["/a", "/b"]);
        assert_eq!(dirs("rw,lowerdir=1/fs:2/fs"), ["1/fs", "2/fs"]);
        assert!(dirs("rw,relatime").is_empty());
    }

    #[test]
    fn only_a_layer_that_is_provably_gone_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |lower: &str| Mount {
            id: 1,
            parent: 0,
            dev: (0, 1),
            root: "/".into(),
            mountpoint: "/run/x".into(),
            fstype: "overlay".into(),
            source: "overlay".into(),
            options: format!("rw,lowerdir={lower}").into(),
        };
        let lost = |lower: &str| check([mount(lower)].iter()).unwrap()[0].lost_layer.clone();
        let there = dir.path().to_str().unwrap();
        let gone = format!("{there}/gone");
        assert_eq!(lost(there), None);
        assert_eq!(lost("1/fs"), None, "a relative path names nothing");
        assert_eq!(lost(&format!("{there}:{gone}")), Some(PathBuf::from(gone)));
    }
}
