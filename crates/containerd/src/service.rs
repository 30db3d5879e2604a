//! A service and its manager: systemd, or commands that the operator gave.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deadline::{Said, ask, shell};
use crate::error::Error;

/// Who starts and stops a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "manager", rename_all = "camelCase")]
pub enum Manager {
    /// systemd, through `systemctl`.
    Systemd,
    /// `--stop-command` and `--start-command`, run by `sh -c`.
    Commands {
        /// Stops the service.
        stop: String,
        /// Starts it.
        start: String,
    },
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The unit: `containerd.service`. With [`Manager::Commands`] a name for messages.
    pub name: String,
    /// Who starts and stops it.
    pub manager: Manager,
}

/// What a manager says of a service. With [`Manager::Commands`] nothing but the process is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceState {
    /// systemd's LoadState: `loaded`, `not-found`, `masked`.
    pub load: Option<String>,
    /// ActiveState: `active`, `activating`, `inactive`, `failed`.
    pub active: Option<String>,
    /// SubState: `running`, `auto-restart`, `dead`.
    pub sub: Option<String>,
    /// Result of the last run: `success`, `exit-code`, `signal`, `core-dump`, `start-limit-hit`.
    pub result: Option<String>,
    /// NRestarts: how often systemd restarted it by itself since somebody started it. systemd tells since 235.
    pub restarts: Option<u64>,
    /// The main process, if it runs.
    pub main_pid: Option<u32>,
    /// Seconds since it became active, by the clock that a change of the wall clock does not move. None if it is not
    /// active.
    pub active_for: Option<u64>,
    /// KillMode: with `process` (containerd's own unit) a stop leaves the shims and what runs in the containers.
    pub kill_mode: Option<String>,
    /// The command line of the unit, if it has one.
    pub exec_start: Vec<String>,
    /// The file of the unit.
    pub unit_file: Option<PathBuf>,
}

/// What is asked of systemd. Of those that it does not know it says nothing: NRestarts came with 235.
const PROPERTIES: [&str; 10] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "ActiveEnterTimestampMonotonic",
    "KillMode",
    "ExecStart",
    "FragmentPath",
];
/// How long systemctl may take to tell a state.
const STATE_DEADLINE: Duration = Duration::from_secs(5);
/// The most that it says, in bytes.
const STATE_LIMIT: usize = 1 << 20;

impl Service {
    /// What is known of it now. A unit that does not exist has the load state `not-found`.
    ///
    /// # Errors
    /// If systemctl cannot be run, fails, or does not answer within 5 s.
    pub fn state(&self) -> Result<ServiceState, Error> {
        match self.manager {
            Manager::Commands { .. } => Ok(ServiceState::default()),
            Manager::Systemd => {
                let mut arguments = vec!["show"];
                arguments.extend(PROPERTIES.iter().flat_map(|property| ["-p", property]));
                let said = self.systemctl(&arguments, STATE_DEADLINE)?;
                Ok(ServiceState::parse(
                    &String::from_utf8_lossy(&said.stdout),
                    monotonic(),
                ))
            }
        }
    }

    /// Stops it, and waits until it has ended. With [`Manager::Commands`] only the end of the command is waited for.
    ///
    /// # Errors
    /// If it did not stop within the deadline; with what it is now. systemd goes on stopping it.
    pub fn stop(&self, deadline: Duration) -> Result<(), Error> {
        if let Manager::Commands { stop, .. } = &self.manager {
            return shell(stop, deadline);
        }
        self.systemctl(&["stop"], deadline)
            .map_err(|error| self.now(&error))?;
        let state = self.state()?;
        match state.main_pid {
            Some(pid) => Err(self.failed(format!(
                "it was stopped, and its process {pid} runs on ({})",
                state.in_words()
            ))),
            None => Ok(()),
        }
    }

    /// Starts it, and waits until the manager says that it is started. That is no readiness: see
    /// [`wait_for_cri`](crate::wait_for_cri). With [`Manager::Commands`] only the end of the command is waited for.
    ///
    /// # Errors
    /// If it did not start within the deadline; with what it is now.
    pub fn start(&self, deadline: Duration) -> Result<(), Error> {
        if let Manager::Commands { start, .. } = &self.manager {
            return shell(start, deadline);
        }
        self.systemctl(&["start"], deadline)
            .map(drop)
            .map_err(|error| self.now(&error))
    }

