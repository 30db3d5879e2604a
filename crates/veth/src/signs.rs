//! Signs of life of a pair, each with its age: what the kernel and the file system date.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use nodemend_cni::CacheEntry;
use nodemend_rtnl::Address;

use crate::pair::VethPair;

/// The newest sign of each kind, in seconds before the survey.
pub(crate) struct Signs<'a> {
    /// By the host's end: an address that was configured on it.
    configured: HashMap<u32, u64>,
    /// By the name of the host's end: the attachment's cache file.
    cached: HashMap<&'a str, u64>,
    /// By the path of the namespace: the same.
    cached_at: HashMap<PathBuf, u64>,
}

impl<'a> Signs<'a> {
    /// Of the host's addresses and libcni's cache. `now` is in seconds since 1970.
    pub(crate) fn of(addresses: &[Address], cache: &'a [CacheEntry], now: u64) -> Self {
        let mut signs = Self {
            configured: HashMap::new(),
            cached: HashMap::new(),
            cached_at: HashMap::new(),
        };
        for (address, age) in addresses
            .iter()
            .filter_map(|address| Some((address, address.age?)))
        {
            newest(signs.configured.entry(address.ifindex).or_insert(age), age);
        }
        for entry in cache {
            let age = now.saturating_sub(entry.mtime);
            for name in &entry.host_interfaces {
                newest(signs.cached.entry(name).or_insert(age), age);
            }
            newest(signs.cached_at.entry(in_run(&entry.netns)).or_insert(age), age);
        }
        signs
    }

    /// The newest sign of a pair; `inner` are the addresses of its namespace.
    pub(crate) fn newest(&self, pair: &VethPair, inner: &[Address]) -> Option<u64> {
        let inner = inner.iter().filter_map(|address| address.age);
        let cached_at = pair.mounts().filter_map(|path| self.cached_at.get(&in_run(path)));
        let known = self
            .configured
            .get(&pair.ifindex)
            .into_iter()
            .chain(self.cached.get(&*pair.name))
            .chain(cached_at);
        known.copied().chain(inner).min()
    }
}

fn newest(known: &mut u64, age: u64) {
    *known = age.min(*known);
}

/// /var/run is a link to /run; runtimes write either.
pub(crate) fn in_run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}
