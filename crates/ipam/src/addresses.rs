//! Which addresses are configured anywhere on the node, and who owns the namespaces they are in.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use nodemend_procns::{Holder, Netns, NetnsId};
use nodemend_rtnl::{Link, Seen};
use nodemend_runtime::Index;

use crate::survey::Survey;

/// Every address of a survey.
#[derive(Debug)]
pub(crate) struct Addresses<'a> {
    by_ip: HashMap<IpAddr, Vec<Spot<'a>>>,
    /// Why the list may lack some, if it may.
    pub(crate) doubt: Option<Arc<str>>,
}

/// Where an address is configured.
#[derive(Clone, Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) netns: NetnsId,
    pub(crate) interface: &'a str,
    pub(crate) owner: Arc<Owner>,
}

/// Who keeps a namespace on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is the host's.
    Host,
    /// A sandbox, by its pod or its id.
    Sandbox(String),
    /// A process or thread that lives in it.
    Process(String),
    /// Nobody: only mounts or open files keep it.
    Nobody,
}

impl<'a> Addresses<'a> {
    pub(crate) fn of(survey: &'a Survey, index: &Index) -> Self {
        let namespaces: HashMap<_, _> = survey
            .census
            .namespaces
            .iter()
            .map(|netns| (netns.id, netns))
            .collect();
        let mut by_ip: HashMap<IpAddr, Vec<Spot<'a>>> = HashMap::new();
        for view in &survey.views {
            let Seen::Inside { links, addresses, .. } = &view.seen else {
                continue;
            };
            let owner = Arc::new(owner(
                survey,
                index,
                view.netns,
                namespaces.get(&view.netns).copied(),
            ));
            let names: HashMap<u32, &str> = links.iter().map(|link| (link.ifindex, &*link.name)).collect();
            for address in addresses {
                let interface = names.get(&address.ifindex).copied().unwrap_or("an interface");
                by_ip.entry(address.ip).or_default().push(Spot {
                    netns: view.netns,
                    interface,
                    owner: owner.clone(),
                });
            }
        }
        Self {
            by_ip,
            doubt: doubt(survey).map(Arc::from),
        }
    }

    /// Where this address is configured.
    pub(crate) fn spots(&self, ip: IpAddr) -> &[Spot<'a>] {
        self.by_ip.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (IpAddr, &[Spot<'a>])> {
        self.by_ip.iter().map(|(ip, spots)| (*ip, spots.as_slice()))
    }
}

impl Spot<'_> {
    /// `eth0 in netns 4026532321, which …`
    pub(crate) fn told(&self) -> String {
        match &*self.owner {
            Owner::Host => format!("{} of the host", self.interface),
            Owner::Sandbox(name) => format!("{} in netns {} of {name}", self.interface, self.netns),
            Owner::Process(name) => format!("{} in netns {}, where {name} lives", self.interface, self.netns),
            Owner::Nobody => format!(
                "{} in netns {}, which no sandbox owns",
                self.interface, self.netns
            ),
        }
    }
}

pub(crate) fn owner(survey: &Survey, index: &Index, id: NetnsId, netns: Option<&Netns>) -> Owner {
    if id == survey.census.host {
        return Owner::Host;
    }
    if let Some(name) = index.owner_of(id) {
        return Owner::Sandbox(name);
    }
    let living = netns
        .into_iter()
        .flat_map(|netns| &netns.holders)
        .find_map(|holder| match holder {
            Holder::Process { pid, comm } => Some(format!("process {pid} ({comm})")),
            Holder::Thread { pid, tid, comm } => Some(format!("thread {tid} ({comm}) of process {pid}")),
            Holder::Mount { .. } | Holder::ForeignMount { .. } | Holder::Fd { .. } => None,
        });
    living.map_or(Owner::Nobody, Owner::Process)
}

/// Why there may be addresses that nobody could see.
fn doubt(survey: &Survey) -> Option<String> {
    let host = survey.views.iter().find(|view| view.netns == survey.census.host);
    let Some(Seen::Inside { links, .. }) = host.map(|view| &view.seen) else {
        let reason = survey
            .census
            .unread
            .first()
            .map_or("the host's own namespace was not read", String::as_str);
        return Some(reason.to_owned());
    };
    let closed = survey.views.iter().find_map(|view| match &view.seen {
        Seen::Unknown { reason } => Some(format!("netns {} could not be looked into: {reason}", view.netns)),
        Seen::Inside { .. } | Seen::Ended => None,
    });
    closed.or_else(|| hidden(survey, links))
}

/// A veth of the host that leads into a namespace which no view shows: something that cannot be seen holds it.
fn hidden(survey: &Survey, host: &[Link]) -> Option<String> {
    let mut ids = HashSet::new();
    let mut inner_ends = HashSet::new();
    for view in survey
        .views
        .iter()
        .filter(|view| view.netns != survey.census.host)
    {
        if let Seen::Inside { nsid, links, .. } = &view.seen {
            ids.extend(*nsid);
            inner_ends.extend(
                links
                    .iter()
                    .filter(|link| is_veth(link))
                    .filter_map(|link| link.peer),
            );
        }
    }
    let loops: HashSet<_> = host
        .iter()
        .filter(|link| is_veth(link))
        .map(|link| (Some(link.ifindex), link.peer))
        .collect();
    let lost = host
        .iter()
        .filter(|link| is_veth(link))
        .find(|link| match link.peer_nsid {
            Some(nsid) => !ids.contains(&nsid),
            None => !loops.contains(&(link.peer, Some(link.ifindex))) && !inner_ends.contains(&link.ifindex),
        })?;
    Some(format!(
        "{} leads into a namespace that no process, mount or open file accounts for; what is configured there cannot be \
         read",
        lost.name
    ))
}

fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}
