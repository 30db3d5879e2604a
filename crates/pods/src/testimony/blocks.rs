//! Devices that stand on what lies in a pod directory: loop devices, swap, device-mapper.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Error, Host};
use rustix::fs::{CWD, readlinkat};

use crate::block;
use crate::layout::Layout;
use crate::mount::Tie;
use crate::pod::PodDir;
use crate::testimony::Known;
use crate::testimony::processes::Places;
use crate::uid::Uid;
use crate::volume::Part;

const LIMIT: u64 = 1 << 20;

/// The pods whose files are a disk for somebody.
///
/// kubelet's own loop device on a block volume stands on a file beside the pod directories, not in one: it is left behind
/// by a pod that is gone, and says nothing of its life.
pub(crate) fn look(host: &Host, layout: &Layout) -> Known {
    let places = Places::of(layout);
    let mut pods = Vec::new();
    // Thousands of pods may stand on one device.
    let mut known = HashMap::new();
    let said = loops(host, &places, &mut pods)
        .and_then(|()| swaps(host, &places, &mut pods))
        .and_then(|()| {
            let mut each = layout.pods.iter();
            each.try_for_each(|pod| holders(host, pod, &mut known, &mut pods))
        });
    Known::of(said.map_err(|error| error.to_string()).map(|()| Known::Pods {
        pods,
        asked: "no such device stands on it".to_owned(),
    }))
}

fn loops(host: &Host, places: &Places, pods: &mut Vec<(Uid, String)>) -> Result<(), Error> {
    for name in list(host, Path::new("/sys/block"))? {
        let device = name.to_string_lossy().into_owned();
        if !device.starts_with("loop") {
            continue;
        }
        let file = Path::new("/sys/block").join(&name).join("loop/backing_file");
        // A loop device without a file has no such directory; the file itself goes while it is set up or taken down.
        if let Some(path) = optional(host.read(&file, LIMIT))?
            && let Some(uid) = places.pod(path.trim_ascii_end())
        {
            pods.push((uid.clone(), format!("/dev/{device} stands on a file of it")));
        }
    }
    Ok(())
}

fn swaps(host: &Host, places: &Places, pods: &mut Vec<(Uid, String)>) -> Result<(), Error> {
    // A kernel without swap has no such file.
    let table = optional(host.read(Path::new("/proc/swaps"), LIMIT))?.unwrap_or_default();
    for line in table.split(|&byte| byte == b'\n').skip(1) {
        let path = line
            .split(|&byte| byte == b' ' || byte == b'\t')
            .next()
            .unwrap_or_default();
        if let Some(uid) = places.pod(path) {
            pods.push((uid.clone(), "the kernel swaps to a file of it".to_owned()));
        }
    }
    Ok(())
}

/// Devices on the devices of a pod: those that are mounted in it, and those that its block volumes lead to.
fn holders(
    host: &Host,
    pod: &PodDir,
    known: &mut HashMap<(u32, u32), Option<String>>,
    pods: &mut Vec<(Uid, String)>,
) -> Result<(), Error> {
    let mounted = pod
        .mounts
        .iter()
        .filter(|mount| mount.tie == Tie::In)
        .map(|mount| mount.mount.dev);
    // Major 0 is for file systems without a device.
    let mut devices: Vec<(u32, u32)> = mounted.filter(|(major, _)| *major != 0).collect();
    devices.extend(block_volumes(pod));
    devices.extend(pod.outside.iter().filter_map(|link| link.device));
    devices.sort_unstable();
    devices.dedup();
    for (major, minor) in devices {
        if let std::collections::hash_map::Entry::Vacant(unknown) = known.entry((major, minor)) {
            let dir = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/holders"));
            let first = list(host, &dir)?.into_iter().next();
            unknown.insert(first.map(|holder| holder.to_string_lossy().into_owned()));
        }
        if let Some(Some(holder)) = known.get(&(major, minor)) {
            let said = format!("/dev/{holder} stands on its device {major}:{minor}");
            pods.push((pod.uid.clone(), said));
        }
    }
    Ok(())
}

