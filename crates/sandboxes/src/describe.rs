//! A sandbox in words.

use std::fmt::Write;

use crate::sandbox::{Process, Sandbox};
use crate::scene::full_name;

/// Of so many processes all is said; of more, how many there are.
const NAMED: usize = 3;

/// Its processes with what each is, uses and offers. None if nothing of it runs.
pub(crate) fn processes(sandbox: &Sandbox) -> Option<String> {
    if !sandbox.runs() {
        return None;
    }
    let memory: u64 = sandbox.processes.iter().map(|process| process.memory).sum();
    let mut words = count(sandbox.processes.len(), "process", "processes");
    let _ = write!(words, " ({})", mebibytes(memory));
    if !sandbox.shims.is_empty() {
        let _ = write!(words, " and {}", count(sandbox.shims.len(), "shim", "shims"));
    }
    let applications = sandbox.processes.iter().filter(|process| !process.pause);
    let named: Vec<_> = applications.clone().take(NAMED).map(process).collect();
    let more = applications.count().saturating_sub(named.len());
    match (named.is_empty(), more) {
        (true, _) => words.push_str(": no application"),
        (false, 0) => words = format!("{words}: {}", named.join("; ")),
        (false, more) => words = format!("{words}: {}; and {more} more", named.join("; ")),
    }
    Some(words)
}

fn process(process: &Process) -> String {
    let mut words = format!(
        "{} `{}` {}",
        process.pid,
        process.command,
        mebibytes(process.memory)
    );
    if !process.listens.is_empty() {
        let _ = write!(words, ", listens on {}", process.listens.join(" "));
    }
    words
}

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        whole => format!("{whole} MiB"),
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What is left of it, but for what runs.
pub(crate) fn parts(sandbox: &Sandbox) -> String {
    let mut parts = Vec::new();
    let mut counted = |number: usize, one, many| {
        if number > 0 {
            parts.push(count(number, one, many));
        }
    };
    counted(sandbox.tasks.len(), "task", "tasks");
    counted(sandbox.bundles.len(), "bundle", "bundles");
    counted(sandbox.runc_states.len(), "state of runc", "states of runc");
    counted(sandbox.mounts.len(), "mount", "mounts");
    counted(sandbox.cgroups.len(), "cgroup", "cgroups");
    counted(sandbox.attachments.len(), "cache file", "cache files");
    let lost: Vec<_> = sandbox
        .mounts
        .iter()
        .filter_map(|mount| mount.lost_layer.as_ref())
        .collect();
    if let Some(layer) = lost.first() {
        let overlays = count(lost.len(), "overlay", "overlays");
        parts.push(format!(
            "{overlays} of a layer that is gone ({})",
            layer.display()
        ));
    }
    if let Some(network) = &sandbox.network {
        let paths = network.paths.iter().map(|path| path.display().to_string());
        let addresses = network.addresses.iter().map(ToString::to_string);
        let of: Vec<_> = paths
            .chain(network.veths.iter().cloned())
            .chain(addresses)
            .collect();
        parts.push(
            format!("netns {} {}", network.netns, of.join(" "))
                .trim_end()
                .to_owned(),
        );
    }
    match parts.is_empty() {
        true => "nothing but what runs".to_owned(),
        false => parts.join(", "),
    }
}

/// Whether its pod runs again.
pub(crate) fn twin(sandbox: &Sandbox) -> String {
    match (&sandbox.twin, &sandbox.pod) {
        (Some(twin), _) => format!("runs again: {twin}"),
        (None, Some(_)) => "no runtime has another sandbox of it on record".to_owned(),
        (None, None) => "nothing says which pod this was".to_owned(),
    }
}

/// One line that names it.
pub(crate) fn title(sandbox: &Sandbox) -> String {
    let mut title = sandbox.id.clone();
    if let Some(namespace) = &sandbox.namespace {
        let _ = write!(title, " ({namespace})");
    }
    if let Some(pod) = &sandbox.pod {
        let name = full_name(pod)
            .map(|name| format!("  pod {name}"))
            .unwrap_or_else(|| format!("  pod {}", pod.uid));
        title.push_str(&name);
    }
    title
}

/// What a repair does, in its order.
pub(crate) fn action(sandbox: &Sandbox) -> String {
    let mut steps = Vec::new();
    let mut step = |needed: bool, words: String| {
        if needed {
            steps.push(words);
        }
    };
    let replayed = sandbox
        .attachments
        .iter()
        .filter(|entry| entry.replayable)
        .count();
    step(replayed > 0, "repeat CNI DEL".to_owned());
    step(
        sandbox.runs(),
        format!(
            "end {} and {}",
            count(sandbox.processes.len(), "process", "processes"),
            count(sandbox.shims.len(), "shim", "shims")
        ),
    );
    step(!sandbox.tasks.is_empty(), "delete its tasks".to_owned());
    step(
        !sandbox.mounts.is_empty(),
        format!("unmount {}", count(sandbox.mounts.len(), "mount", "mounts")),
    );
    let mounted = sandbox.network.iter().flat_map(|network| &network.paths).count();
    step(mounted > 0, "release its netns".to_owned());
    step(
        !sandbox.cgroups.is_empty(),
        format!(
            "remove {}",
            count(sandbox.cgroups.len(), "empty cgroup", "empty cgroups")
        ),
    );
    let files = sandbox.attachments.len() - replayed;
    step(
        files > 0,
        format!("remove {}", count(files, "cache file", "cache files")),
    );
    step(
        !sandbox.bundles.is_empty(),
        format!("remove {}", count(sandbox.bundles.len(), "bundle", "bundles")),
    );
    let states = count(sandbox.runc_states.len(), "state of runc", "states of runc");
    step(!sandbox.runc_states.is_empty(), format!("remove {states}"));
    match steps.is_empty() {
        true => "nothing is left to remove".to_owned(),
        false => steps.join(", "),
    }
}
