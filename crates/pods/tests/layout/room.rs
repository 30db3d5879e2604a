//! A kubelet root on a disk of its own, in a mount namespace of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nodemend_hostfs::Host;
use nodemend_lab::disk::{Format, Ground};
use nodemend_pods::{Class, Content, Layout, LayoutOptions, PodDir, Volume, layout};
use nodemend_procns::Census;

pub const ONE: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
pub const TWO: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b12";

/// Long before any test is that slow, something hangs.
const AT_ONCE: Duration = Duration::from_millis(1900);

pub struct Room {
    pub ground: Ground,
    pub disk: PathBuf,
    pub root: PathBuf,
}

impl Room {
    /// With an ext4 and the root `kubelet` on it.
    pub fn new() -> Self {
        Self::on(Format::Ext4, 64)
    }

    /// On another file system, of so many megabytes.
    pub fn on(format: Format, megabytes: u64) -> Self {
        let ground = Ground::enter().unwrap();
        let disk = ground.disk(format, megabytes).unwrap();
        let root = disk.join("kubelet");
        fs::create_dir_all(root.join("pods")).unwrap();
        Self { ground, disk, root }
    }

    pub fn pod(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// A directory below the first pod, with files.
    pub fn dir(&self, below: &str, files: &[&str]) -> PathBuf {
        let dir = self.pod(ONE).join(below);
        fill(&dir, files);
        dir
    }

    pub fn look(&self) -> Layout {
        self.look_at(&self.root)
    }

    pub fn look_at(&self, root: &Path) -> Layout {
        look(&LayoutOptions {
            kubelet_root: Some(root.to_owned()),
            ..LayoutOptions::default()
        })
    }

    pub fn first(&self) -> PodDir {
        let layout = self.look();
        assert_eq!(layout.unread, Vec::<String>::new());
        layout
            .pods
            .into_iter()
            .find(|pod| pod.uid.as_str() == ONE)
            .map(Arc::unwrap_or_clone)
            .unwrap()
    }
}

/// Takes a look, which must not be slow.
pub fn look(options: &LayoutOptions) -> Layout {
    let host = Host::local();
    let census = Census::take(&host).unwrap();
    let start = Instant::now();
    let layout = layout(&host, options, &census).unwrap();
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    layout
}

pub fn fill(dir: &Path, files: &[&str]) {
    fs::create_dir_all(dir).unwrap();
    for file in files {
        fs::write(dir.join(file), "1234567").unwrap();
    }
}

pub fn bind(from: &Path, to: &Path) {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND, none).unwrap();
}

pub fn tmpfs(at: &Path) {
    let none: Option<&str> = None;
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

/// A FUSE file system whose requests nobody reads: to ask it is to wait until this is dropped.
pub struct Dead(#[allow(dead_code, reason = "held")] File);

impl Dead {
    pub fn mount(at: &Path) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(
            Some("dead"),
            at,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        Self(device)
    }
}

/// A shell in a mount namespace of its own that has done something and stays.
pub struct Elsewhere(Child);

impl Elsewhere {
    pub fn with(script: &str) -> Self {
        let script = format!("set -e; {script}; echo ready; read end");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn volume<'a>(pod: &'a PodDir, path: &str) -> &'a Volume {
    let found = pod.volumes.iter().find(|volume| volume.path == Path::new(path));
    found.unwrap_or_else(|| panic!("no {path} among {:#?}", pod.volumes))
}

/// Class and content of a volume.
pub fn told(pod: &PodDir, path: &str) -> (Class, Content) {
    let volume = volume(pod, path);
    (volume.class, volume.content.clone())
}

/// How many entries and bytes were counted.
pub fn counted(content: &Content) -> (u64, u64) {
    match content {
        Content::Files {
            entries, bytes, more, ..
        } => {
            assert!(!more);
            (*entries, *bytes)
        }
        other => panic!("{other:?}"),
    }
}
