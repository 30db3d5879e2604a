//! kubelet as a service of the machine: the stand-in, or a real one that the person brings.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Machine;
use crate::error::{Doing, LabError, Result};
use crate::kubelet::{self, Kubelet};
use crate::tools;

const PROGRAM: &str = "/usr/bin/kubelet";
const SERVICE: &str = "/etc/systemd/system/kubelet.service";

/// As kubeadm's package has it.
const UNIT: &str = "[Unit]
Description=kubelet: The Kubernetes Node Agent
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet ARGUMENTS
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
";

/// Settings of the kernel that a real one wants: it would change those of the machine outside. Instead it sees them as it wants them.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A real one makes its certificate, its cgroups and its node first.
const START_LIMIT: Duration = Duration::from_secs(60);

impl Machine {
    /// The program of a real kubelet, which `NODEMEND_KUBELET` names: Debian has no package of it.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] when it names none.
    pub fn real_kubelet() -> Result<PathBuf> {
        let missing = || LabError::Missing("a kubelet: say where by NODEMEND_KUBELET".to_owned());
        let path = std::env::var_os("NODEMEND_KUBELET").map(PathBuf::from);
        path.filter(|path| path.is_file()).ok_or_else(missing)
    }

    pub(super) fn start_kubelet_service(&self, how: &Kubelet) -> Result<()> {
        kubelet::prepare(self, how)?;
        let lab = tools::lab_binary()?;
        self.exec(&["ln", "-sfn", &lab.to_string_lossy(), PROGRAM])?;
        self.serve_kubelet(&kubelet::arguments(how))
    }

    /// Puts a real kubelet in the place of the stand-in. It has no API server: it runs the pods of [`kubelet::MANIFESTS`], which any client
    /// with a certificate of the node's authority may ask for.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] when it does not become healthy; `journalctl -u kubelet` in the machine says why.
    pub fn start_real_kubelet(&self, program: &Path) -> Result<()> {
        self.exec(&["systemctl", "stop", "kubelet.service"])?;
        self.exec(&["rm", "-rf", PROGRAM, "/etc/kubernetes", "/var/lib/kubelet/pki"])?;
        let inside = self.path(PROGRAM);
        fs::copy(program, &inside).at("copy the kubelet to", &inside)?;
        self.prepare_for_real_kubelet()?;
        kubelet::prepare_real(self)?;
        self.serve_kubelet(&kubelet::real_arguments())
    }

    fn prepare_for_real_kubelet(&self) -> Result<()> {
        // It watches the kernel's log for processes that ran out of memory.
        self.shell("test -c /dev/kmsg || { rm -f /dev/kmsg; mknod /dev/kmsg c 1 11; }")?;
        for (name, value) in SYSCTLS {
            let file = format!("/run/lab/sysctl/{name}");
            self.write(&file, value)?;
            self.exec(&["mount", "--bind", &file, &format!("/proc/sys/{name}")])?;
        }
        Ok(())
    }

    fn serve_kubelet(&self, arguments: &[String]) -> Result<()> {
        self.write(SERVICE, &UNIT.replace("ARGUMENTS", &arguments.join(" ")))?;
        self.exec(&["systemctl", "daemon-reload"])?;
        self.exec(&["systemctl", "enable", "--quiet", "--now", "kubelet.service"])?;
        self.await_that("kubelet that is healthy", START_LIMIT, "", || {
            self.kubelet_is_healthy()
        })
    }

    /// Whether kubelet's healthz says ok.
    pub fn kubelet_is_healthy(&self) -> bool {
        let ask = r#"exec 3<>/dev/tcp/127.0.0.1/10248; printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3; cat <&3"#;
        self.exec(&["bash", "-c", ask])
            .is_ok_and(|said| said.ends_with("ok"))
    }
}
