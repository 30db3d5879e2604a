//! Measures a census of a full node: makes a thousand processes, each in a network and mount namespace of its own,
//! and a thousand mounts of their network namespaces in a mount namespace of this process, and takes a census a few
//! times. Needs root. Everything ends with this process.
//!
//! `cargo run --release -p nodemend-procns --example thousand [processes]`
#![allow(clippy::print_stdout, clippy::use_debug)]

use std::error::Error;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nodemend_hostfs::Host;
use nodemend_procns::{Census, Holder};
use rustix::time::ClockId;

/// Ends and reaps its processes, also on failure.
struct Pods(Vec<Child>);

impl Drop for Pods {
    fn drop(&mut self) {
        for pod in &mut self.0 {
            let _ = pod.kill();
        }
        for pod in &mut self.0 {
            let _ = pod.wait();
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1).map_or(Ok(1000), |count| count.parse())?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let mut pods = Pods(Vec::new());
    for _ in 0..count {
        pods.0.push(
            Command::new("unshare")
                .args(["--net", "--mount", "sleep", "3600"])
                .stdin(Stdio::null())
                .spawn()?,
        );
    }
    wait(count)?;
    let dir = tempfile::tempdir()?;
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), none)?;
    for (at, pod) in pods.0.iter().enumerate() {
        let path = dir.path().join(format!("cni-{at}"));
        File::create(&path)?;
        mount(
            Some(format!("/proc/{}/ns/net", pod.id()).as_str()),
            &path,
            none,
            MsFlags::MS_BIND,
            none,
        )?;
    }
    for _ in 0..10 {
        let (start, busy) = (Instant::now(), processor_time());
        let census = Census::take(&Host::local())?;
        let (took, busy) = (start.elapsed(), processor_time().saturating_sub(busy));
        let mounted = census
            .namespaces
            .iter()
            .filter(|netns| netns.holders.iter().any(is_mount))
            .count();
        println!(
            "{took:.1?}, {busy:.1?} of processor time: {} processes, {} network namespaces, {mounted} mounted",
            census.processes.len(),
            census.namespaces.len()
        );
    }
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH)?;
    Ok(())
}

/// That of this process, in all its threads.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn is_mount(holder: &Holder) -> bool {
    matches!(holder, Holder::Mount { .. })
}

/// Until every process has left our network namespace.
fn wait(count: usize) -> Result<(), nodemend_procns::Error> {
    while Census::take(&Host::local())?.namespaces.len() <= count {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
