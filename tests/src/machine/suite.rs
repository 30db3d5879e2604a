//! The Debian of a machine, and with it the version of containerd.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{nspawn, run};
use crate::cri;
use crate::error::{Doing, LabError, Result};
use crate::tools;

/// Where packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";

const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps,util-linux,containerd,runc,containernetworking-plugins";

/// A Debian release, for its containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 11: containerd 1.4, whose CRI is v1alpha2 only, and glibc 2.31.
    Bullseye,
    /// Debian 12: containerd 1.6.
    Bookworm,
    /// Debian 13: containerd 1.7.
    Trixie,
    /// Debian 13 with the containerd of unstable: 2.1. That one's own systemd refuses cgroup v1.
    Sid,
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 4] = [Suite::Bullseye, Suite::Bookworm, Suite::Trixie, Suite::Sid];

    /// The one that `NODEMEND_MACHINE_SUITE` names; Debian 12 without it.
    ///
    /// # Errors
    ///
    /// [`LabError::Odd`] when it names none.
    pub fn asked() -> Result<Suite> {
        let Ok(name) = std::env::var("NODEMEND_MACHINE_SUITE") else {
            return Ok(Suite::Bookworm);
        };
        let known = Suite::ALL.into_iter().find(|suite| suite.name() == name);
        known.ok_or_else(|| LabError::Odd(format!("NODEMEND_MACHINE_SUITE={name} is no suite of the lab")))
    }

    /// Its name, as in a list of package sources.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bullseye => "bullseye",
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
        }
    }

    pub(crate) fn cri(self) -> cri::Version {
        match self {
            Suite::Bullseye => cri::Version::V1Alpha2,
            Suite::Bookworm | Suite::Trixie | Suite::Sid => cri::Version::V1,
        }
    }

    /// An installed tree of it, made once and kept; nobody boots or changes it.
    pub(super) fn tree(self) -> Result<PathBuf> {
        let cache = nspawn::cache()?;
        fs::create_dir_all(&cache).at("make", &cache)?;
        let tree = cache.join(self.name());
        let lock = cache.join(format!("{}.lock", self.name()));
        let lock = File::create(&lock).at("make", &lock)?;
        lock.lock()
            .doing(|| format!("lock the tree of {}", self.name()))?;
        if !tree.exists() {
            let part = cache.join(format!("{}.part", self.name()));
            // What an interrupted one has left.
            let _ = fs::remove_dir_all(&part);
            self.install(&part)?;
            fs::rename(&part, &tree).at("finish", &tree)?;
        }
        Ok(tree)
    }

    fn install(self, tree: &Path) -> Result<()> {
        if self == Suite::Sid {
            run(Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .args([Suite::Trixie.tree()?.as_path(), tree]))?;
            return newest_containerd(tree);
        }
        tools::need("debootstrap", "debootstrap")?;
        // It mounts /proc in the tree, which must not be there when an interrupted one is removed.
        run(Command::new("unshare")
            .args(["--mount", "--propagation=private", "debootstrap"])
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), self.name()])
            .arg(tree)
            .arg(MIRROR))?;
        for unneeded in [
            "var/cache/apt/archives",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/locale",
            "usr/share/man",
        ] {
            let path = tree.join(unneeded);
            fs::remove_dir_all(&path).at("empty", &path)?;
            fs::create_dir_all(&path).at("make", &path)?;
        }
        // The runtime starts when it is configured, and nothing of this may look for a network.
        for unit in [
            "multi-user.target.wants/containerd.service",
            "timers.target.wants",
        ] {
            let path = tree.join("etc/systemd/system").join(unit);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        for (file, content) in [
            ("etc/hostname", "lab-node\n"),
            ("etc/hosts", "127.0.0.1 localhost lab-node\n"),
            ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
        ] {
            let path = tree.join(file);
            let _ = fs::remove_file(&path);
            fs::write(&path, content).at("write", &path)?;
        }
        Ok(())
    }
}

/// Puts unstable's containerd into a tree of Debian 13: its three programs need no newer library.
fn newest_containerd(tree: &Path) -> Result<()> {
    let list = tree.join("etc/apt/sources.list.d/unstable.list");
    fs::write(&list, format!("deb {MIRROR} sid main\n")).at("write", &list)?;
    // The machine's own servers of names, while it downloads.
    let names = tree.join("etc/resolv.conf");
    let own = fs::read(&names).at("read", &names)?;
    let _ = fs::copy("/etc/resolv.conf", &names);
    let script = "set -e
        cd /root
        apt-get update -qq -o Acquire::Check-Valid-Until=false
        apt-get download -qq containerd/sid
        dpkg-deb -x containerd_*.deb new
        for program in containerd containerd-shim-runc-v2 ctr; do cp new/usr/bin/$program /usr/bin/$program; done
        rm -rf new containerd_*.deb /var/lib/apt/lists/* /var/cache/apt/archives/*.deb";
    run(Command::new("chroot").arg(tree).args(["sh", "-c", script]))?;
    fs::write(&names, own).at("write", &names)
}
