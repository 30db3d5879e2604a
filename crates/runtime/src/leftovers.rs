//! What runtimes leave beside their records: shims, bundles and the state of runc, each with what makes it this one and no other.

use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_procns::Census;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bundles::{self, BundleDir};
use crate::endpoint::Endpoint;
use crate::runc::{self, RuncState};
use crate::shims::Shim;
use crate::survey::{aside, look_for_shims, sockets};

/// The shims, the bundles and the states of runc of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Leftovers {
    /// The processes that watch over containers: containerd's shims, conmon.
    pub shims: Vec<Shim>,
    /// The bundle directories.
    pub bundles: Vec<BundleDir>,
    /// The directories in which runc keeps the state of containers.
    #[serde(default)]
    pub runc_states: Vec<RuncState>,
    /// What could not be read: then there may be more of each.
    pub unread: Vec<String>,
}

/// Finds the shims among the processes of a census, and the bundles below the state directory of each runtime. The same
/// as what [`crate::survey`] tells as records, but with the things themselves. And what runc keeps, which is no record.
///
/// Needs a tokio runtime with time. Never fails: what could not be read is in [`Leftovers::unread`].
pub async fn leftovers(
    host: &Host,
    endpoints: &[Endpoint],
    census: &Census,
    deadline: Duration,
) -> Leftovers {
    let (at, beside) = (host.clone(), sockets(endpoints));
    let bundles = aside(deadline, move || bundles::directories(&at, &beside));
    let at = host.clone();
    let states = aside(deadline, move || runc::states(&at));
    let shims = look_for_shims(host, census, endpoints, deadline);
    let (shims, bundles, states) = futures::future::join3(shims, bundles, states).await;
    let bundles = bundles.and_then(|found| found);
    let states = states.and_then(|found| found);
    let mut found = Leftovers::default();
    match shims {
        Ok(shims) => found.shims = shims,
        Err(reason) => found.unread.push(format!("shim processes: {reason}")),
    }
    match bundles {
        Ok(bundles) => found.bundles = bundles,
        Err(reason) => found.unread.push(format!("shim bundles: {reason}")),
    }
    match states {
        Ok(states) => found.runc_states = states,
        Err(reason) => found.unread.push(format!("runc's states: {reason}")),
    }
    found
}
