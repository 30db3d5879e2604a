//! The container in which a machine boots: started by the janitor, and removed by it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use super::run;
use crate::cgroups;
use crate::disk::{Format, Ground};
use crate::error::{Doing, LabError, Result};
use crate::inside::janitor::Started;
use crate::tools;

/// The machine's file system, on its disk.
const TREE: &str = "tree";

/// Room for the tree and half a million small files; only what is written takes any.
const MEGABYTES: u64 = 8 << 10;
const INODES: &str = "700000";

/// systemd-nspawn has mounted and forked by then; what comes later is systemd's.
const LIMIT: Duration = Duration::from_secs(20);

/// Calls that systemd-nspawn forbids by default, and that runc, mounts and the lab's loop devices need.
const CALLS: &str = "@keyring bpf @mount @raw-io";

/// Where trees are kept: `NODEMEND_MACHINE_CACHE`, or beside cargo's output.
pub(super) fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("NODEMEND_MACHINE_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    let lab = tools::lab_binary()?;
    let target = lab.ancestors().nth(2).unwrap_or(Path::new("/"));
    Ok(target.join("machines"))
}

/// Boots a copy of a tree.
///
/// # Errors
///
/// [`LabError::Missing`] with what systemd-nspawn said.
pub(crate) fn launch(cgroup: &str, template: &Path) -> Result<Started> {
    let home = disk()?;
    // A copy for each: containerd's overlays do not mount on an overlay.
    run(Command::new("cp").arg("-a").args([template, &home.join(TREE)]))?;
    let console = home.join("console");
    let log = File::create(&console).at("make", &console)?;
    let also = log.try_clone().at("open", &console)?;
    let mut child = command(cgroup, &home)?
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(also)
        .spawn()
        .doing(|| "start systemd-nspawn".to_owned())?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
        if let Some(first) = first_process(child.id()) {
            return Started::new(first, child);
        }
        sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(&console).unwrap_or_default();
    Err(LabError::Missing(format!("no machine: {}", said.trim())))
}

/// A disk of its own, which goes with the mount namespace and so costs nothing to remove, whatever is on it.
fn disk() -> Result<PathBuf> {
    let ground = Ground::enter()?;
    // systemd-nspawn keeps locks and sockets below /run, and a machine with systemd has its own there.
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .doing(|| "mount /run".to_owned())?;
    ground.disk_with(
        Format::Ext4,
        MEGABYTES,
        &["-O", "^has_journal", "-m", "0", "-N", INODES],
        // No power cut ends a test. Each overlay that goes syncs the disk below it, and a slow disk of the machine outside would hold up
        // everything in here until all has reached it.
        &["barrier=0"],
    )
}

/// Enters the machine's cgroup first, in every hierarchy: what the machine takes for the root is this one.
fn command(cgroup: &str, home: &Path) -> Result<Command> {
    let lab = tools::lab_binary()?;
    let programs = lab.parent().unwrap_or(Path::new("/")).to_string_lossy();
    // A machine whose C library is older than this one's needs programs without any.
    let from = std::env::var("NODEMEND_STATIC_DIR").unwrap_or_else(|_| programs.clone().into_owned());
    let enter = r#"until [ "$1" = -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-ec", enter, "sh"]);
    command.args(cgroups::make(cgroup)?.iter().map(|dir| dir.join("cgroup.procs")));
    // Should the janitor die without a word, so does the machine: systemd would outlive a systemd-nspawn that was killed, but not the first
    // process of the process ids that it lies in.
    command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]);
    command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg("systemd-nspawn");
    command.arg("--directory").arg(home.join(TREE));
    command.args([
        "--boot",
        "--quiet",
        "--machine=lab-node",
        "--register=no",
        "--keep-unit",
    ]);
    command.args(["--private-network", "--capability=all", "--console=read-only"]);
    command.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
    command.arg(format!("--system-call-filter={CALLS}"));
    command.arg(format!("--bind-ro={from}:{programs}"));
    Ok(command)
}

/// The systemd that unshare's child, systemd-nspawn, has as a child.
fn first_process(unshare: u32) -> Option<u32> {
    let nspawn = children(unshare).next()?;
    children(nspawn).find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd")
    })
}

fn children(pid: u32) -> impl Iterator<Item = u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids: Vec<u32> = list
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    pids.into_iter()
}
