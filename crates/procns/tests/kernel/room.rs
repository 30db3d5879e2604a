//! What the tests need of the kernel, cleaned up whatever happens.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nodemend_hostfs::{FileId, Host};
use nodemend_procns::{Census, Holder, NetnsId};
use tempfile::TempDir;

const NONE: Option<&str> = None;
/// A census of one test would see the files and threads of another, which are in the same process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a test on a thread with a mount namespace of its own and an empty directory in it. What it mounts there
/// goes with the thread, also when it panics. Without root it says that the test did not run, and fails in CI.
pub fn in_private_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let said =
            format!("\n*** {name} DID NOT RUN: it makes namespaces and mounts, which needs root ***\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        assert!(
            std::env::var_os("CI").is_none(),
            "{name} must run in CI: run the tests as root there"
        );
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
        test(&path);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A census of this machine.
pub fn census() -> Census {
    Census::take(&Host::local()).unwrap()
}

/// The holders of a namespace, as the next census has them. Empty if it is not listed.
pub fn holders(id: NetnsId) -> Vec<Holder> {
    census()
        .namespace(id)
        .map(|netns| netns.holders.clone())
        .unwrap_or_default()
}

/// A new namespace that only the returned file holds.
pub fn new_namespace(kind: CloneFlags, link: &'static str) -> OwnedFd {
    let make = move || {
        unshare(kind).unwrap();
        OwnedFd::from(File::open(format!("/proc/thread-self/ns/{link}")).unwrap())
    };
    std::thread::spawn(make).join().unwrap()
}

/// A new network namespace that only the returned file holds, and its identity.
pub fn new_netns() -> (OwnedFd, NetnsId) {
    let file = new_namespace(CloneFlags::CLONE_NEWNET, "net");
    let id = FileId::of(&file).unwrap();
    (file, id)
}

/// Mounts a namespace at a path, which is made with its directories.
pub fn bind(namespace: &OwnedFd, path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(path).unwrap();
    let source = PathBuf::from(format!("/proc/self/fd/{}", namespace.as_raw_fd()));
    mount(Some(&source), path, NONE, MsFlags::MS_BIND, NONE).unwrap();
}

/// A process that is ended and reaped when dropped.
pub struct Guarded(pub Child);

impl Guarded {
    /// Starts it from the calling thread, whose namespaces it gets.
    pub fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    pub fn sleep() -> Self {
        Self::start(Command::new("sleep").arg("600"))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thread that lives in a network namespace until it is dropped.
pub struct Inhabitant {
    pub tid: u32,
    pub netns: NetnsId,
    leave: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inhabitant {
    pub fn of_new_netns() -> Self {
        let (say, hear) = channel();
        let (leave, left) = channel::<()>();
        let live = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let netns = FileId::of(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            say.send((nix::unistd::gettid().as_raw().unsigned_abs(), netns))
                .unwrap();
            let _ = left.recv();
        };
        let thread = std::thread::Builder::new()
            .name("inhabitant".into())
            .spawn(live)
            .unwrap();
        let (tid, netns) = hear.recv().unwrap();
        Self {
            tid,
            netns,
            leave: Some(leave),
            thread: Some(thread),
        }
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        drop(self.leave.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
