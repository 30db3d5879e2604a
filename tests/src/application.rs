//! Containers of applications in sandboxes, as kubelet starts them.

use std::time::Duration;

use k8s_cri::v1;
use serde_json::Value;

use crate::error::{LabError, Result};
use crate::image;
use crate::node::Node;
use crate::options::Engine;
use crate::sandbox::Sandbox;
use crate::tools;

/// Where the program of an application lies in its container.
const PROGRAM: &str = "/application";

/// Directories of the machine that a program needs, each if it is there.
const LIBRARIES: [&str; 3] = ["/usr", "/lib", "/lib64"];

/// A container of an application as it was when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The runtime's id: 64 hexadecimal digits.
    pub id: String,
    /// Its first process, by the id inside the node.
    pub pid: u32,
    /// The port that it listens on, in the sandbox's network.
    pub port: u16,
}

impl Node {
    /// Starts an application in a sandbox, and waits until it listens. A stubborn one does not end when it is asked to, and
    /// has process ids of its own; others share the pod's.
    ///
    /// # Errors
    ///
    /// The runtime's own. The stand-in has no containers but pause.
    pub fn run_application(&self, sandbox: &Sandbox, port: u16, stubborn: bool) -> Result<Application> {
        if self.options.engine != Engine::Containerd {
            return Err(LabError::Missing("the stand-in runs no applications".to_owned()));
        }
        let config = container_config(port, stubborn)?;
        let id =
            self.cri()
                .start_container(&sandbox.id, self.config_of(&sandbox.name, &sandbox.uid), config)?;
        let pid = self.process_of(&id)?;
        let listening = format!(":{port:04X} 00000000:0000 0A");
        let table = format!("/proc/{pid}/net/tcp");
        self.await_that(
            "listening application",
            Duration::from_secs(20),
            crate::runtime::LOG,
            || self.read(&table).is_ok_and(|table| table.contains(&listening)),
        )?;
        Ok(Application { id, pid, port })
    }
}

impl Node {
    /// Runs the pause program of an image in a sandbox; its process, by the id inside the node. Nothing is pulled.
    ///
    /// # Errors
    ///
    /// The runtime's own, as when it does not have the image.
    pub fn run_image(&self, sandbox: &Sandbox, image: &str) -> Result<u32> {
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "image".to_owned(),
                attempt: 0,
            }),
            image: Some(v1::ImageSpec {
                image: image.to_owned(),
                ..v1::ImageSpec::default()
            }),
            command: vec!["/pause".to_owned()],
            linux: Some(v1::LinuxContainerConfig::default()),
            ..v1::ContainerConfig::default()
        };
        let id =
            self.cri()
                .start_container(&sandbox.id, self.config_of(&sandbox.name, &sandbox.uid), config)?;
        self.process_of(&id)
    }

    fn process_of(&self, container: &str) -> Result<u32> {
        let info = self.cri().container_info(container)?;
        let info: Value = serde_json::from_str(&info).unwrap_or_default();
        let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| LabError::Odd(format!("container {container} has no process")))
    }
}

fn container_config(port: u16, stubborn: bool) -> Result<v1::ContainerConfig> {
    let program = tools::lab_binary()?.to_string_lossy().into_owned();
    let mut command = vec![PROGRAM.to_owned(), "application".to_owned(), port.to_string()];
    command.extend(stubborn.then(|| "--stubborn".to_owned()));
    let mount = |host: &str, inside: &str| v1::Mount {
        host_path: host.to_owned(),
        container_path: inside.to_owned(),
        readonly: true,
        ..v1::Mount::default()
    };
    let there = LIBRARIES.iter().filter(|dir| std::path::Path::new(dir).is_dir());
    let mut mounts: Vec<v1::Mount> = there.map(|dir| mount(dir, dir)).collect();
    mounts.push(mount(&program, PROGRAM));
    // The first process of its process ids hears no SIGTERM; one that shares the pod's is not the first.
    let pids = match stubborn {
        true => v1::NamespaceMode::Container,
        false => v1::NamespaceMode::Pod,
    };
    let security = v1::LinuxContainerSecurityContext {
        namespace_options: Some(v1::NamespaceOption {
            pid: pids.into(),
            ..v1::NamespaceOption::default()
        }),
        ..v1::LinuxContainerSecurityContext::default()
    };
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: format!("app-{port}"),
            attempt: 0,
        }),
        image: Some(v1::ImageSpec {
            image: image::NAME.to_owned(),
            ..v1::ImageSpec::default()
        }),
        command,
        mounts,
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(security),
            ..v1::LinuxContainerConfig::default()
        }),
        ..v1::ContainerConfig::default()
    })
}
