//! One survey, arranged for questions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodemend_evidence::{Claim, Evidence, Look, Source};
use nodemend_hostfs::Spoken;

use crate::claims::{self, Heard, Sources, is_below};
use crate::judge::Policy;
use crate::pod::PodDir;
use crate::runtimes::{self, Runtimes};
use crate::survey::Survey;
use crate::testimony::{
    API_SERVER, BLOCKS, CGROUPS, CHECKPOINTS, KUBELET, Known, KubeletProcess, MANIFESTS, PROCESSES,
};
use crate::uid::Uid;

/// A survey with the lookups that the claims need.
pub(crate) struct Scene<'a> {
    pub(crate) survey: &'a Survey,
    pub(crate) policy: &'a Policy,
    pub(crate) heard: Vec<Heard<'a>>,
    pub(crate) runtimes: Runtimes,
    pub(crate) sources: Sources,
}

impl<'a> Scene<'a> {
    pub(crate) fn of(survey: &'a Survey, policy: &'a Policy) -> Self {
        let members = match survey.testimony.of(CGROUPS) {
            Some(Known::Pods { pods, .. }) => Some(pods.len()),
            Some(Known::Partly { .. } | Known::Silent(_) | Known::NotHere(_)) | None => None,
        };
        let mut scene = Self {
            survey,
            policy,
            heard: Vec::new(),
            runtimes: Runtimes::of(&survey.knowledge, &survey.census, members),
            sources: Sources::new(),
        };
        for source in [
            KUBELET,
            API_SERVER,
            MANIFESTS,
            CHECKPOINTS,
            CGROUPS,
            PROCESSES,
            BLOCKS,
        ] {
            let doubt = scene.doubt(source);
            scene
                .heard
                .push(Heard::of(source, survey.testimony.of(source), doubt));
        }
        scene
    }

    /// Why an answer that is of the right form is not to be relied on for what it does not name.
    fn doubt(&self, source: &str) -> Option<String> {
        let Some(Known::Pods { pods, .. }) = self.survey.testimony.of(source) else {
            return None;
        };
        let young = if let (KUBELET, KubeletProcess::Running { since, .. }) =
            (source, &self.survey.testimony.kubelet)
        {
            self.too_young(*since)
        } else {
            None
        };
        young.or_else(|| {
            matches!(source, KUBELET | API_SERVER)
                .then(|| self.knows_nobody(pods))
                .flatten()
        })
    }

    /// Until its sources are ready, kubelet's list has only a part of the pods.
    pub(crate) fn too_young(&self, since: u64) -> Option<String> {
        let settled = self.policy.settled.as_secs();
        (since < settled).then(|| {
            format!(
                "came up {} ago, and its list may not be whole yet; repeat when it has run for {}",
                Spoken(since),
                Spoken(settled)
            )
        })
    }

    /// A list that has none of the pods that run here is of another node, or lost.
    fn knows_nobody(&self, listed: &[(Uid, String)]) -> Option<String> {
        let running = match self.survey.testimony.of(CGROUPS) {
            Some(Known::Pods { pods, .. } | Known::Partly { pods, .. }) => pods,
            Some(Known::Silent(_) | Known::NotHere(_)) | None => return None,
        };
        let (first, said) = running.first()?;
        let known = running
            .iter()
            .any(|(uid, _)| listed.iter().any(|(listed, _)| listed == uid));
        (!known).then(|| {
            format!(
                "its {} pods have none of the {} that run here (first: {first}, {said})",
                listed.len(),
                running.len()
            )
        })
    }

