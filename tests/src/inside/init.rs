//! The first process of a node: makes its namespaces and mounts, then reaps orphans until it is killed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::error::{Doing, LabError, Result};
use crate::tools;

/// The node's own directory of what is the lab's and not the node's.
pub(crate) const LAB_DIR: &str = "/run/lab";

/// Where a node has its plugins, and so does this one if `/opt` could be overlaid.
pub(crate) const OPT_PLUGINS: &str = "/opt/cni/bin";

/// Exists when it could. A plain look at the directory would take the machine's own for the node's, and write into it.
pub(crate) const OPT_IS_OURS: &str = "/run/lab/opt-is-ours";

/// The node's whole life as its pid 1. It says `ready`, or what went wrong, on standard output.
///
/// # Errors
///
/// When its standard output cannot be written: nobody waits for the node then.
pub fn run() -> Result<()> {
    // The janitor is the parent: should it die without a word, so does the node.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().doing(|| "block SIGCHLD".to_owned())?;
    let outcome = build();
    let said = match &outcome {
        Ok(()) => "ready".to_owned(),
        Err(error) => error.to_string().replace('\n', " "),
    };
    writeln!(std::io::stdout(), "{said}").doing(|| "report to the janitor".to_owned())?;
    if outcome.is_ok() { reap(&children) } else { Ok(()) }
}

/// Takes the exit status of everything that lost its parent, as every first process must: shims leave theirs at once.
fn reap(children: &SigSet) -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {
                children.wait().doing(|| "wait for SIGCHLD".to_owned())?;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fn build() -> Result<()> {
    let own = std::env::current_exe().doing(|| "find the running program".to_owned())?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .doing(|| "make mount, network, ipc and uts namespaces".to_owned())?;
    mount_at(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    drop_inherited_mounts();
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at(
        Some("proc"),
        "/proc",
        Some("proc"),
        plain | MsFlags::MS_NOEXEC,
        None,
    )?;
    mount_at(Some("tmpfs"), "/run", Some("tmpfs"), plain, Some("mode=755"))?;
    for dir in ["/var/lib", "/var/log"] {
        mount_at(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=755"),
        )?;
    }
    make_dir(Path::new(LAB_DIR))?;
    overlay("/etc").or_else(|_| copy_over("/etc"))?;
    // The machine's own configuration is not the node's, and may be for root's eyes only.
    make_dir(Path::new("/etc/cni"))?;
    mount_at(Some("tmpfs"), "/etc/cni", Some("tmpfs"), plain, Some("mode=755"))?;
    // Without it the plugins go below the lab's directory: only the configuration then knows where.
    let _ = overlay("/opt")
        .and_then(|()| make_dir(Path::new(OPT_PLUGINS)))
        .map(|()| fs::write(OPT_IS_OURS, ""));
    write_etc()?;
    nix::unistd::sethostname("lab-node").doing(|| "set the host name".to_owned())?;
    loopback_up()?;
    if !own.exists() {
        return Err(LabError::Missing(format!(
            "{} lies in a directory that the node replaces; build below /home, /work or /tmp",
            own.display()
        )));
    }
    Ok(())
}

fn mount_at(
    source: Option<&str>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<()> {
    mount(source, target, kind, flags, data).doing(|| format!("mount {target}"))
}

/// Takes off what the machine had mounted where the node gets its own: a mount that is only hidden is still listed.
///
/// In a user namespace single inherited mounts are locked and stay, hidden.
fn drop_inherited_mounts() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| point.starts_with("/run") || point.starts_with("/var/lib/")) {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).at("make", path)
}

/// Lets the node write below a directory of the machine without touching it.
fn overlay(target: &str) -> Result<()> {
    let base = format!("{LAB_DIR}/overlay{target}");
    let (upper, work) = (format!("{base}/upper"), format!("{base}/work"));
    make_dir(Path::new(&upper))?;
    make_dir(Path::new(&work))?;
    let layers = format!("lowerdir={target},upperdir={upper},workdir={work}");
    mount_at(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(&layers),
    )
}

/// The same for a kernel or a file system that refuses the overlay: a copy, of what this user may read.
fn copy_over(target: &str) -> Result<()> {
    let copy = format!("{LAB_DIR}/copy{target}");
    make_dir(Path::new(&copy))?;
    // Unreadable files (shadow) make cp fail in part, and are not missed.
    let _ = Command::new("cp")
        .args(["-a", &format!("{target}/."), &copy])
        .output();
    mount_at(Some(copy.as_str()), target, None, MsFlags::MS_BIND, None)
}

/// Files that a runtime reads for every sandbox, and that may be links to what the node does not have.
fn write_etc() -> Result<()> {
    let files = [
        ("/etc/hosts", "127.0.0.1 localhost lab-node\n"),
        ("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
        ("/etc/hostname", "lab-node\n"),
    ];
    for (path, content) in files {
        let _ = fs::remove_file(path);
        fs::write(path, content).doing(|| format!("write {path}"))?;
    }
    Ok(())
}

/// The CRI streaming server binds 127.0.0.1: without it containerd does not start.
fn loopback_up() -> Result<()> {
    let ip = tools::need("ip", "iproute2")?;
    let done = Command::new(ip)
        .args(["link", "set", "lo", "up"])
        .output()
        .doing(|| "run ip".to_owned())?;
    if done.status.success() {
        return Ok(());
    }
    Err(LabError::Missing(
        String::from_utf8_lossy(&done.stderr).into_owned(),
    ))
}
