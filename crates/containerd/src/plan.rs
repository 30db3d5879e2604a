//! From a look to a plan. Pure: it reads no file and no clock.

mod images;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::look::{Amount, Health, ImageChoice, Look};
use crate::state::PodChoice;
use crate::steps::Step;
use crate::steps::unmount::{is_containerds, not_containerds};

/// Entries that are removed in a second: from a cache, and from a slow disk. Measured for `mend-rm`.
const REMOVED_A_SECOND: (u64, u64) = (124_000, 38_000);

/// What the operator decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// `--keep-pods` or `--reap-pods`, if either was said.
    pub pods: Option<PodChoice>,
    /// Which images are carried over.
    pub images: ImageChoice,
    /// Go on although containerd works (`--even-if-healthy`).
    pub even_if_healthy: bool,
    /// The state directory of this tool: it must not go with the root.
    pub state_dir: std::path::PathBuf,
}

/// What a run would do, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunPlan {
    /// Whether there is anything to mend.
    pub needed: Needed,
    /// What becomes of running pods. None if that is not decided yet.
    pub pods: Option<PodChoice>,
    /// Every step, in order.
    pub steps: Vec<PlannedStep>,
    /// Why it may not be done.
    pub refusals: Vec<Refusal>,
}

/// Whether there is anything to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Needed {
    /// containerd is broken, or the operator says so.
    Yes,
    /// It works.
    No,
    /// It cannot be told.
    Unknown,
}

/// A step of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// Its number, from 1.
    pub number: usize,
    /// Which.
    pub step: Step,
    /// What it would do, a sentence each.
    pub what: Vec<String>,
    /// Seconds that it takes, at least and at most. None if that cannot be told.
    pub seconds: Option<(u64, u64)>,
}

/// Why a run may not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// A word for scripts.
    pub reason: Reason,
    /// What is so.
    pub detail: String,
    /// What to do.
    pub help: String,
}

/// Reasons for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// It cannot be told whether containerd works.
    HealthUnknown,
    /// There is no root.
    NoRoot,
    /// kubelet does not use this containerd.
    NoCri,
    /// What may not go with the root lies in it.
    InRoot,
    /// Pods run, and nobody said what becomes of them.
    PodsUndecided,
    /// Pods cannot be kept.
    PodsNotKept,
    /// Something that is not containerd's is mounted below the root.
    Mounted,
    /// Images cannot be carried over, or not those that were named.
    ImagesNotKept,
}

/// What a run would do after this look.
pub fn plan(look: &Look, order: &Order) -> RunPlan {
    let needed = needed(look, order);
    let pods = pods(look, order);
    let mut refusals = Vec::new();
    if needed == Needed::Unknown {
        refusals.push(unknown(look));
    }
    if needed != Needed::No {
        refusals.extend(places(look, order));
        refusals.extend(pod_refusals(look, pods));
        refusals.extend(mounts(look));
        refusals.extend(images::refusals(look, &order.images));
    }
    let steps = match needed {
        Needed::No => Vec::new(),
        Needed::Yes | Needed::Unknown => Step::ALL
            .map(|step| planned(step, look, pods, &order.images))
            .to_vec(),
    };
    RunPlan {
        needed,
        pods,
        steps,
        refusals,
    }
}

fn needed(look: &Look, order: &Order) -> Needed {
    match &look.health {
        Health::Broken { .. } => Needed::Yes,
        Health::Healthy { .. } | Health::Unknown { .. } if order.even_if_healthy => Needed::Yes,
        Health::Healthy { .. } => Needed::No,
        Health::Unknown { .. } => Needed::Unknown,
    }
}

/// Without running pods there is nothing to decide.
fn pods(look: &Look, order: &Order) -> Option<PodChoice> {
    let none = look.pods.is_empty() && look.pods_unseen.is_empty();
    order.pods.or(none.then_some(PodChoice::None))
}

fn unknown(look: &Look) -> Refusal {
    let why = match &look.health {
        Health::Unknown { why } => why.join("; "),
        Health::Healthy { .. } | Health::Broken { .. } => String::new(),
    };
    Refusal {
        reason: Reason::HealthUnknown,
        detail: format!("it cannot be told whether containerd works: {why}"),
        help: "find out; if its root is to go in any case, say --even-if-healthy".to_owned(),
    }
}