    fn heard(&self, source: &str) -> Option<&Heard<'a>> {
        self.heard.iter().find(|heard| heard.source.name() == source)
    }

    /// True if a source of the testimony can say of a pod that it does not know it.
    pub(crate) fn answered(&self, source: &str) -> bool {
        self.heard(source).is_some_and(Heard::answered)
    }

    /// True if a path lies in a pod's directory, by any path that kubelet's root is seen by.
    pub(crate) fn is_in(&self, path: &Path, uid: &Uid) -> bool {
        let layout = &self.survey.layout;
        std::iter::once(&layout.root)
            .chain(&layout.also_at)
            .any(|root| is_below(path, root, uid))
    }

    /// What `--kubelet-down` says, checked.
    pub(crate) fn kubelet_is_down(&self) -> Claim {
        match &self.survey.testimony.kubelet {
            KubeletProcess::NotRunning => Claim::absent("none runs, as --kubelet-down says"),
            KubeletProcess::Running { pid, comm, .. } => Claim::unknown(format!(
                "--kubelet-down is refused: it runs (pid {pid}, {comm}). Stop it, or ask it"
            )),
            KubeletProcess::Unknown(reason) => Claim::unknown(reason.as_str()),
            KubeletProcess::NotAsked => Claim::unknown("nobody looked for it"),
        }
    }

    /// The sources that must all have answered.
    ///
    /// Somebody must know which pods the node should have: kubelet itself; else the API server, and then what kubelet
    /// wrote down must not name the pod either; with `--kubelet-down` the operator says that there is no such pod.
    pub(crate) fn required(&self) -> Vec<Source> {
        let mut required = vec![
            self.sources.directory.clone(),
            self.sources.mounts.clone(),
            self.sources.age.clone(),
        ];
        required.extend([CGROUPS, PROCESSES, BLOCKS, MANIFESTS].map(Source::new));
        required.extend(self.runtimes.required().iter().cloned());
        if self.policy.kubelet_down {
            required.push(self.sources.kubelet_process.clone());
            required.push(Source::new(CHECKPOINTS));
        } else if self.answered(KUBELET) {
            required.push(Source::new(KUBELET));
        } else if self.answered(API_SERVER) {
            required.extend([API_SERVER, CHECKPOINTS].map(Source::new));
        } else {
            required.extend([KUBELET, API_SERVER].map(Source::new));
        }
        if self.policy.only.is_some() {
            required.push(self.sources.log.clone());
        }
        required
    }

    /// Everything that this survey says of one pod directory.
    pub(crate) fn evidence(&self, pod: &PodDir) -> Vec<Evidence> {
        claims::of(self, pod)
    }

    /// Everything that this survey says of each pod directory.
    pub(crate) fn looks(&self) -> impl Iterator<Item = Look<Arc<PodDir>>> {
        self.survey.layout.pods.iter().map(|pod| Look {
            subject: Arc::clone(pod),
            evidence: self.evidence(pod),
        })
    }

    /// Each required source that did not answer, as `source: reason`.
    fn silent(&self) -> Vec<String> {
        let required = self.required();
        let heard = self.heard.iter().filter(|heard| required.contains(&heard.source));
        // What manifests bring forth bears on static pods alone.
        let heard = heard.filter(|heard| heard.source.name() != MANIFESTS);
        let mut silent: Vec<String> = heard
            .filter_map(|heard| Some(format!("{}: {}", heard.source, heard.silence()?)))
            .collect();
        silent.extend(self.runtimes.silent().iter().cloned());
        silent.extend(self.survey.layout.unread.first().cloned());
        if let (true, Claim::Unknown(reason)) = (self.policy.kubelet_down, self.kubelet_is_down()) {
            silent.push(format!("{}: {reason}", self.sources.kubelet_process));
        }
        silent
    }
}

/// The sources that did not answer, each as a sentence: while there is one, nothing is an orphan.
pub fn silent(survey: &Survey, policy: &Policy) -> Vec<String> {
    Scene::of(survey, policy).silent()
}

/// How many pods live on the node, as far as anybody says: the owners that pod directories should have.
pub fn live_pods(survey: &Survey) -> usize {
    let listed = [KUBELET, API_SERVER, CGROUPS].map(|source| match survey.testimony.of(source) {
        Some(Known::Pods { pods, .. } | Known::Partly { pods, .. }) => pods.len(),
        Some(Known::Silent(_) | Known::NotHere(_)) | None => 0,
    });
    let known = runtimes::pods(&survey.knowledge).len();
    listed.into_iter().chain([known]).max().unwrap_or_default()
}

/// How long kubelet must have run before its list counts, unless told otherwise.
pub(crate) const SETTLED: Duration = Duration::from_secs(300);
