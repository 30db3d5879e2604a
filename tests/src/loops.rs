//! Loop devices of a lab that no mount holds: those of block volumes, which a real kubelet sets up and which stay until somebody takes them off.
//!
//! The file behind each has the name of the lab's cgroup in its path, so they are known by it: the janitor takes them off, and the next lab if the
//! janitor was killed as well. Then a lock stays, since the kernel has no path any more for the device file that it lies on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cgroups;
use crate::tools;

/// Takes off every loop device of that lab.
pub(crate) fn detach(lab: &str) {
    detach_if(|file| file.contains(lab));
}

/// Takes off every loop device of labs whose owner is dead.
pub(crate) fn sweep() {
    detach_if(|file| cgroups::names_in(file).any(cgroups::owner_is_dead));
}

fn detach_if(is_ours: impl Fn(&str) -> bool) {
    let Some(losetup) = tools::find("losetup") else {
        return;
    };
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if is_ours(&file) {
            let device = Path::new("/dev").join(device.file_name());
            // Gone already, or held by a mount with which it goes.
            let _ = Command::new(&losetup).arg("--detach").arg(device).output();
        }
    }
}
