//! One survey, arranged for questions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_cni::CacheEntry;
use nodemend_evidence::{Claim, Look, Source};
use nodemend_procns::{Holder, Netns, NetnsId};
use nodemend_runtime::Index;

use crate::addresses::{Addresses, Spot};
use crate::claims::{self, Said, Sources};
use crate::form::Form;
use crate::judge::{Looks, Policy};
use crate::others;
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
    /// Of a container that no runtime knows: where one of its addresses still is configured.
    pub(crate) siblings: HashMap<&'a str, (IpAddr, Spot<'a>)>,
    replays: Replays<'a>,
    not_ours: Arc<str>,
}

/// The attachments of libcni's cache whose DEL can be run again, by network and container id.
pub(crate) struct Replays<'a> {
    of: HashMap<(&'a str, &'a str), Vec<&'a CacheEntry>>,
    /// Those that must not be, by their cache file, with the reason.
    refused: HashMap<&'a Path, String>,
}

impl<'a> Replays<'a> {
    pub(crate) fn of(survey: &'a Survey, index: &Index, addresses: &Addresses<'a>) -> Self {
        let mut replays: HashMap<_, Vec<_>> = HashMap::new();
        for entry in survey.cache.iter().filter(|entry| entry.replayable) {
            replays
                .entry((&*entry.network, &*entry.container_id))
                .or_default()
                .push(entry);
        }
        Self {
            of: replays,
            refused: others::refusals(survey, index, addresses),
        }
    }

    /// The attachment that a reservation belongs to. A bare id does not tell its interface: then the only one.
    pub(crate) fn find(&self, reservation: &Reservation) -> Option<&'a CacheEntry> {
        let id = reservation.id.as_deref()?;
        let entries = self.of.get(&(&*reservation.network, id))?;
        match (&reservation.ifname, entries.as_slice()) {
            (Some(ifname), entries) => entries.iter().find(|entry| *entry.ifname == **ifname).copied(),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// Why the DEL of an attachment must not be repeated, although nobody holds its reservations.
    pub(crate) fn refusal(&self, entry: &CacheEntry) -> Option<&str> {
        self.refused.get(&*entry.path).map(String::as_str)
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn of(survey: &'a Survey, policy: &'a Policy) -> Self {
        let index = index(survey);
        let addresses = Addresses::of(survey, &index);
        Self {
            calls: claims::calls(survey),
            configured: claims::configured(survey),
            siblings: others::siblings(survey, &addresses),
            replays: Replays::of(survey, &index, &addresses),
            not_ours: "no CNI configuration of this node keeps its reservations in this directory".into(),
            said: Said::of(survey, policy),
            sources: Sources::new(),
            addresses,
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
            let attachment = self.replays.find(seen);
            if attachment.is_some_and(|entry| self.replays.refusal(entry).is_none()) {
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

pub(crate) fn mounts(netns: &Netns) -> impl Iterator<Item = &Path> {
    netns.holders.iter().filter_map(|holder| match holder {
        Holder::Mount { path } => Some(path.as_path()),
        Holder::Process { .. } | Holder::Thread { .. } | Holder::ForeignMount { .. } | Holder::Fd { .. } => {
            None
        }
    })
}

/// /var/run is a link to /run; runtimes write either.
pub(crate) fn in_run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}

/// How many sandboxes with a network of their own the node's sources know: the owners that addresses should have.
pub fn live_sandboxes(survey: &Survey) -> usize {
    index(survey).live_sandboxes()
}

/// The sources that did not answer, each as a sentence: while there is one, nothing is an orphan.
pub fn silent(survey: &Survey) -> Vec<String> {
    let index = index(survey);
    index
        .silent()
        .into_iter()
        .chain(survey.census.unread.first().cloned())
        .collect()
}

/// What the runtimes said, arranged, with what libcni's cache ties to it.
pub(crate) fn index(survey: &Survey) -> Index {
    Index::new(&survey.knowledge, &survey.census, &ties(survey))
}
