//! Processes that keep a network namespace alive in the ways that are hard to see.

use std::fs::File;
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, LabError, Result};
use crate::inside::init::LAB_DIR;

/// How a process holds a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A helper thread is in it; `/proc/<pid>/ns/net` of the process says otherwise.
    Thread,
    /// A file descriptor of it is open.
    Fd,
    /// A socket was made in it. Nothing in /proc names the namespace.
    Socket,
    /// It is bind-mounted in a mount namespace that only this process has.
    Mount,
}

impl Hold {
    /// Every way, with its name on the command line.
    pub const ALL: [(&'static str, Hold); 4] = [
        ("thread", Hold::Thread),
        ("fd", Hold::Fd),
        ("socket", Hold::Socket),
        ("mount", Hold::Mount),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, way)| *way == self)
            .map_or("", |(name, _)| name)
    }

    /// The way of that name.
    pub fn named(name: &str) -> Option<Hold> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, way)| *way)
    }
}

/// Takes hold of the namespace at `netns`, says `ready`, and idles until killed.
///
/// # Errors
///
/// When it cannot be held that way.
pub fn run(way: Hold, netns: &Path) -> Result<()> {
    let target = File::open(netns).at("open", netns)?;
    match way {
        Hold::Thread => {
            in_helper(move || {
                setns(&target, CloneFlags::CLONE_NEWNET).doing(|| "enter the namespace".to_owned())?;
                drop(target);
                Ok(())
            })?;
            idle(())
        }
        Hold::Fd => idle(target),
        Hold::Socket => {
            let socket = socket_made_in(&target)?;
            drop(target);
            idle(socket)
        }
        Hold::Mount => {
            drop(target);
            mount_elsewhere(netns)?;
            idle(())
        }
    }
}

/// Runs something in a thread that then stays for ever, in whatever namespace it has gone to.
fn in_helper(enter: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let (say, hear) = mpsc::channel();
    thread::spawn(move || {
        let outcome = enter();
        if say.send(outcome).is_ok() {
            loop {
                thread::park();
            }
        }
    });
    hear.recv()
        .map_err(|_gone| LabError::Odd("the helper thread ended".to_owned()))?
}

/// A socket belongs to the namespace of the thread that made it, wherever that thread is later.
fn socket_made_in(target: &File) -> Result<UdpSocket> {
    let target = target.try_clone().doing(|| "duplicate a descriptor".to_owned())?;
    let made = thread::spawn(move || {
        setns(&target, CloneFlags::CLONE_NEWNET).doing(|| "enter the namespace".to_owned())?;
        UdpSocket::bind("0.0.0.0:0").doing(|| "make a socket".to_owned())
    });
    made.join()
        .map_err(|_panic| LabError::Odd("the helper thread panicked".to_owned()))?
}

/// Under another path than the original: removing a file takes off whatever is mounted on it in every mount namespace.
fn mount_elsewhere(netns: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace".to_owned())?;
    let mounted = |source: Option<&Path>, target: &Path, kind: Option<&str>, flags: MsFlags| {
        mount(source, target, kind, flags, None::<&str>).at("mount", target)
    };
    mounted(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    mounted(
        Some(Path::new("tmpfs")),
        Path::new(LAB_DIR),
        Some("tmpfs"),
        MsFlags::empty(),
    )?;
    let held = Path::new(LAB_DIR).join("held");
    File::create(&held).at("make", &held)?;
    mounted(Some(netns), &held, None, MsFlags::MS_BIND)
}

/// Keeps what holds the namespace, for ever.
fn idle<T>(_held: T) -> Result<()> {
    writeln!(std::io::stdout(), "ready").doing(|| "say ready".to_owned())?;
    loop {
        thread::park();
    }
}
