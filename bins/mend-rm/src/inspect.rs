//! Everything that is asked about a tree before it may go. Reads, and changes nothing.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nodemend_hostfs::mountinfo::Mount;
use nodemend_rmtree::{Lanes, Options, Tree, subvolumes_inside};
use nodemend_runtime::daemons::Daemon;
use rustix::fs::{Mode, OFlags, openat};

use crate::arguments::Arguments;
use crate::daemons::{self, Standing};
use crate::document::{
    DaemonFact, Estimate, MountFact, OverlayFact, Plan, PolicyFact, SubvolumeFact, Tie, UserFact,
};
use crate::overlays::{self, Use};
use crate::position::{Position, lies_in, mount_of, open_path, position};
use crate::processes::{Held, Process, Scan, held, scan};
use crate::sight::{seen_at, shown_elsewhere};
use crate::words::text;

/// How many overlays may give no answer before no other is asked: each takes its time.
const PATIENCE: usize = 3;

/// One look at the machine, for any number of trees.
pub(crate) struct Machine {
    scan: Scan,
    daemons: Vec<Daemon>,
}

/// What is known of a tree: what the report says, and what only the judge needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) plan: Plan,
    /// The working directory is the tree, or lies in it.
    pub(crate) holds_working_directory: bool,
    /// The journal is in the tree.
    pub(crate) holds_state: bool,
    /// Another tree of this run that is the same, lies in it, or around it.
    pub(crate) overlaps: Option<PathBuf>,
    /// Processes that may be daemons, as nothing is known of them.
    pub(crate) nameless: Vec<String>,
}

impl Machine {
    /// Looks at all processes and mounts.
    pub(crate) fn look() -> anyhow::Result<Self> {
        let scan = scan()?;
        let processes = scan.namespaces.iter().flat_map(|namespace| &namespace.processes);
        let daemons = processes.filter_map(daemons::recognize).collect();
        Ok(Self { scan, daemons })
    }

    /// What is known of a tree. `others` are the other trees of this run.
    pub(crate) fn inspect(
        &self,
        tree: &Tree,
        others: &[&Tree],
        arguments: &Arguments,
    ) -> anyhow::Result<Facts> {
        let own = self.scan.namespaces.iter().find(|namespace| namespace.own);
        let mounts = own.map_or(&[][..], |namespace| &namespace.mounts);
        let mount = mount_of(tree, mounts);
        let place = mount.and_then(|mount| position(tree.path(), mount));
        let mut facts = Facts {
            plan: plan_of(tree, &arguments.options(), mount)?,
            holds_working_directory: open_path(Path::new(".")).is_ok_and(|dir| is_in(dir, tree)),
            holds_state: state_is_in(&arguments.state_dir, tree),
            overlaps: overlap(tree, others),
            nameless: self.scan.nameless.clone(),
        };
        let plan = &mut facts.plan;
        note_subvolumes(tree, plan);
        plan.unseen.extend(self.scan.unseen.iter().cloned());
        match &place {
            Some(place) => self.who_uses(place, plan),
            // Nothing is known of who uses what is nowhere.
            None => plan.daemons.push(DaemonFact {
                pid: 0,
                name: "any daemon".to_owned(),
                tie: Tie::Unknown,
                detail: "the mount that the tree lies on is not in the mount table".to_owned(),
            }),
        }
        self.who_lives_in(tree, plan);
        self.which_overlays(tree, plan);
        Ok(facts)
    }

    fn daemon(&self, process: &Process) -> Option<&Daemon> {
        self.daemons.iter().find(|daemon| daemon.pid == process.pid)
    }

    /// Processes with files in the tree, and mounts that show it elsewhere.
    fn who_uses(&self, place: &Position, plan: &mut Plan) {
        for namespace in &self.scan.namespaces {
            let viewer = namespace.processes.first().map(|process| process.pid);
            for mount in shown_elsewhere(&namespace.mounts, place) {
                let seen_by = if namespace.own { None } else { viewer };
                let fact = mount_fact(mount, seen_by);
                // The same mount is in each namespace that was copied from this one.
                let known = |other: &MountFact| {
                    (&other.mountpoint, &other.source) == (&fact.mountpoint, &fact.source)
                };
                if !plan.shown_elsewhere.iter().any(known) {
                    plan.shown_elsewhere.push(fact);
                }
            }
            let paths = seen_at(&namespace.mounts, place);
            if paths.is_empty() {
                continue;
            }
            for process in &namespace.processes {
                if let Some(held) = held(process.pid, &paths) {
                    note_held(process, held, self.daemon(process), plan);
                }
            }
        }
    }

    fn who_lives_in(&self, tree: &Tree, plan: &mut Plan) {
        for daemon in &self.daemons {
            let mut note = |tie, detail| {
                plan.daemons.push(DaemonFact {
                    pid: daemon.pid,
                    name: daemon.name.to_owned(),
                    tie,
                    detail,
                });
            };
            for home in &daemon.homes {
                let named = format!("its {} {}", home.what, home.path.display());
                match daemons::standing(daemon, home, tree.path(), tree.id()) {
                    Standing::Inside => note(Tie::LivesIn, named),
                    Standing::Around => note(Tie::Around, named),
                    Standing::Apart => {}
                    Standing::Unknown(why) => note(Tie::Unknown, format!("{named}: {why}")),
                }
            }
            for unseen in &daemon.unseen {
                note(Tie::Unknown, unseen.clone());
            }
        }
    }

