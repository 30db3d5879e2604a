//! Why a tree may not go. Judges what was seen; sees nothing itself.

use std::path::Path;

use nodemend_rmtree::Error;

use crate::document::{DaemonFact, Refusal, RefusalReason, Tie};
use crate::inspect::Facts;

/// How many of a kind are named in a sentence.
const NAMED: usize = 5;

/// Why a tree may not go: nothing, if it may.
pub(crate) fn judge(facts: &Facts, skip_mounts: bool) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |reason, detail: String, help: &str| {
        refusals.push(Refusal {
            reason,
            detail,
            help: help.to_owned(),
        });
    };
    let plan = &facts.plan;
    if facts.holds_working_directory {
        refuse(
            RefusalReason::WorkingDirectory,
            "the working directory is in it".to_owned(),
            "change to another directory first",
        );
    }
    if facts.holds_state {
        refuse(
            RefusalReason::StateDirectory,
            "the journal of this removal would be in it".to_owned(),
            "give another directory for it with --state-dir",
        );
    }
    if let Some(other) = &facts.overlaps {
        refuse(
            RefusalReason::Overlap,
            format!(
                "one of the two lies in the other, or they are the same: {}",
                other.display()
            ),
            "name the outer one only",
        );
    }
    let with = |wanted: fn(&Tie) -> bool| plan.daemons.iter().filter(move |daemon| wanted(&daemon.tie));
    if let Some(detail) = list(with(|tie| matches!(tie, Tie::LivesIn | Tie::OpenFiles)).map(daemon)) {
        refuse(RefusalReason::Daemon, detail, "stop it first");
    }
    let unknown = with(|tie| matches!(tie, Tie::Unknown)).map(daemon);
    if let Some(detail) = list(unknown.chain(facts.nameless.iter().cloned())) {
        refuse(
            RefusalReason::DaemonUnknown,
            format!("whether a daemon that runs lives in it cannot be told: {detail}"),
            "run as root on the host, or stop the daemon first",
        );
    }
    let inside = plan
        .mounts_inside
        .iter()
        .map(|mount| format!("{} ({} {})", mount.mountpoint, mount.file_system, mount.source));
    if let Some(detail) = list(inside).filter(|_| !skip_mounts) {
        refuse(
            RefusalReason::MountsInside,
            format!("mounted in it: {detail}"),
            "unmount them, or leave them and the directories above them in place with --skip-mounts",
        );
    }
    let overlays = plan.overlays.iter().map(|overlay| {
        format!(
            "{} ({} {}, {})",
            overlay.mountpoint, overlay.layer, overlay.path, overlay.known
        )
    });
    if let Some(detail) = list(overlays) {
        refuse(
            RefusalReason::Overlay,
            format!("overlays live from layers in it, and whoever runs there would lose its files: {detail}"),
            "end what runs in them and unmount them first",
        );
    }
    let shown = plan.shown_elsewhere.iter().map(|mount| match mount.seen_by {
        Some(pid) => format!("{} (as process {pid} sees it)", mount.mountpoint),
        None => mount.mountpoint.clone(),
    });
    if let Some(detail) = list(shown) {
        refuse(
            RefusalReason::ShownElsewhere,
            format!("it, or a part of it, is mounted elsewhere, too, and would be empty there: {detail}"),
            "unmount that first",
        );
    }
    refusals
}

fn daemon(fact: &DaemonFact) -> String {
    let DaemonFact {
        pid,
        name,
        tie,
        detail,
    } = fact;
    match tie {
        Tie::LivesIn => format!("{name} (pid {pid}) runs, and {detail} is this tree or lies in it"),
        Tie::OpenFiles => format!("{name} (pid {pid}) has files open in it: {detail}"),
        Tie::Around | Tie::Unknown => format!("{name} (pid {pid}): {detail}"),
    }
}

/// The first of them, and how many more there are. None of none.
fn list(mut all: impl Iterator<Item = String>) -> Option<String> {
    let named: Vec<String> = all.by_ref().take(NAMED).collect();
    let more = match all.count() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (!named.is_empty()).then(|| named.join("; ") + &more)
}

