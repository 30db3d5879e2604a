//! One look at containerd: what it is, how it is, what lies in its root and what runs. Changes nothing.

mod bolt;
mod bolt_tree;
mod estimate;
mod findings;
mod health;
pub(crate) mod images;
mod journal;
mod mounts;
mod pods;
mod root;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_procns::Census;
use nodemend_runtime::daemons::Files;
use nodemend_runtime::{Discovery, Endpoint, Greeting, Mute, blocking, discover};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bolt::{Database, Lock, MetaPage};
pub use estimate::{Amount, Estimate};
pub use findings::{Finding, Severity};
pub use health::Health;
pub use images::{ImageChoice, Images, StoredImage, images};
pub use mounts::MountOfRoot;
pub use pods::RunningPod;
pub use root::RootFacts;

use crate::deadline::answered;
use crate::error::Error;
use crate::healthz::Healthz;
use crate::service::{Manager, Service, ServiceState};
use crate::settings::{self, Origin, Settings};
use journal::Journal;

/// USER_HZ: the unit of the start times of processes, 100 on every architecture that Rust's std runs on (proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// How long the look at the images may take.
const IMAGES_WITHIN: Duration = Duration::from_secs(60);

/// Whom to look at, and how long to wait.
#[derive(Clone, Debug)]
pub struct LookOptions {
    /// `--config`: containerd's configuration, if it is not found by the process or the unit.
    pub config: Option<PathBuf>,
    /// containerd as a service.
    pub containerd: Service,
    /// kubelet as a service. None where there is none to be stopped.
    pub kubelet: Option<Service>,
    /// How long each source may take.
    pub deadline: Duration,
    /// How long the estimate of the root may take.
    pub estimate_within: Duration,
    /// Look at the images, too.
    pub images: bool,
}

impl Default for LookOptions {
    fn default() -> Self {
        let unit = |name: &str| Service {
            name: name.to_owned(),
            manager: Manager::Systemd,
        };
        Self {
            config: None,
            containerd: unit("containerd.service"),
            kubelet: Some(unit("kubelet.service")),
            deadline: nodemend_runtime::DEFAULT_DEADLINE,
            estimate_within: Duration::from_secs(2),
            images: false,
        }
    }
}

/// What one look saw: plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// Where containerd lives.
    pub settings: Settings,
    /// containerd's service.
    pub containerd: ServiceState,
    /// kubelet's service; None if there is no such unit, or it was not to be looked at.
    pub kubelet: Option<ServiceState>,
    /// Where kubelet tells its health.
    pub healthz: Healthz,
    /// How containerd is.
    pub health: Health,
    /// What else was seen, worst first.
    pub findings: Vec<Finding>,
    /// How much lies in the root.
    pub estimate: Estimate,
    /// The root directory; None if there is none, or it could not be looked at (then a finding says why).
    pub root: Option<RootFacts>,
    /// The images, if they were to be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// containerd's databases: `meta.db` first, then those of its snapshotters. One bad one keeps it from working.
    pub databases: Vec<Database>,
    /// The pods of this containerd that have a process.
    pub pods: Vec<RunningPod>,
    /// Why `pods` may not be all of them.
    pub pods_unseen: Vec<String>,
    /// What is mounted below the root, in the mount namespace of the host, the deepest last.
    pub mounts_below: Vec<Mount>,
    /// Mounts elsewhere that have their files in the root.
    pub mounts_of_root: Vec<MountOfRoot>,
}

/// Takes one look at the running host. Read-only; a source that does not answer is told, and the look goes on.
///
/// Takes as long as the slowest source: about 2 s, or a little more than the deadline if something does not answer.
///
/// # Errors
/// If it cannot be told which containerd is meant or where its root is, or the processes or the mounts cannot be read.
pub fn look(host: &Host, options: &LookOptions) -> Result<Look, Error> {
    let mut findings = Vec::new();
    let mut containerd = state(&options.containerd, &mut findings);
    let mut kubelet = options
        .kubelet
        .as_ref()
        .map(|service| state(service, &mut findings));
    kubelet = kubelet.filter(|kubelet| !kubelet.is_absent());
    let census = Census::take(host)?;
    let given = options.config.as_deref();
    let settings = settings::find(host, &census, &options.containerd, &containerd, given)?;
    if let Origin::Process(pid) = settings.origin {
        containerd.main_pid.get_or_insert(pid);
    }
    if let Some(kubelet) = kubelet.as_mut() {
        kubelet.main_pid = kubelet.main_pid.or_else(|| kubelet_process(&census));
    }
    let mounts = mountinfo::of_process(host, std::process::id())?;
    let heard = std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(host, options, &settings, &census));
        let disk = disk(host, options, &settings, &mounts);
        let asked = asked
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (asked, disk)
    });
    let (
        Asked {
            greeting,
            journal,
            pods,
        },
        disk,
    ) = heard;
    let health = health::judge(&health::Signs {
        greeting: &greeting,
        service: &containerd,
        by_systemd: options.containerd.manager == Manager::Systemd,
        age: age(&census, &settings),
        journal: &journal,
        databases: &disk.databases,
        cri_disabled: settings.cri_disabled,
    });
    let healthz = healthz(host, kubelet.as_ref());
    let mut look = Look {
        mounts_below: disk
            .root
            .iter()
            .flat_map(|root| mounts::below(&mounts, root))
            .collect(),
        mounts_of_root: disk
            .root
            .iter()
            .flat_map(|root| mounts::of_root(&mounts, root, &settings.root))
            .collect(),
        settings,
        containerd,
        kubelet,
        healthz,
        health,
        findings,
        estimate: disk.estimate,
        root: disk.root,
        images: disk.images,
        databases: disk.databases,
        pods: pods.0,
        pods_unseen: pods.1,
    };
    look.findings.extend(disk.unseen);
    findings::add(&mut look, &journal, options);
    Ok(look)
}

