//! Application containers: a shell of the machine's own, in a pod.

use std::path::Path;
use std::time::Duration;

use k8s_cri::v1;
use serde_json::Value;

use super::Machine;
use crate::cri;
use crate::error::{LabError, Result};
use crate::image;
use crate::sandbox::Sandbox;

/// The image holds nothing but the pause program: what an application needs is mounted from the machine, as a hostPath volume would be.
const HOST_PATHS: [&str; 4] = ["/usr", "/bin", "/lib", "/lib64"];

/// A container that runs in a pod, besides its pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The runtime's id.
    pub id: String,
    /// Its process, by the id inside the machine.
    pub pid: u32,
}

impl Machine {
    /// Runs lines of shell as a container of this pod.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn run_application(&self, pod: &Sandbox, script: &str) -> Result<Application> {
        let mounts = HOST_PATHS.map(|path| v1::Mount {
            container_path: path.to_owned(),
            host_path: path.to_owned(),
            readonly: true,
            ..v1::Mount::default()
        });
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "app".to_owned(),
                attempt: 0,
            }),
            image: Some(v1::ImageSpec {
                image: image::NAME.to_owned(),
                ..v1::ImageSpec::default()
            }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            mounts: mounts.to_vec(),
            linux: Some(v1::LinuxContainerConfig::default()),
            ..v1::ContainerConfig::default()
        };
        let pod_config = cri::pod_config(&pod.name, &pod.uid, &self.cgroup_of_pod(&pod.uid));
        let id = self.cri().run_container(&pod.id, config, pod_config)?;
        let answer = self.cri().container(&id)?;
        let info: Value = answer
            .info
            .get("info")
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| LabError::Odd(format!("container {id} has no process")))?;
        Ok(Application { id, pid })
    }

    /// Runs a pod whose application writes the time into a file of its own root file system, once a second.
    ///
    /// # Errors
    ///
    /// The runtime's own.
    pub fn run_pod(&self, name: &str) -> Result<(Sandbox, Application)> {
        let pod = self.run_sandbox(name)?;
        let app = self.run_application(&pod, "while :; do date >>/log; sleep 1; done")?;
        let log = Path::new("/proc").join(app.pid.to_string()).join("root/log");
        self.await_that("application that writes", Duration::from_secs(20), "", || {
            self.read(&log).is_ok_and(|text| !text.is_empty())
        })?;
        Ok((pod, app))
    }
}