    /// Clears the failures that systemd counts: a unit that hit its start limit refuses to start otherwise. Nothing with
    /// [`Manager::Commands`].
    ///
    /// # Errors
    /// As [`Service::state`].
    pub fn reset_failed(&self) -> Result<(), Error> {
        if self.manager == Manager::Systemd {
            self.systemctl(&["reset-failed"], STATE_DEADLINE)?;
        }
        Ok(())
    }

    fn systemctl(&self, arguments: &[&str], deadline: Duration) -> Result<Said, Error> {
        let mut line = arguments.to_vec();
        line.extend(["--no-pager", "--no-ask-password", "--", &self.name]);
        let said = ask("systemctl", &line, deadline, STATE_LIMIT)?;
        if said.status.success() {
            return Ok(said);
        }
        let reason = match said.stderr.is_empty() {
            true => said.status.to_string(),
            false => said.stderr,
        };
        Err(Error::Command {
            command: format!("systemctl {} {}", arguments.first().unwrap_or(&""), self.name),
            reason,
        })
    }

    fn failed(&self, reason: String) -> Error {
        Error::Service {
            name: self.name.clone(),
            reason,
        }
    }

    /// An error, with what the service is now.
    fn now(&self, error: &Error) -> Error {
        let now = match self.state() {
            Ok(state) => state.in_words(),
            Err(error) => error.to_string(),
        };
        self.failed(format!("{error}; it is now: {now}"))
    }
}

