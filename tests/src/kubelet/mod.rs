//! A stand-in for kubelet, and for the API server behind it: what a node's pods are said to be.
//!
//! A process named `kubelet`, with the command line of a real one, that answers on the real ports as the test wants it to: with the right list,
//! with half of it, with garbage, with a refusal, or never. It runs no pods and cleans nothing up; [`gc`] does the latter, on request.

mod answer;
mod files;
pub mod gc;
mod housekeeping;
mod listing;
pub mod serve;
mod tls;

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{Doing, LabError, Result};
use crate::node::Node;
use crate::tools;

pub use answer::Answer;
pub use files::Checkpoint;
pub use gc::{Era, Pass};
pub use housekeeping::run as keep_house;
pub use listing::{Phase, Pod};

/// kubelet's root, where it is by default.
pub const ROOT: &str = "/var/lib/kubelet";

/// The pod directories.
pub const PODS: &str = "/var/lib/kubelet/pods";

/// kubelet's configuration.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// Its credentials for the API server.
pub const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// Where static pods are described.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The token that the stand-in takes, as a file of the node: for `--kubelet-token-file`.
pub const TOKEN: &str = "/run/lab/kubelet/token";

/// The certificate that kubelet shows. It is its own, and names the node only, as of a real one without `serverTLSBootstrap`.
pub const SERVING_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet.crt";

/// The certificate by which the API server asks kubelet, on a node of the control plane. The key is beside it.
pub const ASKING_CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver-kubelet-client.crt";

/// kubelet's certificate as a client of the API server, with its key. It may not ask kubelet itself for pods.
pub const CLIENT_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// What the stand-in for kubelet is told, and what it was asked.
const CONTROL: &str = "/run/lab/kubelet";

/// The same for the API server.
const API_CONTROL: &str = "/run/lab/api";

const LOG: &str = "/run/lab/kubelet.log";
const API_LOG: &str = "/run/lab/api.log";

/// How kubelet is to run.
#[derive(Clone, Debug)]
pub struct Kubelet {
    /// Its `--root-dir`.
    pub root: String,
    /// Whether it says so on its command line: the default need not be said.
    pub says_root: bool,
    /// Whether it listens on 10255 as well, without any authentication.
    pub read_only_port: bool,
    /// Whether the node has [`ASKING_CERTIFICATE`].
    pub control_plane: bool,
    /// Where static pods are described; none for a node without them.
    pub manifests: Option<String>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Kubelet {
            root: ROOT.to_owned(),
            says_root: true,
            read_only_port: false,
            control_plane: false,
            manifests: Some(MANIFESTS.to_owned()),
        }
    }
}

/// Writes kubelet's files, and tells it of no pods if it was not told of any.
pub(crate) fn prepare(node: &Node, how: &Kubelet) -> Result<()> {
    files::write(node, how)?;
    if node.read(format!("{CONTROL}/pods.json")).is_err() {
        node.list_pods(&[])?;
        node.kubelet_answers(Answer::Right)?;
        node.write(format!("{CONTROL}/healthz"), "ok")?;
    }
    Ok(())
}

/// Its command line, without its name.
pub(crate) fn arguments(how: &Kubelet) -> Vec<String> {
    let mut argv = vec![
        format!(
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-{}",
            "kubelet.conf"
        ),
        format!("--kubeconfig={KUBECONFIG}"),
        format!("--config={CONFIG}"),
        format!("--container-runtime-endpoint=unix://{}", crate::runtime::SOCKET),
    ];
    if how.says_root {
        argv.push(format!("--root-dir={}", how.root));
    }
    argv
}

/// Writes the files of a real kubelet, which has no API server.
pub(crate) fn prepare_real(node: &Node) -> Result<()> {
    let how = Kubelet {
        control_plane: true,
        ..Kubelet::default()
    };
    files::write(node, &how)?;
    node.write(CONFIG, &files::real_config())
}

/// The command line of a real kubelet. Up to 1.26 it takes the runtime's endpoint here only.
pub(crate) fn real_arguments() -> Vec<String> {
    [
        format!("--config={CONFIG}"),
        "--container-runtime=remote".to_owned(),
        format!("--container-runtime-endpoint=unix://{}", crate::runtime::SOCKET),
        format!("--pod-infra-container-image={}", crate::image::NAME),
        "--hostname-override=lab-node".to_owned(),
        "--v=2".to_owned(),
    ]
    .into()
}

impl Node {
    /// Starts the stand-in, with an empty list of pods and the right answer; its process id inside. Waits until it listens.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] with its log when it does not.
    pub fn start_kubelet(&self, how: &Kubelet) -> Result<u32> {
        prepare(self, how)?;
        self.start_kubelet_again(how)
    }

