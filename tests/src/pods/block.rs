//! Block volumes: a device file that stands in no file system of the pod's.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::kubelet::ROOT;
use crate::pods::{IMAGES, PodDir, Store};

impl PodDir<'_> {
    /// A block volume of a driver, as `pkg/volume/csi/csi_block.go` tells: the device, bound over two files that are named after
    /// the pod, kubelet's and the driver's, a symlink to the second in the pod's directory, and a loop device on the first, as
    /// a lock. The symlink's path.
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
        let device = self.attach(&image)?;
        // By the lab's name in the path the lock is known when the lab has ended.
        let volume = format!("{name}-of-{}", self.node.cgroup());
        let map = Path::new(ROOT).join("plugins/kubernetes.io/csi/volumeDevices");
        let file = map.join(&volume).join("dev").join(&self.pod.uid);
        let published = map.join("publish").join(&volume).join(&self.pod.uid);
        for at in [&file, &published] {
            self.node.write(at, "")?;
            self.bind(Path::new(&device), at)?;
        }
        self.attach(&file.to_string_lossy())?;
        self.stores.push(Store::Device(device.into()));
        self.stores.push(Store::Tree(image.into()));
        let link = Path::new("volumeDevices/kubernetes.io~csi").join(name);
        self.link(&link, &published)?;
        Ok(self.path.join(link))
    }

    fn attach(&self, file: &str) -> Result<String> {
        let said = self.node.exec(&["losetup", "--find", "--show", file])?;
        Ok(said.trim().to_owned())
    }
}
