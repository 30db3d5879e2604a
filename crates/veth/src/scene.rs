//! One survey, arranged for questions.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use nodemend_evidence::{Look, Source};
use nodemend_hostfs::Moment;
use nodemend_procns::{Netns, NetnsId};
use nodemend_rtnl::{Address, Link, Seen};
use nodemend_runtime::Index;

use crate::claims::{self, Sources};
use crate::judge::{Looks, Policy, sighting_key};
use crate::pair::{VethPair, is_cni_name, mounts};
use crate::signs::{Signs, in_run};
use crate::survey::Survey;
use crate::unplug::is_own_group;

/// What was seen in one namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    pub(crate) id: NetnsId,
    pub(crate) nsid: Option<i32>,
    pub(crate) host_nsid: Option<i32>,
    pub(crate) links: &'a [Link],
    pub(crate) addresses: &'a [Address],
}

impl<'a> Room<'a> {
    /// The link in this room whose other end is the host's link with that index.
    pub(crate) fn inner_end(&self, ifindex: u32) -> Option<&'a Link> {
        self.host_nsid?;
        self.links
            .iter()
            .find(|link| link.peer == Some(ifindex) && link.peer_nsid == self.host_nsid)
    }
}

/// A survey with the lookups that the claims need.
pub(crate) struct Scene<'a> {
    pub(crate) survey: &'a Survey,
    pub(crate) policy: &'a Policy,
    pub(crate) index: Index,
    pub(crate) sources: Sources,
    host: Option<Room<'a>>,
    host_links: HashMap<u32, &'a Link>,
    signs: Signs<'a>,
    rooms: HashMap<i32, Room<'a>>,
    unread: Vec<(NetnsId, &'a str)>,
    namespaces: HashMap<NetnsId, &'a Netns>,
    bridges: HashSet<&'a str>,
}

/// Where a host link leads.
pub(crate) enum Leads<'a> {
    /// Into this namespace.
    Into(Room<'a>),
    /// Somewhere that cannot be named, because …
    Nowhere(String),
}

impl<'a> Scene<'a> {
    pub(crate) fn of(survey: &'a Survey, policy: &'a Policy) -> Self {
        let mut host = None;
        let mut rooms = HashMap::new();
        let mut unread = Vec::new();
        for view in &survey.views {
            match &view.seen {
                Seen::Inside {
                    nsid,
                    host_nsid,
                    links,
                    addresses,
                } => {
                    let room = Room {
                        id: view.netns,
                        nsid: *nsid,
                        host_nsid: *host_nsid,
                        links,
                        addresses,
                    };
                    if view.netns == survey.census.host {
                        host = Some(room);
                    } else if let Some(nsid) = room.nsid {
                        rooms.insert(nsid, room);
                    }
                }
                Seen::Unknown { reason } => unread.push((view.netns, reason.as_str())),
                Seen::Ended => {}
            }
        }
        let namespaces: HashMap<_, _> = survey
            .census
            .namespaces
            .iter()
            .map(|netns| (netns.id, netns))
            .collect();
        let ties = ties(survey);
        let (host_links, host_addresses): (&[Link], &[Address]) = host
            .as_ref()
            .map_or((&[], &[]), |host: &Room<'_>| (host.links, host.addresses));
        Self {
            host_links: host_links.iter().map(|link| (link.ifindex, link)).collect(),
            signs: Signs::of(host_addresses, &survey.cache, survey.moment.unix),
            survey,
            policy,
            index: Index::new(&survey.knowledge, &survey.census, &ties),
            sources: Sources::new(),
            host,
            rooms,
            unread,
            namespaces,
            bridges: survey.configurations.bridges().collect(),
        }
    }

    /// Everything that this survey says of each veth of the host.
    pub(crate) fn looks(&self) -> Looks {
        let mut looks = Looks {
            required: self.required(),
            ours: Vec::new(),
            foreign: Vec::new(),
        };
        for (link, leads, pair) in self.pairs() {
            match self.foreign(link) {
                Some(reason) => looks.foreign.push((pair, reason)),
                None => {
                    let evidence = claims::of(self, link, &pair, &leads);
                    looks.ours.push(Look {
                        subject: pair,
                        evidence,
                    });
                }
            }
        }
        looks
    }

    /// The pairs that may be this node's and carry no time of their own.
    pub(crate) fn ageless(&self) -> impl Iterator<Item = VethPair> {
        self.pairs()
            .filter(|(link, _, pair)| pair.age.is_none() && self.foreign(link).is_none())
            .map(|(_, _, pair)| pair)
    }

    /// Each veth of the host, and where it leads.
    fn pairs(&self) -> impl Iterator<Item = (&'a Link, Leads<'a>, VethPair)> {
        let links = self.host.iter().flat_map(|host| host.links);
        links
            .filter(|link| link.kind.as_deref() == Some("veth"))
            .map(|link| {
                let leads = self.leads(link);
                let pair = self.pair(link, &leads);
                (link, leads, pair)
            })
    }

    fn required(&self) -> Vec<Source> {
        let own = self.sources.all().into_iter().cloned();
        own.chain(
            self.index
                .required()
                .iter()
                .filter(|source| !self.is_cut(source))
                .cloned(),
        )
        .collect()
    }

    /// With `--cut-running`, what still runs does not speak for itself: only the runtimes' records count.
    pub(crate) fn is_cut(&self, source: &Source) -> bool {
        self.policy.cut_running && !self.index.is_record(source)
    }

    /// Why a veth was not made by this node's CNI configuration. Only what has every mark of the plugins bridge and
    /// flannel is ours: others look after their own links.
    fn foreign(&self, link: &Link) -> Option<&'static str> {
        if !is_cni_name(&link.name) {
            return Some("its name is not of the form that the CNI plugins give (veth and eight hex digits)");
        }
        if link.alias.is_some() || !link.alt_names.is_empty() {
            return Some("somebody gave it an alias or another name");
        }
        if link.group != 0 && !is_own_group(link.group) {
            return Some("somebody put it into a link group");
        }
        if self.is_loop(link) {
            return Some("both of its ends are in the host's network namespace");
        }
        match self.master(link) {
            None => Some("it is not part of a bridge"),
            Some(bridge) if !self.bridges.contains(bridge.name.as_str()) => {
                Some("its bridge is none of this node's CNI configurations'")
            }
            Some(bridge) if bridge.kind.as_deref() != Some("bridge") => {
                Some("what it is part of is not a bridge")
            }
            Some(_) => None,
        }
    }