impl ServiceState {
    /// Of what `systemctl show` prints. `now` is the time in microseconds by CLOCK_MONOTONIC.
    fn parse(text: &str, now: u64) -> Self {
        let value = |key: &str| {
            let mut values = text.lines().filter_map(|line| line.split_once('='));
            let (_, value) = values.find(|(name, _)| *name == key)?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        let number = |key: &str| value(key)?.parse::<u64>().ok();
        let active = value("ActiveState");
        let since = number("ActiveEnterTimestampMonotonic").filter(|_| active.as_deref() == Some("active"));
        Self {
            load: value("LoadState"),
            sub: value("SubState"),
            result: value("Result"),
            restarts: number("NRestarts"),
            main_pid: number("MainPID")
                .and_then(|pid| u32::try_from(pid).ok())
                .filter(|pid| *pid > 0),
            active_for: since.map(|since| now.saturating_sub(since) / 1_000_000),
            kill_mode: value("KillMode"),
            exec_start: value("ExecStart").map(|line| argv(&line)).unwrap_or_default(),
            unit_file: value("FragmentPath").map(PathBuf::from),
            active,
        }
    }

    /// True if there is no such unit.
    pub fn is_absent(&self) -> bool {
        self.load.as_deref() == Some("not-found")
    }

    /// True if its main process runs, or systemd is about to start it.
    pub fn is_up(&self) -> bool {
        self.main_pid.is_some()
            || matches!(
                self.active.as_deref(),
                Some("active" | "activating" | "reloading")
            )
    }

    /// True if systemd has given up starting it (`start-limit` before systemd 229), or waits to start it again.
    pub(crate) fn keeps_failing(&self) -> bool {
        self.sub.as_deref() == Some("auto-restart")
            || matches!(self.result.as_deref(), Some("start-limit" | "start-limit-hit"))
    }

    /// `failed (failed), result exit-code, restarted 5 times`.
    pub(crate) fn in_words(&self) -> String {
        let Some(active) = &self.active else {
            return "not known".to_owned();
        };
        let sub = self.sub.as_deref().unwrap_or("?");
        let result = self.result.iter().filter(|result| *result != "success");
        let result = result.map(|result| format!(", result {result}"));
        let restarts = self.restarts.filter(|count| *count > 0);
        let restarts = restarts.map(|count| format!(", restarted {count} times"));
        let more: String = result.chain(restarts).collect();
        format!("{active} ({sub}){more}")
    }
}

/// The words of `{ path=/usr/bin/containerd ; argv[]=/usr/bin/containerd -c /x ; ignore_errors=no ; … }`, which is the same
/// in systemd 219 and 257. How they were quoted is not in it.
fn argv(line: &str) -> Vec<String> {
    let words = line
        .split_once("argv[]=")
        .and_then(|(_, rest)| rest.split_once(" ; ignore_errors="));
    let words = words.map(|(words, _)| words).unwrap_or_default();
    words.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Microseconds by the clock of systemd's `…Monotonic` properties.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// systemd 219 (CentOS 7) after it gave up: no NRestarts, `start-limit`.
    const EL7: &str = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=start-limit\nMainPID=0\n\
        ActiveEnterTimestampMonotonic=86412345678\nKillMode=process\nExecStart={ path=/usr/bin/containerd ; \
        argv[]=/usr/bin/containerd ; ignore_errors=no ; start_time=[Tue 2022-05-17 13:35:38 CEST] ; stop_time=[Tue \
        2022-05-17 13:35:39 CEST] ; pid=12708 ; code=exited ; status=2 }\nFragmentPath=/usr/lib/systemd/system/containerd.service\n";
    /// As in kata-containers/tests#3267: 51 restarts, and up for a moment.
    const LOOPING: &str = "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts=51\nMainPID=30987\n\
        ActiveEnterTimestampMonotonic=2477717420\nKillMode=process\nExecStart={ path=/soft/containerd/bin/containerd ; \
        argv[]=/soft/containerd/bin/containerd -c /soft/containerd/config.toml --root /data/containerd ; ignore_errors=no ; \
        start_time=[Thu 2021-02-25 11:22:38 CST] ; stop_time=[n/a] ; pid=30987 ; code=(null) ; status=0/0 }\n\
        FragmentPath=/etc/systemd/system/containerd.service\n";
    /// systemd 252, between two starts.
    const WAITING: &str = "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nNRestarts=7\nMainPID=0\n\
        ActiveEnterTimestampMonotonic=2477717420\nKillMode=process\n";
    const ABSENT: &str = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nResult=success\nNRestarts=0\nMainPID=0\n\
        ActiveEnterTimestampMonotonic=0\nKillMode=control-group\nFragmentPath=\n";

    #[test]
    fn systemd_219_tells_less_and_enough() {
        let state = ServiceState::parse(EL7, 90_000_000_000);
        assert_eq!(
            (state.restarts, state.main_pid, state.active_for),
            (None, None, None)
        );
        assert_eq!(state.exec_start, ["/usr/bin/containerd"]);
        assert!(state.keeps_failing() && !state.is_up() && !state.is_absent());
        assert_eq!(state.in_words(), "failed (failed), result start-limit");
    }

    #[test]
    fn a_running_service_tells_its_process_its_age_and_its_command_line() {
        let state = ServiceState::parse(LOOPING, 2_480_717_420);
        assert_eq!(
            (state.restarts, state.main_pid, state.active_for),
            (Some(51), Some(30_987), Some(3))
        );
        assert_eq!(
            state.exec_start[1..],
            ["-c", "/soft/containerd/config.toml", "--root", "/data/containerd"]
        );
        assert_eq!(state.kill_mode.as_deref(), Some("process"));
        assert_eq!(state.in_words(), "active (running), restarted 51 times");
    }

    #[test]
    fn a_service_between_two_starts_keeps_failing() {
        let state = ServiceState::parse(WAITING, 0);
        assert!(state.keeps_failing() && state.is_up());
        assert_eq!(state.active_for, None);
    }

    #[test]
    fn an_absent_unit_is_not_a_stopped_one() {
        let state = ServiceState::parse(ABSENT, 0);
        assert!(state.is_absent() && !state.is_up());
        assert_eq!((state.unit_file, state.exec_start), (None, vec![]));
        assert!(!ServiceState::default().is_absent());
    }

    #[test]
    fn commands_stop_and_start_a_service_without_systemd() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("stopped");
        let service = Service {
            name: "containerd".into(),
            manager: Manager::Commands {
                stop: format!("touch {}", mark.display()),
                start: format!("rm {}", mark.display()),
            },
        };
        let deadline = Duration::from_secs(20);
        assert_eq!(service.state().unwrap(), ServiceState::default());
        service.stop(deadline).unwrap();
        assert!(mark.exists());
        service.reset_failed().unwrap();
        service.start(deadline).unwrap();
        assert!(!mark.exists());
        assert!(service.start(deadline).is_err());
    }
}
