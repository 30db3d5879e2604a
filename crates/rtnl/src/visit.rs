//! Looking into every network namespace.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nodemend_procns::{Census, Netns, OpenError};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};

use crate::decode;
use crate::error::Error;
use crate::socket::Asker;
use crate::view::{Link, Seen, View};

/// More threads do not help: the kernel's lists are under one lock.
const THREADS: usize = 2;

/// The links of the calling thread's namespace. Listing them makes the kernel give an id to the namespace of
/// each peer (`peernet2id_alloc` in net/core/rtnetlink.c), which [`visit`] then finds.
///
/// # Errors
/// If the kernel does not give the list.
pub fn host_links() -> Result<Vec<Link>, Error> {
    Ok(Asker::here()?.links()?.into_iter().map(decode::link).collect())
}

/// A view of every namespace of the census, in its order. The host's own is among them.
///
/// # Errors
/// If the host's own namespace cannot be read. Another one that cannot be read is a view that says so.
pub fn visit(census: &Census) -> Result<Vec<View>, Error> {
    // The list comes first: it is what gives ids to the peers' namespaces.
    let mut host = Asker::here()?;
    let host_seen = look(&mut host, None, None)?;
    let others: Vec<&Netns> = census
        .namespaces
        .iter()
        .filter(|netns| netns.id != census.host)
        .collect();
    let next = AtomicUsize::new(0);
    let mut views = thread::scope(|scope| {
        let workers = (0..THREADS.min(others.len()))
            .map(|_| {
                thread::Builder::new()
                    .name("netns".into())
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, || visit_some(&others, &next))
                    .map_err(Error::Thread)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let mut views = Vec::with_capacity(others.len() + 1);
        for worker in workers {
            views.extend(
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            );
        }
        Ok::<_, Error>(views)
    })?;
    views.push((
        usize::MAX,
        View {
            netns: census.host,
            seen: host_seen,
        },
    ));
    views.sort_unstable_by_key(|(at, view)| (view.netns != census.host, *at));
    Ok(views.into_iter().map(|(_, view)| view).collect())
}

/// One worker: takes namespaces until none is left. The thread ends in the last namespace that it entered.
fn visit_some(namespaces: &[&Netns], next: &AtomicUsize) -> Result<Vec<(usize, View)>, Error> {
    let mut host = Asker::here()?;
    let home = std::fs::File::open("/proc/thread-self/ns/net")
        .map_err(Error::socket("open the host's namespace"))?;
    let mut views = Vec::new();
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(netns) = namespaces.get(at) else {
            return Ok(views);
        };
        views.push((
            at,
            View {
                netns: netns.id,
                seen: enter(netns, &mut host, home.as_fd()),
            },
        ));
    }
}

fn enter(netns: &Netns, host: &mut Asker, home: BorrowedFd<'_>) -> Seen {
    let door = match netns.open() {
        Ok(door) => door,
        Err(OpenError::Ended { .. }) => return Seen::Ended,
        Err(error) => {
            return Seen::Unknown {
                reason: error.to_string(),
            };
        }
    };
    let seen = host.nsid_of(door.as_fd()).and_then(|nsid| {
        move_into_link_name_space(door.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| Error::socket("enter a namespace")(errno.into()))?;
        look(&mut Asker::here()?, nsid, Some(home))
    });
    seen.unwrap_or_else(|error| Seen::Unknown {
        reason: error.to_string(),
    })
}

/// Everything in the namespace of this socket.
fn look(asker: &mut Asker, nsid: Option<i32>, host: Option<BorrowedFd<'_>>) -> Result<Seen, Error> {
    let links = asker.links()?;
    let addresses = asker.addresses()?;
    let host_nsid = host.map(|host| asker.nsid_of(host)).transpose()?.flatten();
    let uptime = u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or_default();
    Ok(Seen::Inside {
        nsid,
        host_nsid,
        links: links.into_iter().map(decode::link).collect(),
        addresses: addresses
            .into_iter()
            .filter_map(|address| decode::address(address, uptime))
            .collect(),
    })
}