/// The refusal that an error of opening a tree is; None if it is an error of the machine.
pub(crate) fn of_error(error: &Error) -> Option<Refusal> {
    let (reason, detail, help) = match error {
        Error::NoName { .. } => (
            RefusalReason::NoName,
            "it names no entry of a directory".to_owned(),
            "give a directory by its name".to_owned(),
        ),
        Error::Symlink { path, target } => (
            RefusalReason::Symlink,
            format!("{} is a symlink to {}", path.display(), target.display()),
            format!("give the path that it leads to{}", real(path)),
        ),
        Error::NotADirectory { .. } => (
            RefusalReason::NotADirectory,
            "it is no directory".to_owned(),
            "plain rm removes it".to_owned(),
        ),
        Error::GoesUp { .. } => (
            RefusalReason::GoesUp,
            "its path goes up (..) behind a name".to_owned(),
            "give the path without that".to_owned(),
        ),
        Error::Replaced { .. } => (
            RefusalReason::Changed,
            "another directory has this name by now".to_owned(),
            "run again, and read the new plan".to_owned(),
        ),
        Error::MountPoint { .. } => (
            RefusalReason::MountPoint,
            "something is mounted on it".to_owned(),
            "unmount it, or name the directories that lie in it".to_owned(),
        ),
        Error::NoMountIdentity { .. } => (
            RefusalReason::NoMountIdentity,
            "this kernel cannot tell on which mount a directory lies".to_owned(),
            "use plain rm, after unmounting all that is mounted in it".to_owned(),
        ),
        Error::Io { .. } | Error::Mounts(_) => return None,
    };
    Some(Refusal { reason, detail, help })
}

/// Where a path really is, if that can be said.
fn real(path: &Path) -> String {
    match crate::deadline::answered({
        let path = path.to_owned();
        move || std::fs::canonicalize(path)
    }) {
        Some(Ok(real)) => format!(": {}", real.display()),
        Some(Err(_)) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{MountFact, OverlayFact, Plan};

    fn reasons(facts: &Facts, skip_mounts: bool) -> Vec<RefusalReason> {
        judge(facts, skip_mounts)
            .into_iter()
            .map(|refusal| refusal.reason)
            .collect()
    }

    fn plan(plan: Plan) -> Facts {
        Facts {
            plan,
            ..Facts::default()
        }
    }

    fn mount() -> MountFact {
        MountFact {
            mountpoint: "/srv/a/proc".into(),
            source: "proc".into(),
            file_system: "proc".into(),
            seen_by: None,
        }
    }

    fn tied(tie: Tie) -> Facts {
        plan(Plan {
            daemons: vec![DaemonFact {
                pid: 7,
                name: "containerd".into(),
                tie,
                detail: "its root /var/lib/containerd".into(),
            }],
            ..Plan::default()
        })
    }

    #[test]
    fn a_tree_that_nobody_has_to_do_with_may_go() {
        assert!(reasons(&Facts::default(), false).is_empty());
    }

    #[test]
    fn a_tree_that_a_daemon_lives_in_may_not_go() {
        assert_eq!(reasons(&tied(Tie::LivesIn), true), [RefusalReason::Daemon]);
        assert_eq!(reasons(&tied(Tie::OpenFiles), true), [RefusalReason::Daemon]);
    }

    #[test]
    fn what_cannot_be_seen_of_a_daemon_is_not_a_no() {
        assert_eq!(reasons(&tied(Tie::Unknown), true), [RefusalReason::DaemonUnknown]);
        let facts = Facts {
            nameless: vec!["process 9: its name cannot be read".into()],
            ..Facts::default()
        };
        assert_eq!(reasons(&facts, true), [RefusalReason::DaemonUnknown]);
    }

    #[test]
    fn a_part_of_a_daemons_root_that_it_does_not_use_may_go() {
        assert!(reasons(&tied(Tie::Around), false).is_empty());
    }

    #[test]
    fn mounts_inside_are_left_only_if_it_was_asked_for() {
        let facts = plan(Plan {
            mounts_inside: vec![mount(); 7],
            ..Plan::default()
        });
        let refusals = judge(&facts, false);
        assert_eq!(refusals[0].reason, RefusalReason::MountsInside);
        assert!(
            refusals[0].detail.ends_with("; and 2 more"),
            "{}",
            refusals[0].detail
        );
        assert!(reasons(&facts, true).is_empty());
    }

    #[test]
    fn no_flag_takes_the_layers_from_under_an_overlay() {
        let facts = plan(Plan {
            overlays: vec![OverlayFact {
                mountpoint: "/run/x/rootfs".into(),
                seen_by: None,
                layer: "lowerdir".into(),
                path: "/srv/a/1/fs".into(),
                known: "by its path".into(),
            }],
            shown_elsewhere: vec![mount()],
            ..Plan::default()
        });
        assert_eq!(
            reasons(&facts, true),
            [RefusalReason::Overlay, RefusalReason::ShownElsewhere]
        );
    }

    #[test]
    fn the_own_surroundings_are_kept() {
        let facts = Facts {
            holds_working_directory: true,
            holds_state: true,
            overlaps: Some("/srv/a/b".into()),
            ..Facts::default()
        };
        assert_eq!(
            reasons(&facts, true),
            [
                RefusalReason::WorkingDirectory,
                RefusalReason::StateDirectory,
                RefusalReason::Overlap
            ]
        );
    }
}
