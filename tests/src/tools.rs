//! Finding the programs that the lab needs: the machine's own, and the ones under test.

use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// Where the machine's programs are looked for, besides PATH: an ordinary user's PATH often lacks the sbin directories.
const SYSTEM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// The search path inside a node: the system's, and last the directory where cargo put this workspace's binaries.
pub(crate) fn node_path() -> String {
    let built = lab_binary()
        .ok()
        .and_then(|lab| lab.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    let dirs = SYSTEM_DIRS
        .map(str::to_owned)
        .into_iter()
        .chain([built.to_string_lossy().into_owned()]);
    dirs.collect::<Vec<_>>().join(":")
}

/// Where distributions put the CNI plugins.
const PLUGIN_DIRS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// A program of the machine, by name.
pub fn find(name: &str) -> Option<PathBuf> {
    SYSTEM_DIRS
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

/// A program of the machine, or the reason why there can be no lab.
pub(crate) fn need(name: &str, package: &str) -> Result<PathBuf> {
    find(name).ok_or_else(|| LabError::Missing(format!("there is no `{name}` (package {package})")))
}

/// The directory of the machine's CNI plugins, if `bridge` and `host-local` are in it.
pub fn cni_plugins() -> Option<PathBuf> {
    PLUGIN_DIRS
        .iter()
        .map(PathBuf::from)
        .find(|dir| dir.join("bridge").is_file() && dir.join("host-local").is_file())
}

/// A binary of this workspace, as cargo built it: beside the running one, or one directory up for a test.
///
/// # Errors
///
/// [`LabError::Missing`] when it was not built. `cargo test -p nodemend-lab` builds the lab only: build the tools first.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|source| LabError::Io {
        what: "find the running program".to_owned(),
        source,
    })?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            LabError::Missing(format!(
                "`{name}` was not built beside {}: run `cargo build` first",
                own.display()
            ))
        })
}

/// The lab's own binary, which is re-executed for everything that lives inside a node.
pub(crate) fn lab_binary() -> Result<PathBuf> {
    workspace_binary("nodemend-lab")
}