    /// Starts it anew on the files that there are, as after a crash.
    ///
    /// # Errors
    ///
    /// As [`Node::start_kubelet`].
    pub fn start_kubelet_again(&self, how: &Kubelet) -> Result<u32> {
        let ports: &[u16] = if how.read_only_port {
            &[10250, 10248, 10255]
        } else {
            &[10250, 10248]
        };
        self.start_server(serve::KUBELET, LOG, &arguments(how), ports)
    }

    /// Starts a stand-in for the API server where kubelet's credentials lead: `https://127.0.0.1:6443`; its process id inside. It
    /// lists [`Node::list_pods`] with mirror pods for the static ones, and takes kubelet's certificate only.
    ///
    /// # Errors
    ///
    /// As [`Node::start_kubelet`], after which it has to be started.
    pub fn start_api_server(&self) -> Result<u32> {
        self.api_answers(Answer::Right)?;
        self.start_server(
            serve::API_SERVER,
            API_LOG,
            &["--secure-port=6443".to_owned()],
            &[6443],
        )
    }

    /// The program's name decides what it is, and is what `ps` shows: so it is started through a link of that name.
    fn start_server(&self, name: &str, log: &str, argv: &[String], ports: &[u16]) -> Result<u32> {
        let link = format!("/run/lab/bin/{name}");
        self.make_dirs("/run/lab/bin")?;
        let lab = tools::lab_binary()?;
        self.exec(&["ln", "-sfn", &lab.to_string_lossy(), &link])?;
        let called = format!("/usr/bin/{name}");
        let line: Vec<&str> = std::iter::once(link.as_str())
            .chain(argv.iter().map(String::as_str))
            .collect();
        // The threads of one that was killed may hold the port a moment longer than its main thread lives.
        self.await_that("a free port", Duration::from_secs(20), log, || {
            !ports.iter().any(|port| self.listens(*port))
        })?;
        let pid = self.detach(&["--log", log, "--argv0", &called], &line)?;
        self.await_that(
            &format!("{name} that listens"),
            Duration::from_secs(20),
            log,
            || !self.is_alive(pid) || ports.iter().all(|port| self.listens(*port)),
        )?;
        if self.is_alive(pid) {
            return Ok(pid);
        }
        Err(LabError::Odd(format!(
            "{name} ended: {}",
            self.read(log).unwrap_or_default().trim()
        )))
    }

    /// Whether something in the node listens on this port.
    fn listens(&self, port: u16) -> bool {
        let table = self.read(format!("/proc/{}/net/tcp", 1)).unwrap_or_default();
        let local = format!(":{port:04X}");
        let listening = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next().is_some_and(|at| at.ends_with(&local)) && fields.nth(1) == Some("0A")
        };
        table.lines().any(listening)
    }

    /// Sets the pods that kubelet knows.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn list_pods(&self, pods: &[Pod]) -> Result<()> {
        // Whole at once: somebody may be reading it.
        let new = format!("{CONTROL}/pods.new");
        self.write(&new, &listing::of_kubelet(pods).to_string())?;
        let list = self.path(format!("{CONTROL}/pods.json"));
        fs::rename(self.path(new), &list).at("replace", &list)?;
        self.write(
            format!("{API_CONTROL}/pods.json"),
            &listing::of_api(pods)?.to_string(),
        )
    }

    /// Sets how kubelet answers from now on; its health stays what it was.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn kubelet_answers(&self, answer: Answer) -> Result<()> {
        self.write(format!("{CONTROL}/answer"), answer.name())
    }

    /// Sets how the API server answers from now on.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn api_answers(&self, answer: Answer) -> Result<()> {
        self.write(format!("{API_CONTROL}/answer"), answer.name())
    }

    /// Sets what kubelet says of its health: `ok`, `hang`, or a complaint, which comes with status 500.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn kubelet_health(&self, says: &str) -> Result<()> {
        self.write(format!("{CONTROL}/healthz"), says)
    }

    /// What kubelet was asked so far: one line for each request, `10250 GET /pods`.
    pub fn kubelet_was_asked(&self) -> Vec<String> {
        let log = self.read(format!("{CONTROL}/requests")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Describes a static pod in a manifest, which names no uid: the directory's is kubelet's hash.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn write_manifest(&self, pod: &Pod) -> Result<()> {
        let path = Path::new(MANIFESTS).join(format!("{}.yaml", pod.name));
        self.write(path, &files::manifest(pod))
    }

    /// Puts a pod's uid into one of kubelet's own records, which outlive the pod if kubelet crashes.
    ///
    /// # Errors
    ///
    /// When the node's file cannot be written.
    pub fn checkpoint(&self, which: Checkpoint, pods: &[&str]) -> Result<()> {
        let path = Path::new(ROOT).join(which.file());
        self.write(path, &which.content(pods).to_string())
    }
}
