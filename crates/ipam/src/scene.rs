//! One survey, arranged for questions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_cni::CacheEntry;
use nodemend_evidence::{Claim, Look, Source};
use nodemend_procns::{Holder, Netns, NetnsId};
use nodemend_runtime::Index;

use crate::addresses::Addresses;
use crate::claims::{self, Said, Sources};
use crate::form::Form;
use crate::judge::{Looks, Policy};
use crate::reservation::{Repair, Reservation};
use crate::survey::Survey;

/// A survey with the lookups that the claims need.
pub(crate) struct Scene<'a> {
    pub(crate) survey: &'a Survey,
    pub(crate) policy: &'a Policy,
    pub(crate) index: Index,
    pub(crate) sources: Sources,
    pub(crate) said: Said,
    pub(crate) addresses: Addresses<'a>,
    /// What each container id's plugin is doing right now.
    pub(crate) calls: HashMap<&'a str, Claim>,
    /// What the configuration says, by directory.
    pub(crate) configured: HashMap<&'a str, Claim>,
    replays: Replays<'a>,
    not_ours: Arc<str>,
}

/// The attachments of libcni's cache whose DEL can be run again, by network and container id.
pub(crate) struct Replays<'a>(HashMap<(&'a str, &'a str), Vec<&'a CacheEntry>>);

impl<'a> Replays<'a> {
    pub(crate) fn of(survey: &'a Survey) -> Self {
        let mut replays: HashMap<_, Vec<_>> = HashMap::new();
        for entry in survey.cache.iter().filter(|entry| entry.replayable) {
            replays
                .entry((&*entry.network, &*entry.container_id))
                .or_default()
                .push(entry);
        }
        Self(replays)
    }

    /// The attachment that a reservation belongs to. A bare id does not tell its interface: then the only one.
    pub(crate) fn find(&self, reservation: &Reservation) -> Option<&'a CacheEntry> {
        let id = reservation.id.as_deref()?;
        let entries = self.0.get(&(&*reservation.network, id))?;
        match (&reservation.ifname, entries.as_slice()) {
            (Some(ifname), entries) => entries.iter().find(|entry| *entry.ifname == **ifname).copied(),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn of(survey: &'a Survey, policy: &'a Policy) -> Self {
        let index = Index::new(&survey.knowledge, &survey.census, &ties(survey));
        Self {
            addresses: Addresses::of(survey, &index),
            calls: claims::calls(survey),
            configured: claims::configured(survey),
            replays: Replays::of(survey),
            not_ours: "no CNI configuration of this node keeps its reservations in this directory".into(),
            said: Said::of(survey, policy),
            sources: Sources::new(),
            survey,
            policy,
            index,
        }
    }

    /// Everything that this survey says of each reservation.
    pub(crate) fn looks(&self) -> Looks {
        let mut looks = Looks {
            required: self.required(),
            ours: Vec::new(),
            foreign: Vec::new(),
        };
        looks.ours.reserve(self.survey.reservations.len());
        for seen in &self.survey.reservations {
            let mut subject = seen.clone();
            if self.replays.find(seen).is_some() {
                subject.repair = Repair::Replay;
            }
            match self.foreign(seen) {
                Some(reason) => looks.foreign.push((subject, reason)),
                None => looks.ours.push(Look {
                    evidence: claims::of(self, seen),
                    subject,
                }),
            }
        }
        looks
    }

    fn required(&self) -> Vec<Source> {
        self.sources
            .all()
            .into_iter()
            .chain(self.index.required().iter())
            .cloned()
            .collect()
    }

    /// Why a file is not host-local's for this node.
    fn foreign(&self, reservation: &Reservation) -> Option<Arc<str>> {
        if !self.configured.contains_key(&*reservation.dir) {
            return Some(self.not_ours.clone());
        }
        match &reservation.form {
            Form::Foreign(reason) => Some(reason.clone()),
            Form::Modern | Form::Legacy | Form::Empty | Form::Unread(_) => None,
        }
    }
}

/// Which namespace libcni's cache ties a container id to.
pub(crate) fn ties(survey: &Survey) -> Vec<(String, NetnsId)> {
    let mounted: HashMap<&Path, NetnsId> = survey
        .census
        .namespaces
        .iter()
        .flat_map(|netns| mounts(netns).map(move |path| (path, netns.id)))
        .collect();
    let of = |path: &Path| {
        mounted
            .get(path)
            .or_else(|| mounted.get(in_run(path).as_path()))
            .copied()
    };
    survey
        .cache
        .iter()
        .filter_map(|entry| Some((entry.container_id.clone(), of(&entry.netns)?)))
        .collect()
}

fn mounts(netns: &Netns) -> impl Iterator<Item = &Path> {
    netns.holders.iter().filter_map(|holder| match holder {
        Holder::Mount { path } => Some(path.as_path()),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::ForeignMount { .. } | Holder::Fd { .. } => {
            None
        }
    })
}

/// /var/run is a link to /run; runtimes write either.
fn in_run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}

/// How many sandboxes with a network of their own the node's sources know: the owners that addresses should have.
pub fn live_sandboxes(survey: &Survey) -> usize {
    Index::new(&survey.knowledge, &survey.census, &ties(survey)).live_sandboxes()
}

/// The sources that did not answer, each as a sentence: while there is one, nothing is an orphan.
pub fn silent(survey: &Survey) -> Vec<String> {
    let index = Index::new(&survey.knowledge, &survey.census, &ties(survey));
    index
        .silent()
        .into_iter()
        .chain(survey.census.unread.first().cloned())
        .collect()
}
