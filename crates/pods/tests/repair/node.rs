//! A scratch node: kubelet's root on an ext4 of its own, in a private mount namespace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nodemend_evidence::{Claim, Evidence, Look, Orphan, Outcome, Source, Verdict, judge};
use nodemend_hostfs::{FileId, StateDir};
use nodemend_lab::disk::{Format, Ground};
use nodemend_pods::{
    Again, Class, Content, CsiVolume, Looks, Part, Places, PodDir, PodIdentity, Purge, Repair, Tools, Uid,
    Volume, apply,
};
use rustix::fs::{AtFlags, CWD, StatxFlags};

pub(crate) struct Node {
    pub(crate) ground: Option<Ground>,
    pub(crate) root: PathBuf,
    pub(crate) state: StateDir,
    pub(crate) places: Places,
    /// Data behind mounts: on the same file system, beside kubelet's root.
    pub(crate) behind: PathBuf,
    pub(crate) stop: AtomicBool,
    run: AtomicU32,
}

impl Node {
    pub(crate) fn new() -> Self {
        let ground = Ground::enter().unwrap();
        let disk = ground.disk(Format::Ext4, 256).unwrap();
        let node = Self {
            ground: Some(ground),
            ..Self::at(&disk)
        };
        for dir in [
            "kubelet/pods",
            "behind",
            "log/pods",
            "log/containers",
            "cgroup",
            "archive",
        ] {
            fs::create_dir_all(disk.join(dir)).unwrap();
        }
        node
    }

    /// A node that is there already.
    pub(crate) fn at(disk: &Path) -> Self {
        Self {
            ground: None,
            root: disk.join("kubelet"),
            state: StateDir::at(disk.join("state")),
            places: Places {
                pod_logs: disk.join("log/pods"),
                container_logs: disk.join("log/containers"),
                cgroups: disk.join("cgroup"),
            },
            behind: disk.join("behind"),
            stop: AtomicBool::new(false),
            run: AtomicU32::new(std::process::id()),
        }
    }

    pub(crate) fn disk(&self) -> &Path {
        self.root.parent().unwrap()
    }

    pub(crate) fn pod(&self, number: u32) -> Pod<'_> {
        let uid: Uid = format!("0c9a8c4e-3a51-4c0e-9d1c-{number:012x}").parse().unwrap();
        let path = self.root.join("pods").join(uid.as_str());
        fs::create_dir_all(path.join("volumes")).unwrap();
        fs::create_dir_all(path.join("plugins/kubernetes.io~empty-dir/wrapped_token")).unwrap();
        fs::write(
            path.join("plugins/kubernetes.io~empty-dir/wrapped_token/ready"),
            "",
        )
        .unwrap();
        fs::write(path.join("etc-hosts"), "127.0.0.1 localhost\n").unwrap();
        Pod {
            node: self,
            uid,
            path,
            csi: BTreeMap::new(),
        }
    }

    /// A directory with data behind mounts.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        let dir = self.behind.join(name);
        fs::create_dir_all(dir.join("deep")).unwrap();
        fs::write(dir.join("table.db"), format!("the only copy of {name}")).unwrap();
        fs::write(dir.join("deep/wal"), vec![7; 5000]).unwrap();
        dir
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join(nodemend_pods::QUARANTINE)
    }
}

pub(crate) struct Pod<'n> {
    pub(crate) node: &'n Node,
    pub(crate) uid: Uid,
    pub(crate) path: PathBuf,
    /// What the survey says of CSI volumes, by name.
    pub(crate) csi: BTreeMap<String, CsiVolume>,
}

