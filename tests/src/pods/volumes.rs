//! Volumes of every plugin, as the plugins make them.

use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::kubelet::ROOT;
use crate::pods::{EXPORTS, LOCAL_DISKS, PodDir, Store};

/// A volume by its plugin, and by whether it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A secret: files on memory.
    Secret,
    /// A projected volume, as of a service account's token: files on memory.
    Projected,
    /// Fields of the pod: files on memory.
    DownwardApi,
    /// A config map: files on the disk, behind symlinks.
    ConfigMap,
    /// Scratch space on the disk, with files.
    EmptyDir,
    /// Scratch space on memory, with files.
    MemoryDir,
    /// A clone, with a change that was never pushed.
    GitRepo,
    /// A directory of the same file system, bound.
    Local,
    /// A network file system (memory that says it is from a server), mounted.
    Nfs,
    /// A driver's volume.
    Csi(Csi),
    /// A vendor's volume, mounted.
    FlexMounted,
    /// A vendor's volume whose driver keeps its data in the directory itself.
    FlexUnmounted,
}

impl Volume {
    /// Each row of kubelet's plugins once, as a healthy pod has them.
    pub fn all() -> Vec<(&'static str, Volume)> {
        let csi = |global| {
            Volume::Csi(Csi {
                global,
                ..Csi::default()
            })
        };
        vec![
            ("secret", Volume::Secret),
            ("token", Volume::Projected),
            ("podinfo", Volume::DownwardApi),
            ("config", Volume::ConfigMap),
            ("scratch", Volume::EmptyDir),
            ("shm", Volume::MemoryDir),
            ("clone", Volume::GitRepo),
            ("local-pv", Volume::Local),
            ("nfs-pv", Volume::Nfs),
            ("csi-pv", csi(Global::ByHandle)),
            ("csi-old-pv", csi(Global::ByName)),
            ("flex", Volume::FlexMounted),
        ]
    }

    /// The name of its plugin, as it stands in `volumes`.
    pub fn plugin(&self) -> &'static str {
        match self {
            Volume::Secret => "kubernetes.io~secret",
            Volume::Projected => "kubernetes.io~projected",
            Volume::DownwardApi => "kubernetes.io~downward-api",
            Volume::ConfigMap => "kubernetes.io~configmap",
            Volume::EmptyDir | Volume::MemoryDir => "kubernetes.io~empty-dir",
            Volume::GitRepo => "kubernetes.io~git-repo",
            Volume::Local => "kubernetes.io~local-volume",
            Volume::Nfs => "kubernetes.io~nfs",
            Volume::Csi(_) => "kubernetes.io~csi",
            Volume::FlexMounted => "ceph.rook.io~rook",
            Volume::FlexUnmounted => "alicloud~nas",
        }
    }
}

/// A CSI volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csi {
    /// The driver's name.
    pub driver: String,
    /// Where it is staged.
    pub global: Global,
    /// Whether something is mounted at `mount`; else the data lies in it.
    pub mounted: bool,
    /// Whether there is a `vol_data.json`.
    pub record: bool,
    /// Whether it ends with its pod.
    pub ephemeral: bool,
}

/// Where kubelet has a driver stage a volume for the node, once for all of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// Nowhere.
    None,
    /// By the hash of its handle, since 1.24.
    ByHandle,
    /// By its name, before.
    ByName,
}

impl Default for Csi {
    fn default() -> Self {
        Csi {
            driver: "csi.example.org".to_owned(),
            global: Global::ByHandle,
            mounted: true,
            record: true,
            ephemeral: false,
        }
    }
}

impl Csi {
    /// Mounted, and staged nowhere: its record is nobody's when the mount is gone.
    pub fn unstaged() -> Csi {
        Csi {
            global: Global::None,
            ..Csi::default()
        }
    }

