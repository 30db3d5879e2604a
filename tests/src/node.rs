//! A node: made at start, gone without a trace at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cgroups;
use crate::cri::{Cri, Version};
use crate::error::{Doing, LabError, Result};
use crate::inside::janitor::Janitor;
use crate::network;
use crate::options::{Engine, Options};
use crate::tools;

/// Nodes started by this process, for their names.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A node with a runtime and a pod network, in namespaces of its own.
///
/// Everything is at its default path, as on a real node. Dropping it, or dying, ends all its processes and removes its cgroups.
pub struct Node {
    janitor: Janitor,
    pub(crate) options: Options,
    cgroup: String,
    started: Instant,
    /// Whether its first process is systemd, and its runtime a service.
    pub(crate) has_systemd: bool,
    version: Version,
}

impl Node {
    /// Makes a node and waits until its runtime and its network are ready.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] when this machine or this user cannot run the engine.
    pub fn start(options: Options) -> Result<Node> {
        for (program, package) in [
            ("nsenter", "util-linux"),
            ("setpriv", "util-linux"),
            ("ip", "iproute2"),
        ] {
            tools::need(program, package)?;
        }
        if options.engine == Engine::Containerd && !nix::unistd::geteuid().is_root() {
            return Err(LabError::Missing(
                "containerd needs root: use Engine::StandIn".to_owned(),
            ));
        }
        network::check(&options)?;
        crate::loops::sweep();
        cgroups::sweep();
        let started = Instant::now();
        let cgroup = cgroups::name(std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let janitor = Janitor::start(&cgroup)?;
        let node = Node {
            janitor,
            options,
            cgroup,
            started,
            has_systemd: false,
            version: Version::V1,
        };
        network::install(&node)?;
        node.prepare_runtime()?;
        node.start_runtime()?;
        Ok(node)
    }

    /// A node whose files are a copy of `template`, and whose first process is its systemd: it has begun to boot.
    pub(crate) fn with_systemd(options: Options, version: Version, template: &Path) -> Result<Node> {
        let started = Instant::now();
        let cgroup = cgroups::name(std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let janitor = Janitor::start_machine(&cgroup, template)?;
        Ok(Node {
            janitor,
            options,
            cgroup,
            started,
            has_systemd: true,
            version,
        })
    }

    /// Ends the node and waits until nothing of it remains. Dropping does the same.
    pub fn stop(mut self) {
        self.janitor.finish();
    }

    /// The node's first process, as seen from outside.
    pub fn pid(&self) -> u32 {
        self.janitor.init()
    }

    /// The process that cleans up, outside the node.
    pub fn janitor_pid(&self) -> u32 {
        self.janitor.pid()
    }

    /// The name of the cgroup below which all sandboxes lie, in every hierarchy, as seen from outside.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// How the node was made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How long ago its making began.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// A path of the node, as it can be opened from outside.
    ///
    /// An absolute symbolic link in it would lead back to the outside. `/var/run` is one everywhere, and is followed here; the node's own
    /// directories have no other.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let root = Path::new("/proc").join(self.pid().to_string()).join("root");
        match inside.strip_prefix("/var/run") {
            Ok(below) => root.join("run").join(below),
            Err(_) => root.join(inside.strip_prefix("/").unwrap_or(inside)),
        }
    }

    /// A command that will run inside the node, with no trace of the lab about it.
    ///
    /// A bare name is looked for among the binaries of this workspace, then on the node's PATH. The child is `nsenter`: killing it kills the
    /// program, with SIGKILL whatever the signal was. To send the program another one, find it in [`Node::processes`] and use
    /// [`Node::signal`]; `nsenter` passes its end on, exit code or signal.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let built = program
            .to_str()
            .filter(|name| !name.contains('/'))
            .map(tools::workspace_binary);
        let program = built.and_then(Result::ok).unwrap_or_else(|| program.to_owned());
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string()]);
        command.args(["--mount", "--net", "--pid", "--ipc", "--uts"]);
        if self.has_systemd {
            command.arg("--cgroup");
        }
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        // nsenter forks into the pid namespace, and would leave the program behind when killed.
        command
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program);
        command.env("PATH", tools::node_path());
        command
    }

    /// Runs a program inside to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn output<S: AsRef<str>>(&self, argv: &[S]) -> Result<Output> {
        let line = argv.iter().map(AsRef::as_ref).collect::<Vec<_>>();
        let (program, arguments) = line
            .split_first()
            .ok_or_else(|| LabError::Odd("nothing to run".to_owned()))?;
        self.command(program)
            .args(arguments)
            .output()
            .doing(|| format!("run {}", line.join(" ")))
    }

    /// Runs a program inside that must succeed; its standard output.
    ///
    /// # Errors
    ///
    /// [`LabError::Command`] when it exits with anything but 0.
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> Result<String> {
        let done = self.output(argv)?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let said = [done.stderr, done.stdout].concat();
        Err(LabError::Command {
            command: argv.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "),
            status: done.status.to_string(),
            output: String::from_utf8_lossy(&said).trim().to_owned(),
        })
    }

    /// Runs lines of shell inside, stopping at the first that fails.
    ///
    /// # Errors
    ///
    /// As [`Node::exec`].
    pub fn shell(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-ec", script])
    }

    /// Writes a file of the node, making its directory.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn write(&self, inside: impl AsRef<Path>, content: &str) -> Result<()> {
        let inside = inside.as_ref();
        if let Some(dir) = inside.parent() {
            self.make_dirs(dir)?;
        }
        let path = self.path(inside);
        fs::write(&path, content).at("write", &path)
    }

    /// Reads a file of the node.
    ///
    /// # Errors
    ///
    /// With the path.
    pub fn read(&self, inside: impl AsRef<Path>) -> Result<String> {
        let path = self.path(inside);
        fs::read_to_string(&path).at("read", &path)
    }

    /// The names in a directory of the node, sorted; empty if there is no such directory.
    pub fn names(&self, inside: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(inside)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn make_dirs(&self, inside: impl AsRef<Path>) -> Result<()> {
        let path = self.path(inside);
        fs::create_dir_all(&path).at("make", &path)
    }

    /// Where host-local keeps its reservations: one directory for each network.
    pub fn data_dir(&self) -> &Path {
        self.options
            .data_dir
            .as_deref()
            .unwrap_or(Path::new("/var/lib/cni/networks"))
    }

    pub(crate) fn cri(&self) -> Cri {
        Cri::new(self.path(self.socket()), self.version)
    }

    /// Waits for something to become true in the node.
    pub(crate) fn await_that(
        &self,
        what: &str,
        limit: Duration,
        log: &str,
        mut test: impl FnMut() -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while !test() {
            if Instant::now() > end {
                let detail = self.read(log).map(|log| last_lines(&log)).unwrap_or_default();
                return Err(LabError::Timeout {
                    what: what.to_owned(),
                    seconds: limit.as_secs(),
                    detail,
                });
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
    if tail.is_empty() {
        String::new()
    } else {
        format!("; the log ends:\n{}", tail.join("\n"))
    }
}
