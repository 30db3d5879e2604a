//! Everything of a node that a repair of its network could change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Doing, LabError, Result};
use crate::node::Node;
use crate::process::Process;
use crate::sandbox::{CNI_CACHE, Sandbox};

/// A node's links, namespace files, reservations, cache and processes. Two that are equal are of a node that nobody has changed.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// By name: index, address, master, group, kind.
    pub links: BTreeMap<String, String>,
    /// By path: which namespace is mounted there.
    pub netns: BTreeMap<PathBuf, String>,
    /// Files of host-local and of libcni by path: inode and content.
    pub files: BTreeMap<PathBuf, String>,
    /// By id. Not those by which a runtime cleans up after itself: they come and go.
    pub processes: BTreeSet<u32>,
}

/// Where namespaces are mounted: iproute2's and containerd's place, docker's, and containerd's below its state directory.
const NETNS_DIRS: [&str; 3] = [
    "/run/netns",
    "/run/docker/netns",
    "/run/containerd/io.containerd.grpc.v1.cri/netns",
];

impl Node {
    /// What the node is like now.
    ///
    /// # Errors
    ///
    /// When `ip` fails or a file cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut netns = BTreeMap::new();
        for dir in NETNS_DIRS.map(Path::new) {
            for name in self.names(dir) {
                let path = dir.join(name);
                let meta = fs::metadata(self.path(&path)).at("look at", &path)?;
                netns.insert(path, format!("{}:{}", meta.dev(), meta.ino()));
            }
        }
        let mut files = BTreeMap::new();
        for dir in [self.data_dir(), Path::new(CNI_CACHE)] {
            self.read_tree(dir, &mut files)?;
        }
        let of_the_runtime =
            |process: &Process| process.argv.iter().any(|word| word == "delete" || word == "kill");
        let all = self.processes().into_iter();
        let running = all.filter(|process| !process.zombie && !of_the_runtime(process));
        Ok(Fingerprint {
            links: self.all_links()?,
            netns,
            files,
            processes: running.map(|process| process.pid).collect(),
        })
    }

    /// The node must be like this: as it was before, or as a repair should have made it.
    ///
    /// # Errors
    ///
    /// With every difference.
    pub fn unchanged(&self, since: &Fingerprint) -> Result<()> {
        let changes = since.changes(&self.fingerprint()?);
        if changes.is_empty() {
            return Ok(());
        }
        Err(LabError::Odd(format!(
            "the node changed:\n{}",
            changes.join("\n")
        )))
    }

    fn all_links(&self) -> Result<BTreeMap<String, String>> {
        let text = self.exec(&["ip", "-json", "-details", "link"])?;
        let links: Vec<Value> = serde_json::from_str(&text)
            .map_err(|error| LabError::Odd(format!("ip -json -details link: {error}")))?;
        let one = |link: &Value| {
            let kind = &link["linkinfo"]["info_kind"];
            // A bridge that was given no address of its own takes that of a port.
            let address = if kind == "bridge" {
                &Value::Null
            } else {
                &link["address"]
            };
            let of = [&link["ifindex"], address, &link["master"], &link["group"], kind];
            let name = link["ifname"].as_str().unwrap_or_default().to_owned();
            (name, of.map(Value::to_string).join(" "))
        };
        Ok(links.iter().map(one).collect())
    }

    fn read_tree(&self, dir: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<()> {
        for name in self.names(dir) {
            let path = dir.join(name);
            let outside = self.path(&path);
            let meta = fs::symlink_metadata(&outside).at("look at", &path)?;
            if meta.is_dir() {
                self.read_tree(&path, files)?;
            } else {
                let content = fs::read(&outside).at("read", &path)?;
                files.insert(
                    path,
                    format!("{} {}", meta.ino(), String::from_utf8_lossy(&content)),
                );
            }
        }
        Ok(())
    }
}

impl Fingerprint {
    /// The same node without the veth pair and the namespace file of a sandbox: what a repair of its network should make of it.
    pub fn unplugged(mut self, sandbox: &Sandbox) -> Fingerprint {
        self.links.remove(&sandbox.host_veth);
        self.netns.remove(&in_run(&sandbox.netns));
        self
    }

    /// The same node without the reservations and the cache of a sandbox.
    pub fn freed(mut self, sandbox: &Sandbox) -> Fingerprint {
        self.files.retain(|path, content| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy())
                .unwrap_or_default();
            !content.contains(&sandbox.id) && !name.contains(&sandbox.id)
        });
        self
    }
}

impl Fingerprint {
    /// What was there before and is not now, with `-`, and what is new, with `+`. Nothing if nobody changed anything.
    pub fn changes(&self, now: &Fingerprint) -> Vec<String> {
        let (before, now) = (self.lines(), now.lines());
        let gone = before.difference(&now).map(|line| format!("- {line}"));
        gone.chain(now.difference(&before).map(|line| format!("+ {line}")))
            .collect()
    }

    fn lines(&self) -> BTreeSet<String> {
        let links = self
            .links
            .iter()
            .map(|(name, link)| format!("link {name} {link}"));
        let netns = self
            .netns
            .iter()
            .map(|(path, id)| format!("netns {} {id}", path.display()));
        let files = self
            .files
            .iter()
            .map(|(path, text)| format!("file {} {text}", path.display()));
        let processes = self.processes.iter().map(|pid| format!("process {pid}"));
        links.chain(netns).chain(files).chain(processes).collect()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node's fingerprint")
    }
}

/// Runtimes write `/var/run`, which is a link to `/run`.
fn in_run(path: &Path) -> PathBuf {
    path.strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), |below| Path::new("/run").join(below))
}