impl Pod<'_> {
    /// A volume's directory, by plugin (as its directory is called) and name.
    pub(crate) fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        let path = self.path.join("volumes").join(plugin).join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A CSI volume: its `mount`. A record lies beside it.
    pub(crate) fn csi(&mut self, name: &str, global_mount: Option<&Path>) -> PathBuf {
        let mount = self.volume("kubernetes.io~csi", name).join("mount");
        fs::create_dir_all(&mount).unwrap();
        let record = format!(r#"{{"volumeHandle":"handle-{name}","driverName":"csi.example.com"}}"#);
        fs::write(mount.with_file_name("vol_data.json"), record).unwrap();
        self.csi.insert(
            name.to_owned(),
            CsiVolume {
                driver: "csi.example.com".to_owned(),
                handle: format!("handle-{name}"),
                lifecycle: "Persistent".to_owned(),
                global_mount: global_mount.map(Path::to_owned),
            },
        );
        mount
    }

    pub(crate) fn subpath(&self, volume: &str) -> PathBuf {
        let path = self.path.join("volume-subpaths").join(volume).join("app");
        fs::create_dir_all(&path).unwrap();
        path.join("0")
    }

    pub(crate) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// What a survey would say: the stand-in knows of CSI volumes only, as the repairs look for themselves.
    pub(crate) fn look(&self) -> PodDir {
        let identity = fs::symlink_metadata(&self.path).unwrap();
        let statx = rustix::fs::statx(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID);
        PodDir {
            uid: self.uid.clone(),
            path: self.path.clone(),
            identity: PodIdentity {
                uid: self.uid.clone(),
                dir: FileId {
                    dev: identity.dev(),
                    ino: identity.ino(),
                },
                mount: statx.unwrap().stx_mnt_id,
            },
            name: None,
            changed: 0,
            volumes: self.csi.iter().map(|(name, csi)| self.said(name, csi)).collect(),
            mounts: Vec::new(),
            strange: Vec::new(),
            outside: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn said(&self, name: &str, csi: &CsiVolume) -> Volume {
        Volume {
            plugin: "kubernetes.io/csi".to_owned(),
            name: name.to_owned(),
            path: self
                .path
                .join("volumes/kubernetes.io~csi")
                .join(name)
                .join("mount"),
            part: Part::Volume,
            class: Class::NothingLost,
            content: Content::Empty,
            csi: Some(Box::new(csi.clone())),
        }
    }

    pub(crate) fn orphan(&self) -> Orphan<Arc<PodDir>> {
        match judge(Arc::new(self.look()), &[source()], nobody()) {
            Verdict::Orphan(orphan) => orphan,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn unblock(&self) -> Outcome {
        self.repair(&Repair::Unblock)
    }

    pub(crate) fn purge(&self) -> Outcome {
        self.repair(&Repair::Purge(Purge::default()))
    }

    pub(crate) fn purge_accepting(&self) -> Outcome {
        self.repair(&Repair::Purge(Purge {
            accept_ephemeral: true,
            ..Purge::default()
        }))
    }

    pub(crate) fn repair(&self, repair: &Repair) -> Outcome {
        let orphan = self.orphan();
        apply_all(self.node, vec![orphan], &[self], repair).pop().unwrap()
    }
}

/// Applies to several pods in one run.
pub(crate) fn apply_all(
    node: &Node,
    orphans: Vec<Orphan<Arc<PodDir>>>,
    pods: &[&Pod<'_>],
    repair: &Repair,
) -> Vec<Outcome> {
    let lock = patiently(|| node.state.lock());
    let mut journal = node.state.journal().unwrap();
    let run = format!("run-{}", node.run.fetch_add(1, Ordering::Relaxed));
    let tools = Tools {
        state: &node.state,
        run: &run,
        places: &node.places,
        journal: &mut journal,
        stop: &node.stop,
        progress: &mut |_| {},
    };
    let mut again = Same {
        pods,
        required: vec![source()],
    };
    let outcomes = apply(orphans, &lock, &mut again, repair, tools).unwrap();
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

struct Same<'a, 'n> {
    pods: &'a [&'a Pod<'n>],
    required: Vec<Source>,
}

impl Looks for Same<'_, '_> {
    fn look(&mut self, pod: &PodDir) -> Again {
        match self.pods.iter().find(|other| other.uid == pod.uid) {
            Some(pod) if pod.is_there() => Again::Here(Box::new(Look {
                subject: Arc::new(pod.look()),
                evidence: nobody(),
            })),
            _ => Again::Gone,
        }
    }

    fn required(&self) -> &[Source] {
        &self.required
    }
}

fn source() -> Source {
    Source::new("test")
}

fn nobody() -> Vec<Evidence> {
    vec![Evidence::new(&source(), Claim::absent("never heard of it"))]
}

/// Tries again while the lock is held: a child that another test starts has it for as long as it takes to become a program.
#[track_caller]
pub(crate) fn patiently<T, E: std::fmt::Display>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    for _ in 0..200 {
        match attempt() {
            Ok(done) => return done,
            Err(error) if error.to_string().contains("another run holds the lock") => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock was never free");
}

/// Everything in a directory: names, kinds, modes, owners, contents.
pub(crate) fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    walk(dir, dir, &mut all);
    all
}

fn walk(top: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let mut said = format!("{:o} {}:{} ", stat.mode(), stat.uid(), stat.gid());
        if kind.is_dir() {
            walk(top, &path, all);
        } else if kind.is_symlink() {
            said += fs::read_link(&path).unwrap().to_str().unwrap();
        } else if kind.is_file() {
            said += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        } else if !kind.is_fifo() {
            said += &stat.rdev().to_string();
        }
        all.insert(path.strip_prefix(top).unwrap().to_owned(), said);
    }
}

pub(crate) fn bind(from: &Path, to: &Path) {
    rustix::mount::mount_bind(from, to).unwrap_or_else(|error| panic!("{from:?} {to:?}: {error}"));
}

pub(crate) fn tmpfs(at: &Path) {
    run(Command::new("mount").args(["-t", "tmpfs", "scratch"]).arg(at));
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// What is mounted below a path, in this thread's namespace.
pub(crate) fn mounted_below(path: &Path) -> Vec<PathBuf> {
    let table = fs::read("/proc/thread-self/mountinfo").unwrap();
    let mounts = nodemend_hostfs::mountinfo::parse(&table).unwrap();
    let points = mounts.into_iter().map(|mount| mount.mountpoint);
    points.filter(|point| point.starts_with(path)).collect()
}

#[track_caller]
pub(crate) fn mended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Mended(detail) => detail.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(outcome: &Outcome, why: &str) {
    match outcome {
        Outcome::Refused(detail) => assert!(detail.contains(why), "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn failed(outcome: &Outcome, why: &str) {
    match outcome {
        Outcome::Failed(detail) => assert!(detail.contains(why), "{detail}"),
        other => panic!("{other:?}"),
    }
}
