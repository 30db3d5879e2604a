//! The node's runtime: started, stopped, hung and moved as operators and incidents do.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Doing, LabError, Result};
use crate::image;
use crate::network;
use crate::node::Node;
use crate::options::Engine;
use crate::tools;

/// The runtime's data directory.
pub const ROOT: &str = "/var/lib/containerd";

/// The runtime's socket, before anybody moved it.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// Where it keeps what belongs to a running container of Kubernetes.
pub(crate) const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// Its unit, on a node with systemd.
pub(crate) const UNIT: &str = "containerd.service";

/// Where its log goes.
pub(crate) const LOG: &str = "/run/lab/runtime.log";
const PID: &str = "/run/lab/runtime.pid";
const MOVED: &str = "/run/lab/socket";
const CONFIG: &str = "/etc/containerd/config.toml";
const ARCHIVE: &str = "/run/lab/pause.tar";

/// Long, as several nodes may start on a small machine at once.
const START_LIMIT: Duration = Duration::from_secs(60);

impl Node {
    pub(crate) fn prepare_runtime(&self) -> Result<()> {
        self.make_dirs("/run/containerd")?;
        match self.options.engine {
            Engine::Containerd => {
                tools::need("containerd", "containerd")?;
                tools::need("runc", "runc")?;
                self.write(CONFIG, &config(&network::plugin_dir(self)))?;
                let archive = self.path(ARCHIVE);
                fs::write(&archive, image::archive()?).at("write", &archive)
            }
            Engine::StandIn => crate::standin::prepare(self),
        }
    }

    /// Starts the runtime and waits until it and its network are ready.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] with the end of the runtime's log.
    pub fn start_runtime(&self) -> Result<()> {
        if self.has_systemd {
            self.exec(&["systemctl", "start", UNIT])?;
        } else {
            let pid = match self.options.engine {
                Engine::Containerd => self.detach(&["--log", LOG], &["containerd"])?,
                Engine::StandIn => crate::standin::start(self)?,
            };
            self.write(PID, &pid.to_string())?;
        }
        let _ = fs::remove_file(self.path(MOVED));
        self.await_that("ready runtime", START_LIMIT, LOG, || {
            self.cri().ready().unwrap_or(false)
        })?;
        if self.options.engine == Engine::Containerd {
            self.import_pause()
        } else {
            Ok(())
        }
    }

    /// `ctr` returns before the CRI plugin has heard of the image.
    fn import_pause(&self) -> Result<()> {
        if !self.cri().has_image(image::NAME)? {
            self.exec(&["ctr", "--namespace", "k8s.io", "images", "import", ARCHIVE])?;
        }
        self.await_that("pause image", START_LIMIT, LOG, || {
            self.cri().has_image(image::NAME).unwrap_or(false)
        })
    }

    /// Brings an image of this name into the runtime, as a pull would: it holds the pause program, and a file `name`.
    ///
    /// # Errors
    ///
    /// The runtime's own. The stand-in has no images.
    pub fn import_image(&self, name: &str) -> Result<()> {
        const ANOTHER: &str = "/run/lab/another.tar";
        let path = self.path(ANOTHER);
        fs::write(&path, image::another(name)?).at("write", &path)?;
        self.exec(&["ctr", "--namespace", "k8s.io", "images", "import", ANOTHER])?;
        self.await_that("image", START_LIMIT, LOG, || {
            self.cri().has_image(name).unwrap_or(false)
        })
    }

    /// The runtime's process, by its id inside; none when it does not run.
    pub fn runtime_pid(&self) -> Option<u32> {
        let pid = if self.has_systemd {
            self.exec(&["systemctl", "show", "--property=MainPID", "--value", UNIT])
                .ok()?
        } else {
            self.read(PID).ok()?
        };
        let pid = pid.trim().parse().ok()?;
        self.is_alive(pid).then_some(pid)
    }

    /// Kills the runtime with SIGKILL; the sandboxes run on.
    ///
    /// # Errors
    ///
    /// When it does not die.
    pub fn kill_runtime(&self) -> Result<()> {
        self.kill(&self.runtime_pid().into_iter().collect::<Vec<_>>())?;
        if self.has_systemd {
            // It would start it again.
            self.exec(&["systemctl", "stop", UNIT])?;
        }
        Ok(())
    }

    /// Ends the runtime as `systemctl stop` does (the unit's KillMode is `process`); the sandboxes run on.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop_runtime(&self) -> Result<()> {
        if self.has_systemd {
            return self.exec(&["systemctl", "stop", UNIT]).map(drop);
        }
        let Some(pid) = self.runtime_pid() else {
            return Ok(());
        };
        self.signal("TERM", &[pid])?;
        self.await_that("end of the runtime", Duration::from_secs(20), LOG, || {
            !self.is_alive(pid)
        })
    }

    /// Stops the runtime and starts it on the same data.
    ///
    /// # Errors
    ///
    /// As the two.
    pub fn restart_runtime(&self) -> Result<()> {
        self.stop_runtime()?;
        self.start_runtime()
    }

    /// Makes the runtime hang: connections are taken by the kernel, and nobody answers.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn hang_runtime(&self) -> Result<()> {
        self.signal("STOP", &[self.running()?])
    }

    /// Ends the hang.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume_runtime(&self) -> Result<()> {
        self.signal("CONT", &[self.running()?])
    }

    /// Lets the stand-in refuse CRI v1, as containerd before 1.6 does. The lab itself speaks v1, so make the pods first.
    ///
    /// # Errors
    ///
    /// On a real runtime: its version is what it is.
    pub fn only_v1alpha2(&self) -> Result<()> {
        if self.options.engine != Engine::StandIn {
            return Err(LabError::Odd(
                "a real runtime cannot be told to be older".to_owned(),
            ));
        }
        self.write(crate::standin::ONLY_V1ALPHA2, "")
    }

    fn running(&self) -> Result<u32> {
        self.runtime_pid()
            .ok_or_else(|| LabError::Odd("the runtime does not run".to_owned()))
    }

    /// Moves the runtime's socket, as a node whose runtime is configured to be elsewhere. The next start puts it back.
    ///
    /// # Errors
    ///
    /// When there is no socket.
    pub fn move_socket(&self, to: impl AsRef<Path>) -> Result<()> {
        let to = to.as_ref();
        if let Some(dir) = to.parent() {
            self.make_dirs(dir)?;
        }
        let from = self.path(self.socket());
        fs::rename(&from, self.path(to)).at("move", &from)?;
        self.write(MOVED, &to.to_string_lossy())
    }

    /// Where the runtime's socket is now, inside the node.
    pub fn socket(&self) -> PathBuf {
        self.read(MOVED)
            .map_or_else(|_| PathBuf::from(SOCKET), PathBuf::from)
    }
}

/// Snapshotters that a lab never has are off: each costs time and a warning at start.
fn config(plugins: &Path) -> String {
    format!(
        r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.internal.v1.opt"]
  path = "/run/lab/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  # Lowering oom_score_adj needs CAP_SYS_RESOURCE, which a build machine may lack; runc dies of it without a word.
  restrict_oom_score_adj = true
  # A profile would be loaded into the machine's kernel, and stay there.
  disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{}"
  conf_dir = "/etc/cni/net.d"
"#,
        image::NAME,
        plugins.display(),
    )
}