fn places(look: &Look, order: &Order) -> Vec<Refusal> {
    let Some(root) = &look.root else {
        return vec![Refusal {
            reason: Reason::NoRoot,
            detail: format!(
                "{} is not there, so it is not what breaks containerd",
                look.settings.root.display()
            ),
            help: "see the findings, and journalctl --unit containerd".to_owned(),
        }];
    };
    let no_cri = look.settings.cri_disabled.then(|| Refusal {
        reason: Reason::NoCri,
        detail: "its configuration turns the CRI off, so kubelet does not use this containerd".to_owned(),
        help: "name the configuration of the right one with --config, and its unit with --unit".to_owned(),
    });
    let inside = |path: &Path| path.starts_with(&root.path) || path.starts_with(&look.settings.root);
    let places = [
        ("containerd's state directory", look.settings.state.as_path()),
        ("containerd's socket", &look.settings.socket),
        ("the state directory of this tool", &order.state_dir),
    ];
    let places = places.into_iter().filter(|(_, path)| inside(path));
    let places = places.map(|(what, path)| Refusal {
        reason: Reason::InRoot,
        detail: format!(
            "{what} ({}) lies in the root, and would go with it",
            path.display()
        ),
        help: "move it out of the root first".to_owned(),
    });
    no_cri.into_iter().chain(places).collect()
}

fn pod_refusals(look: &Look, pods: Option<PodChoice>) -> Option<Refusal> {
    let count = look.pods.len();
    match pods {
        None => Some(Refusal {
            reason: Reason::PodsUndecided,
            detail: match look.pods_unseen.first() {
                None => format!("{count} pods run, and containerd forgets them with its root"),
                Some(why) => format!("{count} pods run, and there may be more: {why}"),
            },
            help: "--reap-pods ends them, and kubelet starts them anew; --keep-pods lets them run on, unknown to \
                   kubelet, which starts each a second time"
                .to_owned(),
        }),
        Some(PodChoice::Keep) => not_kept(look),
        Some(PodChoice::None | PodChoice::Reap) => None,
    }
}

/// Pods survive the stop of containerd only if systemd leaves their shims alone.
fn not_kept(look: &Look) -> Option<Refusal> {
    let mode = look.containerd.kill_mode.as_deref()?;
    (mode != "process" && mode != "none" && !look.pods.is_empty()).then(|| Refusal {
        reason: Reason::PodsNotKept,
        detail: format!("systemd would end the pods with containerd, as the KillMode of its unit is {mode}"),
        help: "say --reap-pods, or set KillMode=process in the unit".to_owned(),
    })
}

fn mounts(look: &Look) -> Vec<Refusal> {
    let root = look
        .root
        .as_ref()
        .map_or(look.settings.root.as_path(), |root| &root.path);
    let alien = look
        .mounts_below
        .iter()
        .filter(|mount| !is_containerds(mount, root));
    alien
        .map(|mount| Refusal {
            reason: Reason::Mounted,
            detail: not_containerds(mount).to_string(),
            help: format!("umount {}", mount.mountpoint.display()),
        })
        .collect()
}

fn planned(step: Step, look: &Look, pods: Option<PodChoice>, images: &ImageChoice) -> PlannedStep {
    let (what, seconds) = match step {
        Step::Look => (Vec::new(), Some((0, 0))),
        Step::Stop => (stop(look), Some((1, 30))),
        Step::Pods => running(look, pods),
        Step::Unmount => (unmounted(look), Some((0, 1))),
        Step::SetAside => (set_aside(look, images), Some((0, 1))),
        Step::Start => start(look, images),
        Step::Leftovers => (leftovers(pods), Some((5, 15))),
        Step::Remove => (removed(look, pods), removal_time(&look.estimate.entries)),
    };
    PlannedStep {
        number: step.number(),
        step,
        what,
        seconds,
    }
}

fn stop(look: &Look) -> Vec<String> {
    let mut what = Vec::new();
    if let Some(kubelet) = look.kubelet.as_ref().filter(|kubelet| !kubelet.is_absent()) {
        what.push(match kubelet.is_up() {
            true => "kubelet is stopped".to_owned(),
            false => "kubelet does not run now".to_owned(),
        });
    }
    what.push(match look.containerd.is_up() {
        true => "containerd is stopped".to_owned(),
        false => "containerd does not run now".to_owned(),
    });
    what
}