    fn which_overlays(&self, tree: &Tree, plan: &mut Plan) {
        let mut silent = 0;
        for overlay in &self.scan.overlays {
            if silent == PATIENCE {
                let more = "whether the other overlays live from it: their file systems do not answer";
                return plan.unseen.push(more.to_owned());
            }
            let seen_by = (!overlay.own).then_some(overlay.viewer);
            match overlays::uses(overlay, tree.dir(), tree.id()) {
                Use::Layer(layer, known) => plan.overlays.push(OverlayFact {
                    mountpoint: text(&overlay.mountpoint),
                    seen_by,
                    layer: layer.role.to_owned(),
                    path: text(&layer.path),
                    known: known.to_owned(),
                }),
                Use::None => {}
                Use::Silent => {
                    silent += 1;
                    plan.unseen.push(format!(
                        "whether the overlay at {} lives from it: its file system does not answer",
                        overlay.mountpoint.display()
                    ));
                }
                Use::Unknown(why) => plan.unseen.push(format!(
                    "which layers the overlay at {} lives from: {why}",
                    overlay.mountpoint.display()
                )),
            }
        }
    }
}

fn plan_of(tree: &Tree, options: &Options, mount: Option<&Mount>) -> anyhow::Result<Plan> {
    let space = Space::of(tree.dir())?;
    let policy = tree.policy(options);
    Ok(Plan {
        file_system: mount.map_or_else(|| tree.file_system().to_string(), |mount| mount.fstype.clone()),
        mount: mount.map(|mount| mount_fact(mount, None)),
        policy: PolicyFact {
            warm_threads: policy.warm,
            cold_threads: policy.cold,
            splits_directories: policy.split,
            lanes: match policy.lanes {
                Lanes::None => 0,
                Lanes::One => 1,
                Lanes::Groups { count, .. } => count,
            },
        },
        mounts_inside: tree
            .mounts_inside()?
            .iter()
            .map(|mount| mount_fact(mount, None))
            .collect(),
        inodes_used: space.inodes_used,
        bytes_used: space.bytes_used,
        bytes_total: space.bytes_total,
        estimate: Estimate::of(tree.file_system(), space.inodes_used),
        ..Plan::default()
    })
}

/// Subvolumes are destroyed, or stay: not knowing them is no danger, so the plan is made without.
fn note_subvolumes(tree: &Tree, plan: &mut Plan) {
    match subvolumes_inside(tree) {
        Ok(subvolumes) => plan
            .subvolumes
            .extend(subvolumes.into_iter().map(|subvolume| SubvolumeFact {
                path: text(&tree.path().join(subvolume.path)),
                read_only: subvolume.read_only,
            })),
        Err(error) => plan.unseen.push(error.to_string()),
    }
}

/// What a file system says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// None on file systems that do not count inodes, as btrfs.
    pub(crate) inodes_used: Option<u64>,
    pub(crate) bytes_used: u64,
    pub(crate) bytes_total: u64,
}

impl Space {
    pub(crate) fn of(dir: impl AsFd) -> std::io::Result<Self> {
        // Linux before 3.12 asks nothing of a file that was opened for lookups only.
        let dir = openat(
            dir,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = rustix::fs::fstatvfs(dir)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        Ok(Self {
            inodes_used: (stat.f_files > 0).then(|| stat.f_files.saturating_sub(stat.f_ffree)),
            bytes_used: used.saturating_mul(stat.f_frsize),
            bytes_total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

fn mount_fact(mount: &Mount, seen_by: Option<u32>) -> MountFact {
    let source = mount.source.to_string_lossy();
    MountFact {
        mountpoint: text(&mount.mountpoint),
        source: if mount.root == Path::new("/") {
            source.into_owned()
        } else {
            format!("{source}[{}]", mount.root.display())
        },
        file_system: mount.fstype.clone(),
        seen_by,
    }
}

fn note_held(process: &Process, held: Held, daemon: Option<&Daemon>, plan: &mut Plan) {
    if let Some(daemon) = daemon {
        let mut note = |tie, detail| {
            plan.daemons.push(DaemonFact {
                pid: daemon.pid,
                name: daemon.name.to_owned(),
                tie,
                detail,
            });
        };
        if held.anything() {
            note(Tie::OpenFiles, held.example.display().to_string());
        }
        if let Some(why) = &held.unseen {
            note(Tie::Unknown, why.clone());
        }
    } else if let Some(why) = &held.unseen {
        plan.unseen
            .push(format!("process {} ({}): {why}", process.pid, process.name));
    }
    if held.anything() {
        plan.users.push(UserFact {
            pid: process.pid,
            name: process.name.clone(),
            open_files: held.files,
            others: held.others.iter().map(|what| (*what).to_owned()).collect(),
            example: text(&held.example),
        });
    }
}

fn is_in(dir: impl AsFd, tree: &Tree) -> bool {
    // When it cannot be told, it is better to believe that it is.
    lies_in(dir, tree.id()).unwrap_or(true)
}

/// The state directory may not be there yet: then what counts is where it would be made.
fn state_is_in(state_dir: &Path, tree: &Tree) -> bool {
    let there = state_dir.ancestors().find_map(|path| {
        open_path(if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        })
        .ok()
    });
    there.is_some_and(|dir| is_in(dir, tree))
}

fn overlap(tree: &Tree, others: &[&Tree]) -> Option<PathBuf> {
    others
        .iter()
        .find(|other| is_in(other.dir(), tree) || is_in(tree.dir(), other))
        .map(|other| other.path().to_owned())
}
