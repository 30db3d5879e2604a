//! CNI DEL, repeated from libcni's cache.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodemend_evidence::Confirmed;
use nodemend_hostfs::Host;
use serde_json::Value;

use crate::cache::CacheEntry;
use crate::cached::Cached;
use crate::cachefile::CacheFile;
use crate::call;
use crate::conf::DEFAULT_BIN_DIRS;
use crate::conflist::{ConfList, Plugin};
use crate::error::ReplayError;
use crate::names;
use crate::plugin::{self, Call, Ended};

/// The most of a plugin's message that goes into an error, in characters.
const MESSAGE: usize = 500;

/// What stands for a deadline that no clock can hold.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// How to repeat a DEL.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Where the plugins are. The first directory that has one wins.
    pub bin_dirs: Vec<PathBuf>,
    /// How long all plugins of one attachment may take together.
    pub deadline: Duration,
}

impl Default for Replay {
    /// [`DEFAULT_BIN_DIRS`], and a minute.
    fn default() -> Self {
        Self {
            bin_dirs: DEFAULT_BIN_DIRS.iter().map(PathBuf::from).collect(),
            deadline: Duration::from_secs(60),
        }
    }
}

impl Replay {
    /// Repeats the DEL of a cached attachment, as libcni's `DelNetworkList` does it: the plugins of the cached
    /// configuration in reverse order, then the cache file is removed. This frees addresses, port mappings and
    /// interfaces alike.
    ///
    /// `proof` must prove that nobody owns the container id of this entry: a [`Confirmed`] for each object that the
    /// DEL takes away with it. What the proofs speak of cannot be compared with the entry here, so this is the
    /// caller's duty. An empty slice is refused.
    ///
    /// The file is read again, without following links, and must be the very one of the survey, owned by the user of
    /// this process and writable for nobody else: what it says is executed. All plugins must be found before the first
    /// is called. Blocks until the last ended, or the deadline passed.
    ///
    /// # Errors
    /// Any [`ReplayError`]; the cache file stays, and the same DEL can be repeated.
    pub fn delete<T>(
        &self,
        host: &Host,
        entry: &CacheEntry,
        proof: &[Confirmed<'_, T>],
    ) -> Result<(), ReplayError> {
        let container = entry.container_id.clone();
        if proof.is_empty() {
            return Err(ReplayError::Unproven { container });
        }
        if !host.is_running() {
            return Err(ReplayError::NotRunning {
                container,
                root: host.root().to_owned(),
            });
        }
        let file = CacheFile::open(host, entry)?;
        let (cached, list) = file.parse(entry)?;
        self.run_all(entry, &self.calls(&cached, &list)?)?;
        file.remove()
    }

    /// The calls of all plugins, last plugin first.
    fn calls(&self, cached: &Cached, list: &ConfList) -> Result<Vec<(String, Call)>, ReplayError> {
        let bin_path = std::env::join_paths(&self.bin_dirs).map_err(|_| self.no_plugin(cached, ""))?;
        let netns = call::netns(Path::new(&cached.netns));
        let one = |plugin: &Plugin| {
            let call = Call {
                path: self
                    .find(&plugin.kind)
                    .ok_or_else(|| self.no_plugin(cached, &plugin.kind))?,
                env: call::env(cached, &netns, bin_path.clone()),
                stdin: call::stdin(plugin, list, cached).to_string().into_bytes(),
            };
            Ok((plugin.kind.clone(), call))
        };
        list.plugins.iter().rev().map(one).collect()
    }

    fn find(&self, kind: &str) -> Option<PathBuf> {
        if !names::is_plugin(kind) {
            return None;
        }
        self.bin_dirs
            .iter()
            .map(|dir| dir.join(kind))
            .find(|path| path.is_absolute() && path.is_file())
    }

    fn no_plugin(&self, cached: &Cached, kind: &str) -> ReplayError {
        let dirs: Vec<_> = self.bin_dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        ReplayError::NoPlugin {
            container: cached.container_id.clone(),
            plugin: names::printable(kind, MESSAGE),
            searched: dirs.join(", "),
        }
    }

    fn run_all(&self, entry: &CacheEntry, calls: &[(String, Call)]) -> Result<(), ReplayError> {
        let now = Instant::now();
        let until = now.checked_add(self.deadline).unwrap_or(now + FOREVER);
        for (plugin, call) in calls {
            let (container, plugin) = (entry.container_id.clone(), plugin.clone());
            match plugin::run(call, until) {
                Ok(Some(ended)) if ended.status.success() => {}
                Ok(Some(ended)) => {
                    return Err(ReplayError::Failed {
                        container,
                        plugin,
                        message: message(&ended),
                    });
                }
                Ok(None) => {
                    return Err(ReplayError::Hung {
                        container,
                        plugin,
                        deadline: self.deadline,
                    });
                }
                Err(source) => {
                    return Err(ReplayError::Call {
                        container,
                        plugin,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

/// What a failed plugin said: the error object that CNI asks for on stdout, else the end of what it wrote.
fn message(ended: &Ended) -> String {
    let json: Option<Value> = serde_json::from_slice(&ended.stdout).ok();
    let said = |key: &str| {
        json.as_ref()
            .and_then(|json| json.get(key)?.as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let parts = [
        said("msg"),
        said("details"),
        last_line(&ended.stderr),
        last_line(&ended.stdout),
    ];
    let text = match parts {
        [msg, details, _, _] if !msg.is_empty() && !details.is_empty() => format!("{msg}; {details}"),
        [msg, _, _, _] if !msg.is_empty() => msg,
        [_, _, stderr, _] if !stderr.is_empty() => stderr,
        [_, _, _, stdout] => stdout,
    };
    match names::printable(&text, MESSAGE) {
        text if text.is_empty() => format!("{}, without a word", ended.status),
        text => text,
    }
}

fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}