    /// Of a driver that does not mount: the data is in the pod's directory.
    pub fn unmounted() -> Csi {
        Csi {
            mounted: false,
            ..Csi::unstaged()
        }
    }

    /// The driver's own name of a volume.
    pub fn handle(name: &str) -> String {
        format!("handle-of-{name}")
    }

    /// Where the volume is staged, inside the node.
    pub fn global_mount(&self, name: &str) -> Option<PathBuf> {
        let base = Path::new(ROOT).join("plugins/kubernetes.io/csi");
        let digest = Sha256::digest(Csi::handle(name));
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.global {
            Global::None => None,
            Global::ByHandle => Some(base.join(&self.driver).join(hash).join("globalmount")),
            Global::ByName => Some(base.join("pv").join(name).join("globalmount")),
        }
    }
}

impl PodDir<'_> {
    /// Every row of [`Volume::all`], hosts file, messages and logs.
    ///
    /// # Errors
    ///
    /// When something cannot be made.
    pub fn furnish(&mut self) -> Result<()> {
        for (name, volume) in Volume::all() {
            self.volume(name, &volume)?;
        }
        self.etc_hosts()?;
        self.container("app")?;
        self.logs("app").map(drop)
    }

    /// The same without what a purge refuses: its drivers' volumes are staged nowhere, and have names of their own.
    ///
    /// # Errors
    ///
    /// When something cannot be made.
    pub fn furnish_unstaged(&mut self) -> Result<()> {
        for (name, mut volume) in Volume::all() {
            if let Volume::Csi(csi) = &mut volume {
                csi.global = Global::None;
            }
            self.volume(&format!("gone-{name}"), &volume)?;
        }
        self.etc_hosts()?;
        self.container("app")
    }

    /// Where a volume of this name is, whether or not it is there.
    pub fn leaf(&self, name: &str, volume: &Volume) -> PathBuf {
        let dir = self.path.join("volumes").join(volume.plugin()).join(name);
        if matches!(volume, Volume::Csi(_)) {
            dir.join("mount")
        } else {
            dir
        }
    }

    /// Makes a volume with its content; the leaf that it is, inside the node. Two pods with a durable volume of the same name share it.
    ///
    /// # Errors
    ///
    /// When it cannot be made or mounted.
    pub fn volume(&mut self, name: &str, volume: &Volume) -> Result<PathBuf> {
        let leaf = self.leaf(name, volume);
        self.node.make_dirs(&leaf)?;
        match volume {
            Volume::Secret | Volume::Projected | Volume::DownwardApi => {
                self.tmpfs("tmpfs", &leaf)?;
                self.atomic_files(&leaf)?;
                self.ready(&format!("wrapped_{name}"))?;
            }
            Volume::ConfigMap => {
                self.atomic_files(&leaf)?;
                self.ready(&format!("wrapped_{name}"))?;
            }
            Volume::MemoryDir => {
                self.tmpfs("tmpfs", &leaf)?;
                self.node.write(leaf.join("scratch"), "scratch on memory\n")?;
                self.ready(name)?;
            }
            Volume::EmptyDir => {
                self.node.write(leaf.join("scratch"), "scratch\n")?;
                self.node.write(leaf.join("deep/er/file"), "deeper\n")?;
                self.ready(name)?;
            }
            Volume::GitRepo => {
                self.node
                    .write(leaf.join(".git/HEAD"), "ref: refs/heads/main\n")?;
                self.node.write(leaf.join("changed"), "never pushed\n")?;
                self.ready(&format!("wrapped_{name}"))?;
            }
            Volume::Local => {
                let from = Path::new(LOCAL_DISKS).join(name);
                self.store(&from)?;
                self.bind(&from, &leaf)?;
            }
            Volume::Nfs | Volume::FlexMounted => {
                let from = self.export(name)?;
                self.bind(&from, &leaf)?;
            }
            Volume::FlexUnmounted => {
                self.node.write(leaf.join("data"), "the only copy\n")?;
            }
            Volume::Csi(csi) => self.csi(name, csi, &leaf)?,
        }
        Ok(leaf)
    }

    /// Files that change all at once (`pkg/volume/util/atomic_writer.go`).
    fn atomic_files(&self, leaf: &Path) -> Result<()> {
        let dated = "..2026_01_05_10_00_00.123456789";
        self.node.write(leaf.join(dated).join("key"), "value\n")?;
        self.link(leaf.join("..data"), dated)?;
        self.link(leaf.join("key"), "..data/key")
    }

    /// The mark that a volume of emptyDir, or one wrapped around it, is set up.
    fn ready(&self, name: &str) -> Result<()> {
        self.write(format!("plugins/kubernetes.io~empty-dir/{name}/ready"), "")
    }

    /// Memory that says it is from a server, mounted once in the node.
    fn export(&mut self, name: &str) -> Result<PathBuf> {
        let at = Path::new(EXPORTS).join(name);
        if self.node.path(&at).exists() {
            self.stores.push(Store::Tree(at.clone()));
            return Ok(at);
        }
        self.node.make_dirs(&at)?;
        self.tmpfs(&format!("10.0.0.9:/exports/{name}"), &at)?;
        self.store(&at)?;
        Ok(at)
    }

    fn csi(&mut self, name: &str, csi: &Csi, leaf: &Path) -> Result<()> {
        let staged = csi.global_mount(name);
        if let Some(at) = &staged {
            self.stage(name, csi, at)?;
        }
        if csi.record {
            let record = json!({
                "attachmentID": format!("csi-{}", Csi::handle(name)),
                "driverName": csi.driver,
                "nodeName": "lab-node",
                "specVolID": name,
                "volumeHandle": Csi::handle(name),
                "volumeLifecycleMode": if csi.ephemeral { "Ephemeral" } else { "Persistent" },
                "seLinuxMountContext": "",
            });
            self.node
                .write(leaf.with_file_name("vol_data.json"), &record.to_string())?;
        }
        match (csi.mounted, staged) {
            (false, _) => self.node.write(leaf.join("data"), "the only copy\n"),
            (true, Some(at)) => self.bind(&at, leaf),
            (true, None) => {
                let from = self.export(name)?;
                self.bind(&from, leaf)
            }
        }
    }

    /// A disk of its own: an ext4 on a loop device, mounted once for the node.
    fn stage(&mut self, name: &str, csi: &Csi, at: &Path) -> Result<()> {
        let data = at.with_file_name("vol_data.json");
        if self.node.path(&data).exists() {
            self.stores.push(Store::Tree(at.to_owned()));
            return Ok(());
        }
        let record = json!({"driverName": csi.driver, "volumeHandle": Csi::handle(name)});
        self.node.write(&data, &record.to_string())?;
        self.stores.push(Store::Tree(data));
        self.node.make_dirs(at)?;
        let image = self.node.ext4(&format!("{name}-{}", csi.driver), 1, None)?;
        self.node.mount_image(&image, &at.to_string_lossy())?;
        self.store(at)
    }

    /// A subpath: a directory or a file of a volume, or of the host, bound by its number. `from` is inside the node.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn subpath(&self, volume: &str, index: u32, from: &Path) -> Result<PathBuf> {
        let below = format!("volume-subpaths/{volume}/app/{index}");
        if self.node.path(from).is_dir() {
            self.make(&below)?;
        } else {
            self.write(&below, "")?;
        }
        let at = self.path.join(below);
        self.bind(from, &at)?;
        Ok(at)
    }

    /// Unmounts one of its mounts, the topmost at that path, as a repair by hand or a reboot does: the directory stays.
    ///
    /// # Errors
    ///
    /// When nothing is mounted there.
    pub fn unmount(&self, at: &Path) -> Result<()> {
        self.node.exec(&["umount", &at.to_string_lossy()]).map(drop)
    }
}
