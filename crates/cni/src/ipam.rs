//! The `ipam` section of a plugin's configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::conflist::{Object, Plugin, text};
use crate::names;
use crate::range::{Range, RangeSet};

/// Where host-local keeps its reservations, in one directory for each network, unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The plugin that host-local is, by its type.
pub(crate) const HOST_LOCAL: &str = "host-local";

/// How a network hands out addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ipam {
    /// The plugin: `host-local`, `dhcp`, `whereabouts` …
    pub kind: String,
    /// Where host-local keeps its reservations; none for [`DEFAULT_DATA_DIR`].
    #[serde(default, with = "nodemend_hostfs::text")]
    #[schemars(with = "Option<PathBuf>")]
    pub data_dir: Option<PathBuf>,
    /// host-local's ranges, a set for each address that an attachment gets. Empty for other plugins, and where the
    /// runtime or the API server gives the range (`usePodCidr`).
    pub range_sets: Vec<RangeSet>,
}

impl Ipam {
    /// Where host-local keeps its reservations.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DEFAULT_DATA_DIR))
    }
}

/// The `ipam` section of a plugin, if it has one that names a plugin. What is wrong with it goes to `problems`.
pub(crate) fn of_plugin(plugin: &Plugin, problems: &mut Vec<String>) -> Option<Ipam> {
    let flannel = plugin.kind == "flannel";
    let section = match plugin.conf.get("ipam") {
        Some(Value::Object(section)) => section.clone(),
        Some(Value::Null) | None if flannel => Object::new(),
        Some(Value::Null) | None => return None,
        Some(_) => {
            problems.push("an \"ipam\" is not an object".to_owned());
            return None;
        }
    };
    let fallback = if flannel { HOST_LOCAL } else { "" };
    let kind = text(&section, "type")
        .unwrap_or_else(|problem| noted(problem, problems))
        .unwrap_or(fallback);
    if kind.is_empty() {
        return None;
    }
    let mut ipam = Ipam {
        kind: kind.to_owned(),
        data_dir: None,
        range_sets: Vec::new(),
    };
    if kind == HOST_LOCAL {
        ipam.data_dir = match data_dir(&section) {
            Ok(dir) => dir,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        ipam.range_sets = range_sets(&section, flannel, problems);
    }
    Some(ipam)
}

fn noted<'a>(problem: String, problems: &mut Vec<String>) -> Option<&'a str> {
    problems.push(problem);
    None
}

/// An empty `dataDir` is the default to host-local (`disk.New`).
fn data_dir(section: &Object) -> Result<Option<PathBuf>, String> {
    match text(section, "dataDir")? {
        None | Some("") => Ok(None),
        Some(dir) if dir.starts_with('/') => Ok(Some(PathBuf::from(dir))),
        Some(dir) => Err(format!(
            "the dataDir \"{}\" is not an absolute path",
            names::printable(dir, 200)
        )),
    }
}

/// The old single range first, then the key `ranges`, as in host-local's `LoadIPAMConfig`. flannel replaces `ranges`
/// by what its subnet file says.
fn range_sets(section: &Object, flannel: bool, problems: &mut Vec<String>) -> Vec<RangeSet> {
    let mut sets = Vec::new();
    if section.get("subnet").is_some() {
        sets.push(range(section).map(|range| range.into_iter().collect()));
    }
    match section.get("ranges") {
        Some(_) if flannel => {}
        Some(Value::Array(given)) => sets.extend(given.iter().map(range_set)),
        Some(Value::Null) | None => {}
        Some(_) => problems.push("the \"ranges\" of an ipam is not a list of lists".to_owned()),
    }
    let mut good = Vec::new();
    for set in sets {
        match set {
            Ok(ranges) if ranges.is_empty() => {}
            Ok(ranges) => good.push(RangeSet { ranges }),
            Err(problem) => problems.push(problem),
        }
    }
    good
}

fn range_set(value: &Value) -> Result<Vec<Range>, String> {
    let ranges = value.as_array().ok_or("a set of ranges is not a list")?;
    let mut set = Vec::new();
    for value in ranges {
        set.extend(range(value.as_object().ok_or("a range is not an object")?)?);
    }
    if set
        .iter()
        .any(|range| range.start.is_ipv4() != set[0].start.is_ipv4())
    {
        return Err("a set of ranges mixes IPv4 and IPv6".to_owned());
    }
    Ok(set)
}

/// None for Calico's placeholders `usePodCidr` and `usePodCidrIPv6`: Calico fills them in itself.
fn range(object: &Object) -> Result<Option<Range>, String> {
    let subnet = text(object, "subnet")?.ok_or("a range has no \"subnet\"")?;
    if subnet.starts_with("usePodCidr") {
        return Ok(None);
    }
    let range = Range::new(
        subnet.parse()?,
        ip(object, "rangeStart")?,
        ip(object, "rangeEnd")?,
        ip(object, "gateway")?,
    )?;
    Ok(Some(range))
}

fn ip(object: &Object, key: &str) -> Result<Option<IpAddr>, String> {
    match text(object, key)? {
        None | Some("") => Ok(None),
        Some(ip) => ip
            .parse()
            .map(Some)
            .map_err(|_| format!("the {key} \"{}\" is not an address", names::printable(ip, 60))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, ipam: &str) -> (Option<Ipam>, Vec<String>) {
        let conf = format!(r#"{{"type":"{kind}","ipam":{ipam}}}"#);
        let plugin = Plugin {
            kind: kind.to_owned(),
            conf: serde_json::from_str(&conf).unwrap(),
        };
        let mut problems = Vec::new();
        (of_plugin(&plugin, &mut problems), problems)
    }

    fn texts(ipam: &Ipam) -> Vec<String> {
        ipam.range_sets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_to_write_ranges_is_understood() {
        for (ipam, expected) in [
            (
                r#"{"type":"host-local","subnet":"10.1.0.0/24"}"#,
                vec!["10.1.0.1-10.1.0.254"],
            ),
            (
                r#"{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.5","rangeEnd":"10.1.0.9","gateway":"10.1.0.1"}"#,
                vec!["10.1.0.5-10.1.0.9"],
            ),
            (
                r#"{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/25"},{"subnet":"10.2.0.0/25"}],[{"subnet":"fd00::/120"}]]}"#,
                vec!["10.1.0.1-10.1.0.126,10.2.0.1-10.2.0.126", "fd00::1-fd00::ff"],
            ),
            (
                r#"{"type":"host-local","subnet":"10.1.0.0/25","ranges":[[{"subnet":"fd00::/120"}]]}"#,
                vec!["10.1.0.1-10.1.0.126", "fd00::1-fd00::ff"],
            ),
            (r#"{"type":"host-local","subnet":"usePodCidr"}"#, vec![]),
            (
                r#"{"type":"host-local","ranges":[[{"subnet":"usePodCidrIPv6"}]]}"#,
                vec![],
            ),
            (r#"{"type":"host-local","ranges":null}"#, vec![]),
            (r#"{"type":"whereabouts","range":"10.1.0.0/24"}"#, vec![]),
            (r#"{"type":"calico-ipam","subnet":7}"#, vec![]),
        ] {
            let (found, problems) = read("bridge", ipam);
            assert_eq!(texts(&found.unwrap()), expected, "{ipam}");
            assert_eq!(problems, [""; 0], "{ipam}");
        }
    }

    #[test]
    fn a_range_that_is_not_understood_is_told_and_the_others_stay() {
        for (bad, says) in [
            (r#"{"subnet":"10.1.0.0"}"#, "not a network"),
            (r#"{}"#, "no \"subnet\""),
            (r#"{"subnet":"10.1.0.0/24","gateway":"x"}"#, "not an address"),
            (
                r#"{"subnet":"10.1.0.0/24","rangeStart":"10.9.0.1"}"#,
                "not in the network",
            ),
            (r#"{"subnet":"10.1.0.0/24"},{"subnet":"fd00::/64"}"#, "mixes"),
            (r#"3"#, "not an object"),
        ] {
            let ipam = format!(r#"{{"type":"host-local","ranges":[[{bad}],[{{"subnet":"10.7.0.0/24"}}]]}}"#);
            let (found, problems) = read("bridge", &ipam);
            assert_eq!(texts(&found.unwrap()), ["10.7.0.1-10.7.0.254"]);
            assert!(
                problems.len() == 1 && problems[0].contains(says),
                "{bad}: {problems:?}"
            );
        }
    }

    #[test]
    fn the_data_dir_is_absolute_or_the_default() {
        for (dir, expected) in [
            ("", DEFAULT_DATA_DIR),
            (r#","dataDir":"""#, DEFAULT_DATA_DIR),
            (r#","dataDir":"/run/cni-ipam-state""#, "/run/cni-ipam-state"),
        ] {
            let (found, _) = read("ptp", &format!(r#"{{"type":"host-local"{dir}}}"#));
            assert_eq!(found.unwrap().data_dir(), Path::new(expected));
        }
        let (found, problems) = read("ptp", r#"{"type":"host-local","dataDir":"../../etc"}"#);
        assert!(
            found.is_none() && problems[0].contains("not an absolute path"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_plugin_without_ipam_has_none() {
        for ipam in ["{}", "null", r#"{"type":""}"#] {
            assert_eq!(read("bridge", ipam), (None, Vec::new()));
        }
        assert_eq!(read("bridge", "[]").1.len(), 1);
        assert_eq!(read("flannel", "null").0.unwrap().kind, HOST_LOCAL);
    }
}