/// Where the links of `volumeDevices/` lead, if that is a device. Only a path below /dev is asked: it is no network's.
fn block_volumes(pod: &PodDir) -> Vec<(u32, u32)> {
    let links = pod.volumes.iter().filter(|volume| volume.part == Part::Device);
    let links = links.map(|volume| pod.path.join(&volume.path));
    let links = links.filter(|link| {
        !pod.mounts
            .iter()
            .any(|mount| link.starts_with(&mount.mount.mountpoint))
    });
    links.filter_map(|link| device(&link)).collect()
}

fn device(link: &Path) -> Option<(u32, u32)> {
    let target = readlinkat(CWD, link, Vec::new()).ok()?;
    block::behind(Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())))
}

fn list(host: &Host, dir: &Path) -> Result<Vec<std::ffi::OsString>, Error> {
    Ok(optional(host.list(dir))?.unwrap_or_default())
}

fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(Error::Io { source, .. })
            if source.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a failed unwrap is a failed test"
    )]

    use nodemend_hostfs::FileId;

    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

    #[test]
    fn t23_a_loop_device_or_swap_on_a_file_of_a_pod_keeps_it_and_kubelets_own_loop_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let uid: Uid = UID.parse().unwrap();
        let layout = Layout {
            root: "/k".into(),
            known_by: String::new(),
            root_id: FileId::default(),
            also_at: Vec::new(),
            pods: vec![std::sync::Arc::new(PodDir {
                uid: uid.clone(),
                path: format!("/k/pods/{UID}").into(),
                identity: crate::pod::PodIdentity {
                    uid: uid.clone(),
                    dir: FileId::default(),
                    mount: 1,
                },
                name: None,
                changed: 0,
                volumes: Vec::new(),
                mounts: Vec::new(),
                strange: Vec::new(),
                outside: Vec::new(),
                unread: Vec::new(),
            })],
            strangers: Vec::new(),
            unread: Vec::new(),
        };
        let said = |layout: &Layout| match look(&Host::at(dir.path()), layout) {
            Known::Pods { pods, .. } => pods.into_iter().map(|(_, said)| said).collect::<Vec<_>>(),
            silent @ (Known::Partly { .. } | Known::Silent(_) | Known::NotHere(_)) => panic!("{silent:?}"),
        };
        write("sys/block/loop0/size", "0");
        write(
            "sys/block/loop1/loop/backing_file",
            &format!("/k/plugins/kubernetes.io/csi/volumeDevices/pv/dev/{UID}\n"),
        );
        assert!(said(&layout).is_empty());
        write(
            "sys/block/loop2/loop/backing_file",
            &format!("/k/pods/{UID}/volumes/kubernetes.io~empty-dir/a/disk\n"),
        );
        write(
            "proc/swaps",
            &format!("Filename\tType\n/k/pods/{UID}/volumes/x/swap file 1024\n/dev/sda2 partition 1\n"),
        );
        assert_eq!(
            said(&layout),
            [
                "/dev/loop2 stands on a file of it",
                "the kernel swaps to a file of it"
            ]
        );
        // A device of its block volumes, of which kubelet keeps names beside the pod directories.
        let mut with_block = layout.clone();
        std::sync::Arc::make_mut(&mut with_block.pods[0])
            .outside
            .push(crate::block::BlockLink {
                path: format!("/k/plugins/kubernetes.io/csi/volumeDevices/pv/dev/{UID}").into(),
                what: crate::block::LinkKind::Mounted,
                device: Some((8, 16)),
            });
        assert_eq!(said(&with_block), said(&layout));
        write("sys/dev/block/8:16/holders/dm-3/dev", "253:3");
        assert_eq!(said(&with_block)[2], "/dev/dm-3 stands on its device 8:16");
    }
}
