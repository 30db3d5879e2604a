//! A directory of plugins that are shell scripts, and an attachment whose DEL calls them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodemend_cni::{CacheEntry, Replay, ReplayError};
use nodemend_evidence::{Claim, Confirmed, Evidence, Lock, Look, Source, Subject, Verdict, judge};
use nodemend_hostfs::Host;
use serde_json::Value;

use crate::node::Node;

/// Writes down that it was called, and what it was given.
pub(crate) const RECORDS: &str = r#"
dir=$(dirname "$0"); name=$(basename "$0")
echo "$name" >> "$dir/order"; env > "$dir/$name.env"; cat > "$dir/$name.stdin"
"#;

/// An attachment on the running host, below a temporary directory.
pub(crate) struct Lab {
    pub(crate) node: Node,
    pub(crate) replay: Replay,
}

impl Lab {
    /// With a cache file of that content, and recording plugins of these names.
    pub(crate) fn new(cached: &Value, plugins: &[&str]) -> Self {
        let node = Node::new();
        let file = node.write("/results/file", cached.to_string());
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(node.path("/bin")).unwrap();
        let replay = Replay {
            bin_dirs: vec![node.path("/none"), node.path("/bin")],
            deadline: Duration::from_secs(20),
        };
        let lab = Self { node, replay };
        for name in plugins {
            lab.plugin(name, RECORDS);
        }
        lab
    }

    pub(crate) fn plugin(&self, name: &str, script: &str) {
        let path = self
            .node
            .write(&format!("/bin/{name}"), format!("#!/bin/sh\n{script}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn cache_file(&self) -> PathBuf {
        self.node.path("/results/file")
    }

    /// The attachment as a survey finds it.
    pub(crate) fn entry(&self) -> CacheEntry {
        let mut found = nodemend_cni::cache_in(&Host::local(), [&*self.node.path("/results")]);
        assert_eq!(found.problems, []);
        found.entries.remove(0)
    }

    pub(crate) fn delete(&self) -> Result<(), ReplayError> {
        self.delete_as(&self.entry())
    }

    pub(crate) fn delete_as(&self, entry: &CacheEntry) -> Result<(), ReplayError> {
        let guard = Guard;
        self.replay.delete(&Host::local(), entry, &[proof(&guard)])
    }

    /// What a recording plugin wrote; empty if it was not called.
    pub(crate) fn record(&self, name: &str) -> String {
        fs::read_to_string(self.node.path(&format!("/bin/{name}"))).unwrap_or_default()
    }

    /// One variable of the environment that a recording plugin had.
    pub(crate) fn env(&self, plugin: &str, key: &str) -> Option<String> {
        let env = self.record(&format!("{plugin}.env"));
        env.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
    }

    pub(crate) fn stdin(&self, plugin: &str) -> Value {
        serde_json::from_str(&self.record(&format!("{plugin}.stdin"))).unwrap()
    }

    pub(crate) fn order(&self) -> Vec<String> {
        self.record("order").lines().map(str::to_owned).collect()
    }
}

pub(crate) struct Guard;
impl Lock for Guard {}

#[derive(Debug)]
pub(crate) struct Leak;
impl Subject for Leak {
    type Identity = ();
    fn identity(&self) {}
    fn title(&self) -> String {
        "a leak".to_owned()
    }
    fn action(&self) -> String {
        "repeat its DEL".to_owned()
    }
}

pub(crate) fn proof(guard: &Guard) -> Confirmed<'_, Leak> {
    let source = Source::new("the test");
    let evidence = || vec![Evidence::new(&source, Claim::absent("nobody"))];
    match judge(Leak, std::slice::from_ref(&source), evidence()) {
        Verdict::Orphan(orphan) => orphan
            .confirm(
                guard,
                &[],
                Look {
                    subject: Leak,
                    evidence: evidence(),
                },
            )
            .unwrap(),
        Verdict::Live(_) | Verdict::Undecided(_) | Verdict::Foreign(_) => panic!("not an orphan"),
    }
}

/// True unless the process is gone or only waits for its parent to notice.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