/// What is known of a service; that nothing is, is a finding.
fn state(service: &Service, findings: &mut Vec<Finding>) -> ServiceState {
    service.state().unwrap_or_else(|error| {
        findings.push(Finding::warning(format!(
            "{}: its state is not known: {error}",
            service.name
        )));
        ServiceState::default()
    })
}

fn kubelet_process(census: &Census) -> Option<u32> {
    let mut kubelets = census
        .processes
        .iter()
        .filter(|process| process.comm == "kubelet");
    let kubelet = kubelets.next()?;
    kubelets.next().is_none().then_some(kubelet.pid)
}

/// Seconds since its process was started.
fn age(census: &Census, settings: &Settings) -> Option<u64> {
    let Origin::Process(pid) = settings.origin else {
        return None;
    };
    let started = census.process(pid)?.start_time / TICKS_PER_SECOND;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Some(
        u64::try_from(now.tv_sec)
            .unwrap_or_default()
            .saturating_sub(started),
    )
}

/// What was answered by those who may not answer.
struct Asked {
    greeting: Result<Greeting, Mute>,
    journal: Result<Journal, String>,
    pods: (Vec<RunningPod>, Vec<String>),
}

fn ask(host: &Host, options: &LookOptions, settings: &Settings, census: &Census) -> Asked {
    let endpoint = Endpoint::new(&settings.socket.to_string_lossy());
    std::thread::scope(|scope| {
        let greeting = scope.spawn(|| blocking::greet(host, &endpoint, options.deadline));
        let journal = scope.spawn(|| match &options.containerd.manager {
            Manager::Systemd => journal::read(&options.containerd.name, options.deadline),
            Manager::Commands { .. } => Err("it is not started by systemd".to_owned()),
        });
        // The other runtimes of the node are asked too: what they have is not this one's.
        let mut endpoints = discover(host, &Discovery::default());
        if !endpoints.contains(&endpoint) {
            endpoints.insert(0, endpoint.clone());
        }
        let knowledge = blocking::survey(host, &endpoints, census, options.deadline);
        let pods = pods::find(host, census, &knowledge, settings);
        Asked {
            greeting: greeting
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            journal: journal
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            pods,
        }
    })
}

/// What lies in the root.
struct Disk {
    root: Option<RootFacts>,
    databases: Vec<Database>,
    images: Option<Images>,
    estimate: Estimate,
    unseen: Vec<Finding>,
}

/// Everything on the disk, which may not answer at all.
fn disk(host: &Host, options: &LookOptions, settings: &Settings, mounts: &[Mount]) -> Disk {
    let mut disk = Disk {
        root: None,
        databases: Vec::new(),
        images: None,
        estimate: Estimate::unknown("there is no root directory"),
        unseen: Vec::new(),
    };
    let (own, path, table) = (host.clone(), settings.root.clone(), mounts.to_vec());
    let facts = answered(options.deadline, move || root::facts(&own, &path, &table));
    let root = match facts.and_then(|facts| facts) {
        Ok(Some(root)) => root,
        Ok(None) => {
            let missing = format!("{}: there is no such directory", settings.root.display());
            disk.unseen.push(Finding::warning(missing));
            return disk;
        }
        Err(reason) => {
            let unseen = format!("{}: cannot be looked at: {reason}", settings.root.display());
            disk.estimate = Estimate::unknown(&unseen);
            disk.unseen.push(Finding::warning(unseen));
            return disk;
        }
    };
    let (own, path) = (host.clone(), root.path.clone());
    match answered(options.deadline, move || bolt::databases(&own, &path)) {
        Ok(databases) => disk.databases = databases,
        Err(reason) => disk.unseen.push(Finding::warning(format!(
            "its databases cannot be looked at: {reason}"
        ))),
    }
    if options.images {
        disk.images = Some(of_images(host, &root.path));
    }
    let is_whole = root.is_mount_point && is_whole(&root, mounts);
    let (own, facts, within) = (host.clone(), root.clone(), options.estimate_within);
    let estimate = answered(within + options.deadline, move || {
        let dir = own.open_dir(&facts.path).map_err(|error| error.to_string())?;
        Ok(estimate::estimate(&dir, &facts, is_whole, within))
    });
    disk.estimate = estimate
        .and_then(|estimate| estimate)
        .unwrap_or_else(|reason| Estimate::unknown(&reason));
    disk.root = Some(root);
    disk
}

/// Many images are many small files on a disk that may be slow.
fn of_images(host: &Host, root: &Path) -> Images {
    let path = root.to_owned();
    let found = match host.is_running() {
        true => answered(IMAGES_WITHIN, move || images::images(&path)),
        false => Err("this is a tree on a disk".to_owned()),
    };
    found.unwrap_or_else(|reason| Images {
        unnamed: Some(reason),
        ..Images::default()
    })
}

/// True if the root is all of its file system, and not a directory of it that is mounted there.
fn is_whole(root: &RootFacts, mounts: &[Mount]) -> bool {
    let mount = mounts.iter().find(|mount| mount.id == root.mount_id);
    mount.is_some_and(|mount| *mount.root == *Path::new("/"))
}

fn healthz(host: &Host, kubelet: Option<&ServiceState>) -> Healthz {
    let Some(kubelet) = kubelet else {
        return Healthz::default();
    };
    if let Some(pid) = kubelet.main_pid
        && let Ok(words) = nodemend_procns::cmdline(host, pid)
        && !words.is_empty()
    {
        return Healthz::of(&Files::of_process(pid), &words);
    }
    let words: Vec<_> = kubelet.exec_start.iter().map(Into::into).collect();
    Healthz::of(&Files::of_host(host), &words)
}
