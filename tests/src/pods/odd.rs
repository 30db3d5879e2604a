//! What makes a pod directory dangerous: mounts on mounts, in volumes, that hang, and that only others see.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Doing, LabError, Result};
use crate::kubelet::{PODS, ROOT};
use crate::node::Node;
use crate::pods::{PodDir, Store};
use crate::sandbox::random_uuid;
use crate::tools;

const PATIENCE: Duration = Duration::from_secs(10);

impl PodDir<'_> {
    /// Mounts memory on top of what is mounted there already, with a file in it.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn stack(&self, at: &Path) -> Result<()> {
        self.tmpfs("stacked", at)?;
        self.node.write(at.join("on-top"), "on top\n")
    }

    /// Binds a directory of the same file system somewhere below an emptyDir, as a privileged pod with bidirectional propagation does.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn nest_bind(&mut self, below: &Path) -> Result<PathBuf> {
        let from = Path::new(crate::pods::LOCAL_DISKS).join(format!("nested-{}", random_uuid()?));
        self.store(&from)?;
        let at = below.join("deep/er/nested");
        self.node.make_dirs(&at)?;
        self.bind(&from, &at)?;
        Ok(at)
    }

    /// An overlay below an emptyDir, all of whose layers are in it too.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn nest_overlay(&self, below: &Path) -> Result<PathBuf> {
        let base = below.join("overlay");
        for layer in ["lower", "upper", "work", "merged"] {
            self.node.make_dirs(base.join(layer))?;
        }
        self.node.write(base.join("lower/file"), "of the lower layer\n")?;
        let at = base.join("merged");
        let base = base.to_string_lossy();
        let layers = format!("lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work");
        self.node.exec(&[
            "mount",
            "-t",
            "overlay",
            "-o",
            &layers,
            "overlay",
            &at.to_string_lossy(),
        ])?;
        self.node.write(at.join("written"), "through the overlay\n")?;
        Ok(at)
    }

    /// Mounts a file system at a path that answers nothing: whoever asks waits until [`PodDir::end_hang`] or SIGKILL.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn hang(&mut self, at: &Path) -> Result<u32> {
        self.node.make_dirs(at)?;
        let holder = self.node.hang_at(at)?;
        self.hidden.push(holder);
        Ok(holder)
    }

    /// Lets the process behind [`PodDir::hang`] die: from now on everybody gets ENOTCONN.
    ///
    /// # Errors
    ///
    /// When it does not die.
    pub fn end_hang(&self, holder: u32) -> Result<()> {
        self.node.kill(&[holder])
    }

    /// A mount that only one process has, at a path of this directory: what lies there on the disk is covered for that process alone. Its data
    /// is a store from now on. The process, by its id inside.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn elsewhere(&mut self, at: &Path) -> Result<u32> {
        let from = Path::new(crate::pods::LOCAL_DISKS).join(format!("elsewhere-{}", random_uuid()?));
        self.store(&from)?;
        let script = format!("mount --bind '{}' '{}'", from.display(), at.display());
        self.node.make_dirs(at)?;
        let pid = self.node.in_own_mounts(&script)?;
        self.hidden.push(pid);
        self.stores.push(Store::SeenBy(pid, at.to_owned()));
        Ok(pid)
    }

    /// A container of the pod, as far as mounts go: a process with mounts of its own that has the pod's hosts file at `/etc/hosts`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn hosts_in_a_container(&mut self) -> Result<u32> {
        let from = self.path.join("etc-hosts");
        let pid = self
            .node
            // A container does not see kubelet's root.
            .in_own_mounts(&format!(
                "mount --bind '{}' /etc/hosts\numount --lazy {ROOT}",
                from.display()
            ))?;
        self.hidden.push(pid);
        Ok(pid)
    }

    /// A process that has a file of this directory open.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub fn hold_open(&mut self, file: &Path) -> Result<u32> {
        let pid = self.node.stays(&format!("exec 3<'{}'", file.display()), &[])?;
        self.hidden.push(pid);
        Ok(pid)
    }

    /// A process whose working directory is in this directory.
    ///
    /// # Errors
    ///
    /// When there is no such directory.
    pub fn work_in(&mut self, dir: &Path) -> Result<u32> {
        let pid = self.node.stays(&format!("cd '{}'", dir.display()), &[])?;
        self.hidden.push(pid);
        Ok(pid)
    }
}

impl Node {
    /// Runs lines of shell in a mount namespace of their own, and stays there; the process, by its id inside. What was mounted in pod
    /// directories before is not in it.
    ///
    /// # Errors
    ///
    /// When one of the lines fails.
    pub fn in_own_mounts(&self, script: &str) -> Result<u32> {
        let lab = tools::lab_binary()?;
        self.stays(script, &[&lab.to_string_lossy(), "apart"])
    }

    fn stays(&self, script: &str, through: &[&str]) -> Result<u32> {
        let log = format!("/run/lab/stays-{}", random_uuid()?);
        let script = format!("set -e\n{script}\necho ready\nexec sleep infinity >/dev/null 2>&1");
        let argv = [through, &["sh", "-c", &script]].concat();
        self.until_ready(&log, &argv)
    }

    /// Mounts FUSE at a path of the node, and answers nothing; the process, by its id inside.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn hang_at(&self, at: &Path) -> Result<u32> {
        let lab = tools::lab_binary()?;
        let log = format!("/run/lab/hang-{}", random_uuid()?);
        self.until_ready(&log, &[&lab.to_string_lossy(), "hang", &at.to_string_lossy()])
    }

    fn until_ready(&self, log: &str, argv: &[&str]) -> Result<u32> {
        let pid = self.detach(&["--log", log], argv)?;
        self.await_that("process that is ready", PATIENCE, log, || {
            self.read(log).is_ok_and(|said| said.contains("ready")) || !self.is_alive(pid)
        })?;
        if self.is_alive(pid) {
            return Ok(pid);
        }
        Err(LabError::Odd(format!(
            "{} ended: {}",
            argv.join(" "),
            self.read(log).unwrap_or_default().trim()
        )))
    }
}

/// The subcommand: becomes another program in a mount namespace of its own. The copies that such a namespace begins with are taken off in pod
/// directories, and of block volumes: no container has them, and each would keep a pod alive that is none of its business.
///
/// # Errors
///
/// When there is no such program.
pub fn apart(argv: &[String]) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace".to_owned())?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).at("make private", Path::new("/"))?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").doing(|| "read the mounts".to_owned())?;
    let points = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
    let is_of_a_pod = |point: &&str| point.starts_with(PODS) || point.contains("/volumeDevices/");
    for point in points.filter(is_of_a_pod) {
        // One that lies on another may have gone with it.
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| LabError::Odd("nothing to run".to_owned()))?;
    let source = Command::new(program).args(arguments).exec();
    Err(LabError::Io {
        what: format!("run {program}"),
        source,
    })
}

/// The subcommand: mounts FUSE without a server behind it. The first request, the kernel's own, is never read.
///
/// # Errors
///
/// When there is no `/dev/fuse`, or it cannot be mounted.
pub fn hang(at: &Path) -> Result<()> {
    let device = Path::new("/dev/fuse");
    let file = File::options()
        .read(true)
        .write(true)
        .open(device)
        .at("open", device)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", file.as_raw_fd());
    mount(
        Some("hung"),
        at,
        Some("fuse"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .at("mount", at)?;
    writeln!(std::io::stdout(), "ready").doing(|| "say ready".to_owned())?;
    loop {
        thread::park();
    }
}
