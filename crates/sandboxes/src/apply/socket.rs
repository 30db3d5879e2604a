//! The socket of a shim, which stays when the shim is killed.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;

use super::bundle::Held;
use super::place::Place;
use super::steps::{Step, Steps};
use crate::error::Error;

/// The socket that a bundle names: in `address`, or from containerd 2.0 on in `bootstrap.json`. None if it is not of the
/// form of a shim's, `…/s/<SHA-256>` (`SocketAddress` in pkg/shim/util_unix.go).
pub(crate) fn of_bundle(bundle: &Held<'_>) -> Option<PathBuf> {
    let address = bundle.read("address").or_else(|| {
        let bootstrap: Value = serde_json::from_str(&bundle.read("bootstrap.json")?).ok()?;
        Some(bootstrap["address"].as_str()?.to_owned())
    })?;
    let path = PathBuf::from(address.strip_prefix("unix://")?);
    is_shims(&path).then_some(path)
}

fn is_shims(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let directory = path.parent().and_then(Path::file_name);
    let hash = name.len() == 64 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    path.is_absolute() && hash && directory.is_some_and(|name| name == "s")
}

/// Removes a socket, if nobody listens on it any more.
pub(crate) fn remove(path: &Path, steps: Steps<'_, '_>) -> Result<(), Error> {
    let Some(place) = Place::of(path)? else {
        return Ok(());
    };
    let Some(before) = place.stat()? else {
        return Ok(());
    };
    if FileType::from_raw_mode(before.st_mode) != FileType::Socket {
        return Err(Error::not_the_same(path, "is no socket"));
    }
    if !is_deserted(path)? {
        return Err(Error::not_the_same(
            path,
            "somebody listens on this socket of the shim",
        ));
    }
    steps.write(Step::RemoveSocket { path })?;
    match place.stat()? {
        Some(now) if FileId::from(&now) == FileId::from(&before) => place.unlink(),
        Some(_) => Err(Error::not_the_same(path, "another socket has this name now")),
        None => Ok(()),
    }
}

/// True if a connection is refused. A listener whose queue is full (`EAGAIN`) is one.
fn is_deserted(path: &Path) -> Result<bool, Error> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let probe = probe.map_err(Error::io("make a socket for", path))?;
    let address = SocketAddrUnix::new(path).map_err(Error::io("name", path))?;
    Ok(connect(&probe, &address) == Err(Errno::CONNREFUSED))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_form_of_a_shims_socket_is_believed() {
        let hash = "8f3a5c9e".repeat(8);
        assert!(is_shims(Path::new(&format!("/run/containerd/s/{hash}"))));
        for other in [
            "/run/containerd/containerd.sock".to_owned(),
            format!("/run/containerd/{hash}"),
            format!("s/{hash}"),
            format!("/run/containerd/s/{hash}0"),
        ] {
            assert!(!is_shims(Path::new(&other)), "{other}");
        }
    }

    #[test]
    fn a_socket_is_deserted_when_its_listener_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!is_deserted(&path).unwrap());
        drop(listener);
        assert!(is_deserted(&path).unwrap());
    }
}
