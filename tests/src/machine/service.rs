//! The machine's services, as systemd sees them.

use std::collections::HashMap;

use super::Machine;
use crate::error::{LabError, Result};

/// A unit, as `systemctl show` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `active`, `activating`, `inactive`, `failed`.
    pub active: String,
    /// `running`, `auto-restart`, `dead`.
    pub sub: String,
    /// How often systemd has started it again by itself.
    pub restarts: u32,
    /// Its process, by the id inside; 0 without one.
    pub main_pid: u32,
}

impl Machine {
    /// What systemd says of a unit.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn unit(&self, name: &str) -> Result<Unit> {
        let said = self.exec(&[
            "systemctl",
            "show",
            "--property=ActiveState,SubState,NRestarts,MainPID",
            name,
        ])?;
        let told: HashMap<&str, &str> = said.lines().filter_map(|line| line.split_once('=')).collect();
        let text = |key| told.get(key).copied().unwrap_or_default().to_owned();
        let number = |key| {
            let text = text(key);
            text.parse()
                .map_err(|_error| LabError::Odd(format!("{key} of {name} is {text}")))
        };
        Ok(Unit {
            active: text("ActiveState"),
            sub: text("SubState"),
            restarts: number("NRestarts")?,
            main_pid: number("MainPID")?,
        })
    }

    /// What a unit has written since the machine booted.
    ///
    /// # Errors
    ///
    /// When there is no journal.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.exec(&["journalctl", "--no-pager", "--output=short", "--unit", unit])
    }

    /// `systemctl kill --kill-who=main`: containerd dies, shims and pods live on. systemd starts it again.
    ///
    /// # Errors
    ///
    /// When systemd does not answer.
    pub fn kill_main_process(&self) -> Result<()> {
        // Not --kill-whom: systemd 247 does not know it.
        self.exec(&[
            "systemctl",
            "kill",
            "--signal=KILL",
            "--kill-who=main",
            "containerd.service",
        ])
        .map(drop)
    }

    /// `systemctl kill`: the shims are in the unit's cgroup and die with containerd. What they had started lives on, without a parent.
    ///
    /// # Errors
    ///
    /// When systemd does not answer.
    pub fn kill_all_processes(&self) -> Result<()> {
        self.exec(&["systemctl", "kill", "--signal=KILL", "containerd.service"])
            .map(drop)
    }
}
