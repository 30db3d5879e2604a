//! The flannel plugin's files: what its daemon tells it, and what it remembers of its own ADDs.
//!
//! The forms are those of flannel-io/cni-plugin, `flannel.go` and `flannel_linux.go`.

use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conflist::{self, Form, Plugin, text};
use crate::files::{self, LIMIT};
use crate::ipam;
use crate::names;
use crate::problem::Problem;
use crate::range::{Range, RangeSet};

/// Where the plugin remembers its ADDs unless told otherwise.
pub const DEFAULT_SCRATCH_DIR: &str = "/var/lib/cni/flannel";

/// Where flanneld writes the node's subnets unless told otherwise.
const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// What the flannel plugin remembers of its own ADDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlannelScratch {
    /// One for each container that flannel attached.
    pub entries: Vec<FlannelEntry>,
    /// What could not be read or understood. flannel's DEL returns success without such a file, and the reservation
    /// stays for ever.
    pub problems: Vec<Problem>,
}

/// One file of the scratch directory: the configuration that flannel gave to the plugin that it delegated to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlannelEntry {
    /// The file.
    #[serde(with = "nodemend_hostfs::text")]
    #[schemars(with = "PathBuf")]
    pub path: PathBuf,
    /// Which file that is.
    pub id: FileId,
    /// The container: the file's name.
    pub container_id: String,
    /// The network's name.
    pub network: String,
    /// Where host-local keeps the reservation; none for the default, or if another plugin gave the address.
    #[serde(default, with = "nodemend_hostfs::text")]
    #[schemars(with = "Option<PathBuf>")]
    pub data_dir: Option<PathBuf>,
    /// When it was written, in seconds since 1970.
    pub mtime: u64,
}

/// Reads [`DEFAULT_SCRATCH_DIR`]. A missing directory holds nothing, which is no problem.
pub fn flannel_scratch(host: &Host) -> FlannelScratch {
    let mut found = FlannelScratch::default();
    let mut unclear = Vec::new();
    files::each(
        host,
        Path::new(DEFAULT_SCRATCH_DIR),
        &mut found.problems,
        |path, name, opened| match scratch_conf(name, &opened.bytes) {
            Ok((network, data_dir)) => found.entries.push(FlannelEntry {
                path,
                id: opened.id,
                container_id: name.to_owned(),
                network,
                data_dir,
                mtime: opened.mtime(),
            }),
            Err(reason) => unclear.push(Problem::new(&path, reason)),
        },
    );
    found.problems.extend(unclear);
    found
}

/// The network and the data directory that a scratch file names.
fn scratch_conf(name: &str, bytes: &[u8]) -> Result<(String, Option<PathBuf>), String> {
    if !names::is_id(name) {
        return Err("its name is no container id".to_owned());
    }
    let list = conflist::parse(bytes, Form::Single)?;
    let mut reasons = Vec::new();
    let ipam = list
        .plugins
        .iter()
        .find_map(|plugin| ipam::of_plugin(plugin, &mut reasons));
    match reasons.into_iter().next() {
        Some(reason) if ipam.is_none() => Err(reason),
        Some(_) | None => Ok((list.name, ipam.and_then(|ipam| ipam.data_dir))),
    }
}

/// Where a flannel plugin reads the node's subnets.
pub(crate) fn subnet_file(plugin: &Plugin) -> Result<&Path, String> {
    let path = Path::new(text(&plugin.conf, "subnetFile")?.unwrap_or(DEFAULT_SUBNET_FILE));
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("flannel's \"subnetFile\" is not an absolute path".to_owned())
    }
}

/// The node's subnets, as sets of ranges.
pub(crate) fn range_sets(host: &Host, path: &Path) -> Result<Vec<RangeSet>, Problem> {
    let bytes = host
        .read(path, LIMIT)
        .map_err(|error| Problem::new(path, error.to_string()))?;
    parse_env(&bytes).map_err(|reason| Problem::new(path, reason))
}

/// `FLANNEL_SUBNET` first, then `FLANNEL_IPV6_SUBNET`, as the plugin passes them on. A later line wins.
fn parse_env(bytes: &[u8]) -> Result<Vec<RangeSet>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let mut subnets = [None, None];
    for line in text.lines() {
        let place = match line.split_once('=') {
            Some(("FLANNEL_SUBNET", subnet)) => Some((0, subnet)),
            Some(("FLANNEL_IPV6_SUBNET", subnet)) => Some((1, subnet)),
            Some(_) | None => None,
        };
        if let Some((index, subnet)) = place {
            subnets[index] = Some(Range::new(subnet.parse()?, None, None, None)?);
        }
    }
    let sets: Vec<_> = subnets
        .into_iter()
        .flatten()
        .map(|range| RangeSet { ranges: vec![range] })
        .collect();
    if sets.is_empty() {
        Err("it names no FLANNEL_SUBNET and no FLANNEL_IPV6_SUBNET".to_owned())
    } else {
        Ok(sets)
    }
}
