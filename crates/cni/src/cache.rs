//! libcni's cache: one file for each attachment, written when its ADD succeeded, removed when its DEL did.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cached::{self, Cached};
use crate::files::{self, Opened};
use crate::names;
use crate::problem::Problem;

/// Where the cache is: libcni's own place, and the one that kubelet's dockershim and cri-dockerd chose.
pub const DEFAULT_CACHE_DIRS: &[&str] = &["/var/lib/cni/results", "/var/lib/cni/cache/results"];

/// What libcni remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// The attachments.
    pub entries: Vec<CacheEntry>,
    /// Files that were not understood. With libcni up to 1.1.2 such a file makes every DEL of its attachment fail.
    pub problems: Vec<Problem>,
}

/// One attachment of a container to a network. All of it comes from the file's content: names of networks and
/// containers both contain `-`, so the file's name cannot be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheEntry {
    /// The file.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub path: PathBuf,
    /// Which file that is.
    pub id: FileId,
    /// The network's name.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// The interface inside of the container.
    pub ifname: String,
    /// The container's network namespace at the time of ADD; empty if it had none. Nothing says that it still is there.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub netns: PathBuf,
    /// The interfaces that the ADD made on the host: the bridge, and the host's end of the pair.
    pub host_interfaces: Vec<String>,
    /// The addresses that the ADD gave.
    pub ips: Vec<IpAddr>,
    /// Where host-local keeps its reservations by the cached configuration; empty for the default.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "Vec<PathBuf>")]
    pub data_dirs: Vec<PathBuf>,
    /// When it was written, in seconds since 1970.
    pub mtime: u64,
    /// True if it holds the configuration, so that the DEL can be repeated from it.
    pub replayable: bool,
}

/// Reads libcni's cache from [`DEFAULT_CACHE_DIRS`]. Missing directories hold nothing, which is no problem.
pub fn cache(host: &Host) -> Cache {
    cache_in(host, DEFAULT_CACHE_DIRS.iter().map(Path::new))
}

/// Reads libcni's cache from directories of the caller's choice. Two names of one directory count once.
pub fn cache_in<'a>(host: &Host, dirs: impl IntoIterator<Item = &'a Path>) -> Cache {
    let mut found = Cache::default();
    let mut unclear = Vec::new();
    let mut seen = Vec::new();
    for dir in dirs {
        if let Some(id) = host.open_dir(dir).ok().and_then(|fd| FileId::of(fd).ok()) {
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
        }
        files::each(
            host,
            dir,
            &mut found.problems,
            |path, _, opened| match cached::parse(&opened.bytes) {
                Ok(cached) => {
                    if let Err(reason) = &cached.config {
                        unclear.push(Problem::new(
                            &path,
                            format!("its DEL cannot be repeated: {reason}"),
                        ));
                    }
                    found.entries.push(entry(path, &opened, cached));
                }
                Err(reason) => unclear.push(Problem::new(&path, reason)),
            },
        );
    }
    found.problems.extend(unclear);
    found
}

fn entry(path: PathBuf, opened: &Opened, cached: Cached) -> CacheEntry {
    let safe =
        |list: &crate::conflist::ConfList| list.plugins.iter().all(|plugin| names::is_plugin(&plugin.kind));
    CacheEntry {
        path,
        id: opened.id,
        host_interfaces: cached.host_interfaces(),
        ips: cached.ips(),
        data_dirs: cached.data_dirs(),
        mtime: opened.mtime(),
        replayable: cached.config.as_ref().is_ok_and(safe),
        network: cached.network,
        container_id: cached.container_id,
        ifname: cached.ifname,
        netns: cached.netns.into(),
    }
}