fn running(look: &Look, pods: Option<PodChoice>) -> (Vec<String>, Option<(u64, u64)>) {
    let count = look.pods.len() as u64;
    match pods {
        None => (vec![format!("{count} run: say --reap-pods or --keep-pods")], None),
        Some(PodChoice::None) => (vec!["none runs".to_owned()], Some((0, 0))),
        Some(PodChoice::Keep) => (
            vec![
                format!(
                    "{count} run on. containerd and kubelet know nothing of them any more, and kubelet starts each a second time"
                ),
                "mend-sandboxes --reap ends them later; until then the old root stays, as they live from it"
                    .to_owned(),
            ],
            Some((0, 0)),
        ),
        Some(PodChoice::Reap) => (
            vec![format!(
                "{count} are ended (network released, SIGTERM, SIGKILL, unmounted) as soon as the new containerd says that it \
                 has no record of them, and before kubelet starts"
            )],
            Some((3, 15 + count / 10)),
        ),
    }
}

fn unmounted(look: &Look) -> Vec<String> {
    let paths = look.mounts_below.iter().rev();
    let mut what: Vec<String> = paths
        .map(|mount| format!("{} is unmounted", mount.mountpoint.display()))
        .collect();
    if what.is_empty() {
        what.push("nothing is mounted below the root".to_owned());
    }
    what
}

fn set_aside(look: &Look, images: &ImageChoice) -> Vec<String> {
    let root = look.root.as_ref();
    let path = root
        .map_or(look.settings.root.as_path(), |root| &root.path)
        .display();
    let mut what = vec![match root.is_some_and(|root| root.is_mount_point) {
        true => format!(
            "{path} is a mount point: what is in it moves into a directory in it, and all of it stays on its file system"
        ),
        false => format!(
            "{path} gets another name beside it, and a new one is made with the same owner, mode and label"
        ),
    }];
    what.push(match images {
        ImageChoice::None => "every image goes with it: each is pulled anew".to_owned(),
        ImageChoice::All => "the images go with it, and are carried over in step 6".to_owned(),
        ImageChoice::Named(_) => {
            "every image goes with it; those that were named are carried over in step 6, the others pulled anew".to_owned()
        }
    });
    let elsewhere = look.settings.elsewhere.iter();
    what.extend(elsewhere.map(|moved| format!("{} stays: {}", moved.path.display(), moved.plugin)));
    what
}

fn start(look: &Look, choice: &ImageChoice) -> (Vec<String>, Option<(u64, u64)>) {
    let mut what = vec![format!(
        "containerd is started; its CRI must answer on {}",
        look.settings.socket.display()
    )];
    let (carried, (least, most)) = images::carried(look, choice);
    what.extend(carried);
    if look.kubelet.as_ref().is_some_and(|kubelet| !kubelet.is_absent()) {
        what.push("kubelet is started; its healthz must answer".to_owned());
    }
    (what, Some((2 + least, 15 + most)))
}

fn leftovers(pods: Option<PodChoice>) -> Vec<String> {
    let mut what =
        vec!["sandboxes without a process, veth pairs and addresses that nobody owns any more".to_owned()];
    if pods == Some(PodChoice::Keep) {
        what.push("what the kept pods use stays".to_owned());
    }
    what
}

fn removed(look: &Look, pods: Option<PodChoice>) -> Vec<String> {
    let mut what = vec![format!(
        "in the background, politely: {}. mend-containerd status shows how far it is",
        counted(&look.estimate.entries)
    )];
    if pods == Some(PodChoice::Keep) {
        what.push("only once the kept pods have ended: then mend-containerd --resume --apply".to_owned());
    }
    what
}

fn counted(entries: &Amount) -> String {
    match entries {
        Amount::Exactly(count) => format!("{count} entries"),
        Amount::About(count) => format!("about {count} entries"),
        Amount::AtLeast(count) => format!("at least {count} entries"),
        Amount::Unknown(why) => format!("nobody knows how many entries ({why})"),
    }
}

fn removal_time(entries: &Amount) -> Option<(u64, u64)> {
    let (fast, slow) = REMOVED_A_SECOND;
    match entries {
        Amount::Exactly(count) | Amount::About(count) => Some((count / fast, count / slow + 1)),
        Amount::AtLeast(_) | Amount::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests;
