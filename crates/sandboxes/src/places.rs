//! What containers have in the file system: mounts, and cgroups.

mod cgroups;
mod layers;

use std::path::Path;

use nodemend_hostfs::mountinfo::{self, Mount};
use nodemend_hostfs::{Host, pool};
use nodemend_procns::{Census, Details};
use nodemend_runtime::Leftovers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sandbox::{Cgroup, SandboxMount};

/// The mounts and cgroups of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Places {
    /// The mounts that containerd made for containers, in this mount namespace.
    pub mounts: Vec<SandboxMount>,
    /// The cgroups of containers.
    pub cgroups: Vec<ContainerCgroup>,
    /// What could not be read: then there may be more.
    pub unread: Vec<String>,
}

/// A cgroup of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerCgroup {
    /// The container's id.
    pub container: String,
    /// The cgroup.
    pub cgroup: Cgroup,
}

impl Places {
    /// Looks at the mount table, and at what is mounted; never waits for a file system that does not answer.
    pub(crate) fn find(
        host: &Host,
        census: &Census,
        details: &Details,
        leftovers: &Leftovers,
    ) -> Result<Self, Error> {
        let mut places = Self::default();
        let table = match table(host)? {
            Ok(table) => table,
            Err(reason) => {
                places.unread.push(reason);
                return Ok(places);
            }
        };
        let of_containers = table.iter().filter(|mount| is_of_containerd(&mount.mountpoint));
        let of_containers = of_containers.filter(|mount| mount.netns_inode().is_none());
        places.mounts = layers::check(of_containers)?;
        let wanted = cgroups::wanted(&table, census, details, leftovers);
        let (found, unread) = cgroups::look(wanted)?;
        places.cgroups = found;
        places.unread.extend(unread);
        Ok(places)
    }
}

/// The mount table of this process, or why it cannot be read.
fn table(host: &Host) -> Result<Result<Vec<Mount>, String>, Error> {
    let at = host.clone();
    let read = move |_: &(), _: &pool::Pulse, answer: &mut dyn FnMut(_)| {
        answer(mountinfo::of_process(&at, std::process::id()).map_err(|error| error.to_string()));
    };
    let done = pool::run(vec![()], Box::new(read)).map_err(Error::Thread)?;
    let silent = || Err("the kernel did not give the mount table within 2 s".to_owned());
    Ok(done.answers.into_iter().next().unwrap_or_else(silent))
}

/// Everything of containerd lies below directories that are named for a plugin of it (`io.containerd.runtime.v2.task`,
/// `io.containerd.grpc.v1.cri`).
fn is_of_containerd(path: &Path) -> bool {
    path.iter()
        .any(|part| part.as_encoded_bytes().starts_with(b"io.containerd."))
}
