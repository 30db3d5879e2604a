//! Block volumes: a device file that stands in no file system of the pod's.

use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};
use crate::kubelet::ROOT;
use crate::pods::{IMAGES, PodDir, Store};

impl PodDir<'_> {
    /// A block volume of a driver, as `pkg/volume/csi/csi_block.go` tells: the device, bound over a file that is named after the pod, a symlink to
    /// it in the pod's directory, and a loop device whose backing file it is, as a lock. The symlink's path.
    ///
    /// # Errors
    ///
    /// When no loop device is free.
    pub fn block_volume(&mut self, name: &str) -> Result<PathBuf> {
        let image = self.node.image(&format!("block-{name}"));
        self.node.make_dirs(IMAGES)?;
        self.node.shell(&format!(
            "yes 'data of a block device' | head -c 1048576 >{image}"
        ))?;
        let device = self.held_loop(&image)?;
        let map = Path::new(ROOT)
            .join("plugins/kubernetes.io/csi/volumeDevices")
            .join(name);
        let file = map.join("dev").join(&self.pod.uid);
        self.node.write(&file, "")?;
        self.bind(Path::new(&device), &file)?;
        self.held_loop(&file.to_string_lossy())?;
        self.stores.push(Store::Device(file.clone()));
        self.stores.push(Store::Tree(image.into()));
        let link = Path::new("volumeDevices/kubernetes.io~csi").join(name);
        self.link(&link, &file)?;
        Ok(self.path.join(link))
    }

    /// A loop device that goes by itself, at the latest when the node ends: a process has it open, and it was told to go with the last
    /// one who has. A real lock has no such process, and stays for ever; nothing of a lab may.
    fn held_loop(&mut self, file: &str) -> Result<String> {
        let said = format!("/run/lab/loop-{}", crate::sandbox::random_uuid()?);
        let script = "device=$(losetup --find --show \"$0\") && exec 3<\"$device\" && losetup --detach \"$device\" && \
                      echo \"$device\" && exec sleep infinity";
        let holder = self.node.detach(&["--log", &said], &["sh", "-c", script, file])?;
        self.node
            .await_that("loop device", std::time::Duration::from_secs(10), &said, || {
                self.node.read(&said).is_ok_and(|text| text.ends_with('\n')) || !self.node.is_alive(holder)
            })?;
        let device = self.node.read(&said)?.trim().to_owned();
        if !device.starts_with("/dev/loop") {
            return Err(LabError::Odd(format!("no loop device: {device}")));
        }
        self.hidden.push(holder);
        Ok(device)
    }
}
