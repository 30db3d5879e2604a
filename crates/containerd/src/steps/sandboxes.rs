//! The sandboxes of before, by the crate of forgotten sandboxes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nodemend_evidence::{Orphan, Subject};
use nodemend_hostfs::Journal;
use nodemend_sandboxes::{Policy, Sandbox, SurveyOptions, blocking, plan, remember};

use super::leftovers::{Cleared, Setting, undecided};
use crate::error::Error;
use crate::options::Options;
use crate::run::Tools;
use crate::settings::Settings;
use crate::state::Run;

/// Clears the sandboxes of this run's containerd that nobody has a record of; with `reap` those that run, too.
pub(crate) fn clear(
    run: &Run,
    (grace, reap): (Duration, bool),
    options: &Options,
    setting: &Setting,
    tools: &mut Tools<'_>,
    journal: &mut Journal,
) -> Result<Cleared, Error> {
    let wanted = SurveyOptions {
        discovery: options.discovery.clone(),
        deadline: options.deadline,
    };
    let policy = Policy {
        grace,
        reap,
        // This run has wiped them itself.
        records_lost: true,
    };
    let look = || -> Result<_, Error> {
        let mut survey = blocking::survey(&setting.host, &wanted)?;
        remember(&mut survey, tools.state)?;
        Ok(survey)
    };
    let first = look()?;
    std::thread::sleep(options.settle);
    let plan = plan(&first, &look()?, &policy);
    let undecided = undecided(&plan, |sandbox| is_surely_of(sandbox, &run.settings));
    let summary = plan.summary();
    let ours: Vec<Orphan<Sandbox>> = plan
        .into_orphans()
        .into_iter()
        .filter(|orphan| is_of(orphan.subject(), &run.settings))
        .collect();
    let mut outcomes = Vec::new();
    if !ours.is_empty() {
        let names: Vec<_> = ours
            .iter()
            .map(|orphan| (orphan.subject().identity(), name(orphan.subject())))
            .collect();
        let again = look()?;
        let mending = nodemend_sandboxes::Tools {
            journal,
            stop: tools.stop,
            progress: &mut |_done| {},
            replay: setting.replay.clone(),
        };
        let done = blocking::apply(ours, tools.lock, &again, &policy, mending)?;
        outcomes = done
            .into_iter()
            .map(|(identity, outcome)| {
                let known = names.iter().find(|(known, _)| *known == identity);
                (known.map_or(identity.id, |(_, name)| name.clone()), outcome)
            })
            .collect();
    }
    Ok(Cleared {
        what: "sandboxes",
        summary,
        undecided,
        outcomes,
    })
}

/// The records of another containerd were not lost by this run: what a shim or a bundle of it says is not ours.
fn is_of(sandbox: &Sandbox, settings: &Settings) -> bool {
    signs(sandbox, settings).all(|ours| ours)
}

/// What has neither shim nor bundle may be anybody's: that it is undecided is no reason to keep kubelet down.
fn is_surely_of(sandbox: &Sandbox, settings: &Settings) -> bool {
    is_of(sandbox, settings) && signs(sandbox, settings).next().is_some()
}

/// Whether each shim and each bundle is of this containerd.
fn signs(sandbox: &Sandbox, settings: &Settings) -> impl Iterator<Item = bool> {
    let (socket, state) = (in_run(&settings.socket), in_run(&settings.state));
    let shims = sandbox.shims.iter().filter_map(|shim| shim.containerd.as_deref());
    let shims = shims.map(move |theirs| in_run(theirs) == socket);
    let bundles = sandbox.bundles.iter();
    shims.chain(bundles.map(move |bundle| in_run(&bundle.path).starts_with(&state)))
}

/// `/var/run` is `/run`.
fn in_run(path: &Path) -> PathBuf {
    match path.strip_prefix("/var/run") {
        Ok(below) => Path::new("/run").join(below),
        Err(_) => path.to_owned(),
    }
}

fn name(sandbox: &Sandbox) -> String {
    match &sandbox.pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => sandbox.id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::run;

    #[test]
    fn what_a_second_containerd_made_is_not_this_runs() {
        let settings = run().settings;
        let sandbox = |socket: Option<&str>, bundle: Option<&str>| -> Sandbox {
            serde_json::from_value(serde_json::json!({
                "id": "a", "namespace": "k8s.io", "pod": null, "twin": null, "containers": [],
                "shims": socket.map(|socket| serde_json::json!(
                    {"pid": 7, "startTime": 1, "program": "/usr/bin/containerd-shim-runc-v2", "containerd": socket}
                )).into_iter().collect::<Vec<_>>(),
                "processes": [], "tasks": [],
                "bundles": bundle.map(|path| serde_json::json!(
                    {"path": path, "dir": {"dev": 1, "ino": 2}, "container": "a"}
                )).into_iter().collect::<Vec<_>>(),
                "mounts": [], "network": null, "cgroups": [], "attachments": [], "age": null, "reap": false,
            }))
            .unwrap()
        };
        let own = Some("/var/run/containerd/containerd.sock");
        let bundle = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/a";
        assert!(is_of(&sandbox(own, Some(bundle)), &settings));
        assert!(is_surely_of(&sandbox(own, None), &settings));
        let bare = sandbox(None, None);
        assert!(is_of(&bare, &settings) && !is_surely_of(&bare, &settings));
        assert!(!is_of(
            &sandbox(Some("/run/docker/containerd/containerd.sock"), None),
            &settings
        ));
        assert!(!is_of(
            &sandbox(
                own,
                Some("/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/a")
            ),
            &settings
        ));
    }
}