    fn is_loop(&self, link: &Link) -> bool {
        let other = link
            .peer
            .filter(|_| link.peer_nsid.is_none())
            .and_then(|peer| self.host_links.get(&peer));
        other.is_some_and(|other| other.peer == Some(link.ifindex) && other.peer_nsid.is_none())
    }

    fn master(&self, link: &Link) -> Option<&'a Link> {
        self.host_links.get(&link.master?).copied()
    }

    /// The first proof: the kernel's id for the peer's namespace, and the namespace that has this id.
    pub(crate) fn leads(&self, link: &Link) -> Leads<'a> {
        let Some(nsid) = link.peer_nsid else {
            return Leads::Nowhere(
                "this kernel does not tell where a pair leads (it can from Linux 4.0 on)".to_owned(),
            );
        };
        match self.rooms.get(&nsid) {
            Some(room) => Leads::Into(*room),
            None if !self.unread.is_empty() => Leads::Nowhere(format!(
                "leads to namespace id {nsid}, which may be netns {}, which could not be read: {}",
                self.unread[0].0, self.unread[0].1
            )),
            None => Leads::Nowhere(format!(
                "leads to namespace id {nsid}, which no process, thread, mount or open file accounts for: a socket or \
                 something else that cannot be seen holds it"
            )),
        }
    }

    /// The second proof, where the first is missing: a namespace that has an inner end for this link.
    fn points_here(&self, link: &Link) -> Option<(NetnsId, &'a Link)> {
        self.survey.views.iter().find_map(|view| match &view.seen {
            Seen::Inside { links, .. } if view.netns != self.survey.census.host => {
                let inner = links.iter().find(|inner| {
                    inner.kind.as_deref() == Some("veth")
                        && inner.peer == Some(link.ifindex)
                        && link.peer.is_none_or(|peer| peer == inner.ifindex)
                })?;
                Some((view.netns, inner))
            }
            Seen::Inside { .. } | Seen::Unknown { .. } | Seen::Ended => None,
        })
    }

    fn pair(&self, link: &Link, leads: &Leads<'a>) -> VethPair {
        let (netns, inner) = match leads {
            Leads::Into(room) => (Some(room.id), room.inner_end(link.ifindex)),
            Leads::Nowhere(_) => self
                .points_here(link)
                .map_or((None, None), |(id, inner)| (Some(id), Some(inner))),
        };
        let holders = netns
            .and_then(|id| self.namespaces.get(&id))
            .map(|netns| netns.holders.clone());
        let mut pair = VethPair {
            ifindex: link.ifindex,
            name: link.name.clone(),
            mac: link.mac.clone(),
            master: self.master(link).map(|bridge| bridge.name.clone()),
            peer_ifindex: link.peer,
            peer_name: inner.map(|inner| inner.name.clone()),
            netns,
            holders: holders.unwrap_or_default(),
            owner: netns.and_then(|id| self.index.owner_of(id)),
            age: None,
            cut: self.policy.cut_running,
        };
        pair.cut &= !pair.held_by_mounts_only();
        pair.age = self.age(leads, &pair);
        pair
    }

    /// Seconds since the newest sign of life of a pair.
    fn age(&self, leads: &Leads<'a>, pair: &VethPair) -> Option<u64> {
        let inner: &[Address] = match leads {
            Leads::Into(room) => room.addresses,
            Leads::Nowhere(_) => &[],
        };
        self.signs.newest(pair, inner).or_else(|| self.first_seen(pair))
    }

    fn first_seen(&self, pair: &VethPair) -> Option<u64> {
        let first: &Moment = self.survey.first_seen.get(&sighting_key(pair))?;
        Some(self.survey.moment.since(first)?.as_secs())
    }
}

/// Which namespace libcni's cache ties a container id to.
fn ties(survey: &Survey) -> Vec<(String, NetnsId)> {
    let mounted: HashMap<&Path, NetnsId> = survey
        .census
        .namespaces
        .iter()
        .flat_map(|netns| mounts(&netns.holders).map(move |path| (path, netns.id)))
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

pub(crate) fn same_path(a: &Path, b: &Path) -> bool {
    in_run(a) == in_run(b)
}

/// How many sandboxes with a network of their own the node's sources know: the owners that pairs should have.
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
