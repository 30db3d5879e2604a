//! What is told of a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use nodemend_hostfs::Host;
use nodemend_procns::{Census, CniCall, Error, Process};

use crate::room::{Guarded, census, in_private_mounts};

fn process(census: &Census, child: &Guarded) -> Process {
    census
        .process(child.0.id())
        .unwrap_or_else(|| panic!("{} is not listed", child.0.id()))
        .clone()
}

#[test]
fn a_tree_on_disk_holds_no_processes() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Census::take(&Host::at(dir.path())),
        Err(Error::NotRunning { .. })
    ));
}

#[test]
fn a_cni_plugin_is_known_by_its_environment() {
    in_private_mounts(|_| {
        let id = "c0ffee".repeat(10);
        let plugin = Guarded::start(Command::new("sleep").arg("600").envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", id.as_str()),
            ("CNI_NETNS", "/run/netns/cni-1"),
            ("CNI_IFNAME", "eth0"),
        ]));
        let call = CniCall {
            command: "ADD".into(),
            container_id: id,
            netns: PathBuf::from("/run/netns/cni-1"),
            ifname: "eth0".into(),
        };
        let census = census();
        assert_eq!(process(&census, &plugin).cni, Some(call.clone()));
        assert!(
            census
                .cni_calls()
                .any(|(process, known)| process.pid == plugin.0.id() && *known == call)
        );
        let other = census.process(std::process::id()).unwrap();
        assert_eq!(other.cni, None);
    });
}

/// A control group, removed when dropped. The process in it must have ended by then.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(root: &Path, name: &str) -> Self {
        std::fs::create_dir(root.join(name)).unwrap();
        Self(root.join(name))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_container_of_a_process_is_known_by_its_cgroup() {
    in_private_mounts(|dir| {
        let root = dir.join("cgroup");
        std::fs::create_dir(&root).unwrap();
        mount(
            Some("none"),
            &root,
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let id = format!("{:064x}", std::process::id());
        let cgroup = Cgroup::make(&root, &format!("cri-containerd-{id}.scope"));
        let child = Guarded::sleep();
        std::fs::write(cgroup.0.join("cgroup.procs"), child.0.id().to_string()).unwrap();
        assert_eq!(process(&census(), &child).container_ids, [id]);
        drop(child);
    });
}

#[test]
fn a_zombie_is_listed_and_holds_nothing() {
    in_private_mounts(|_| {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Guarded::start(&mut Command::new("true"))
        };
        let zombie = std::thread::spawn(make).join().unwrap();
        let pid = Pid::from_raw(zombie.0.id().try_into().unwrap());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_err();
        assert_eq!(link.kind(), std::io::ErrorKind::NotFound);
        let census = census();
        assert_eq!(process(&census, &zombie).netns, None);
        let said = format!("process {pid}:");
        assert!(
            !census.unread.iter().any(|reason| reason.starts_with(&said)),
            "{:?}",
            census.unread
        );
        assert_eq!(
            nodemend_procns::cmdline(&Host::local(), zombie.0.id())
                .unwrap()
                .len(),
            0
        );
    });
}

#[test]
fn a_process_is_the_same_by_pid_and_start_time() {
    in_private_mounts(|_| {
        let child = Guarded::sleep();
        let seen = process(&census(), &child);
        assert!(seen.same_as(&process(&census(), &child)));
        assert!(!seen.same_as(&Process {
            start_time: seen.start_time + 1,
            ..seen.clone()
        }));
        assert!(seen.is_there(&Host::local()).unwrap());
        let words = nodemend_procns::cmdline(&Host::local(), seen.pid).unwrap();
        assert_eq!(words, ["sleep", "600"]);
        drop(child);
        assert!(!seen.is_there(&Host::local()).unwrap());
        assert!(
            nodemend_procns::cmdline(&Host::local(), seen.pid)
                .unwrap()
                .is_empty()
        );
    });
}
