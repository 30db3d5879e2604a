//! How containerd is: the judge, which reads nothing itself.

use nodemend_hostfs::Spoken;
use nodemend_runtime::{Greeting, Mute};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bolt::Database;
use super::journal::{Cause, Death, Journal, WINDOW};
use crate::service::ServiceState;

/// A process that is younger has proven nothing, in seconds.
const YOUNG: u64 = 60;
/// This many restarts within the window of the journal are a loop.
const LOOP: usize = 3;

/// How containerd is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "health", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Health {
    /// Its CRI answered, and its process is older than a minute and was not restarted lately.
    Healthy {
        /// `containerd 1.7.24`.
        runtime: String,
        /// Seconds since its process was started.
        age: u64,
    },
    /// It does not work.
    Broken {
        /// Each reason, the strongest first.
        why: Vec<String>,
    },
    /// It cannot be told.
    Unknown {
        /// Each reason.
        why: Vec<String>,
    },
}

impl Health {
    /// Why it is not healthy, or may not be.
    pub fn why(&self) -> &[String] {
        match self {
            Self::Healthy { .. } => &[],
            Self::Broken { why } | Self::Unknown { why } => why,
        }
    }
}

/// What the judgement stands on.
pub(super) struct Signs<'a> {
    /// What its CRI said.
    pub(super) greeting: &'a Result<Greeting, Mute>,
    pub(super) service: &'a ServiceState,
    /// True if systemd manages it: then it restarts it, too.
    pub(super) by_systemd: bool,
    /// The age of its process in seconds; None if none runs, or nobody can tell.
    pub(super) age: Option<u64>,
    pub(super) journal: &'a Result<Journal, String>,
    pub(super) databases: &'a [Database],
    /// True if its configuration turns the CRI off.
    pub(super) cri_disabled: bool,
}

pub(super) fn judge(signs: &Signs<'_>) -> Health {
    let looping = looping(signs);
    match signs.greeting {
        Ok(greeting) if looping.is_empty() => answering(signs, greeting),
        Ok(_) => broken(looping, signs),
        Err(Mute::NoCri) if signs.cri_disabled => unknown(NO_CRI),
        Err(Mute::Unreachable(reason)) if looping.is_empty() => {
            unknown(format!("its CRI cannot be asked: {reason}"))
        }
        // Without a CRI once, without it for ever: services are registered before the socket is served.
        Err(mute @ Mute::NoCri) => broken(vec![silence(signs, mute)], signs),
        Err(mute) => {
            let sound = faulty(signs.databases).next().is_none();
            if looping.is_empty() && sound && is_young(signs) {
                return unknown(format!(
                    "it was started {} ago and does not answer yet: {mute}; look again in a minute",
                    Spoken(signs.age.unwrap_or_default())
                ));
            }
            let mut why = looping;
            why.push(silence(signs, mute));
            broken(why, signs)
        }
    }
}

const NO_CRI: &str = "its configuration turns the CRI off (disabled_plugins), so this is not the runtime of kubelet; name the right one";

fn unknown(reason: impl Into<String>) -> Health {
    Health::Unknown {
        why: vec![reason.into()],
    }
}

fn is_young(signs: &Signs<'_>) -> bool {
    signs.age.is_some_and(|age| age < YOUNG)
}

fn answering(signs: &Signs<'_>, greeting: &Greeting) -> Health {
    if let Some(reason) = &greeting.not_ready {
        return broken(
            vec![format!("its CRI says that it is not ready: {reason}")],
            signs,
        );
    }
    let mut why = Vec::new();
    match &greeting.age {
        Ok(age) if age.as_secs() < YOUNG => why.push(format!(
            "it answers, but was started only {} ago; look again in a minute",
            Spoken(age.as_secs())
        )),
        Ok(age) if age.as_secs() < WINDOW.as_secs() => why.extend(lately(signs)),
        Ok(_) => {}
        Err(reason) => why.push(format!("it answers, but its age is not known: {reason}")),
    }
    // What is on the disk counts at the next start.
    for database in faulty(signs.databases) {
        why.push(format!("it answers, but {database}"));
    }
    match (why.is_empty(), &greeting.age) {
        (true, Ok(age)) => Health::Healthy {
            runtime: format!("{} {}", greeting.runtime, greeting.version),
            age: age.as_secs(),
        },
        _ => Health::Unknown { why },
    }
}

/// Why a process that is some minutes old may be one of many. Without systemd there is nobody to ask.
fn lately(signs: &Signs<'_>) -> Option<String> {
    if !signs.by_systemd || signs.service.restarts == Some(0) {
        return None;
    }
    match signs.journal {
        Ok(journal) if journal.restarts == 0 => None,
        Ok(journal) => Some(format!(
            "it answers, but systemd restarted it {} in the last {}",
            times(journal.restarts),
            Spoken(WINDOW.as_secs())
        )),
        Err(reason) => Some(format!(
            "it answers, but whether it was restarted lately is not known: {reason}"
        )),
    }
}

fn looping(signs: &Signs<'_>) -> Vec<String> {
    let restarts = signs.journal.as_ref().map_or(0, |journal| journal.restarts);
    let counted = signs.service.restarts.unwrap_or_default();
    if restarts >= LOOP {
        return vec![format!(
            "it is in a crash loop: systemd restarted it {} in the last {}",
            times(restarts),
            Spoken(WINDOW.as_secs())
        )];
    }
    let failing = signs.service.keeps_failing();
    let young = counted >= LOOP as u64 && is_young(signs);
    if failing || young {
        return vec![format!(
            "it is in a crash loop: its unit is {}",
            signs.service.in_words()
        )];
    }
    Vec::new()
}

/// What is wrong with a containerd that does not answer.
fn silence(signs: &Signs<'_>, mute: &Mute) -> String {
    let runs = signs.service.main_pid.is_some() || signs.age.is_some();
    match mute {
        Mute::NoCri => "it answers, but has no CRI: the plugin failed to start".to_owned(),
        Mute::NobodyThere(_) if !runs && signs.service.active.is_some() => {
            format!("it does not run: its unit is {}", signs.service.in_words())
        }
        Mute::NobodyThere(_) if !runs => "it does not run: nobody listens on its socket".to_owned(),
        Mute::NobodyThere(_) | Mute::Silent(_) | Mute::Unreachable(_) => {
            let age = signs.age.map(|age| format!(", which is {} old,", Spoken(age)));
            format!("its process{} does not answer: {mute}", age.unwrap_or_default())
        }
    }
}

/// The reasons, with what it died of and what its databases look like.
fn broken(mut why: Vec<String>, signs: &Signs<'_>) -> Health {
    why.extend(faulty(signs.databases));
    if let Ok(journal) = signs.journal {
        why.extend(journal.deaths.iter().map(death));
    }
    Health::Broken { why }
}

fn faulty(databases: &[Database]) -> impl Iterator<Item = String> {
    let faulty = databases.iter().filter(|database| !database.faults.is_empty());
    faulty.map(|database| {
        format!(
            "{} is corrupt: {}",
            database.path.display(),
            database.faults.join("; ")
        )
    })
}

pub(super) fn death(death: &Death) -> String {
    let what = match death.cause {
        Cause::Database => "it panicked in its database (bbolt)",
        Cause::Panic => "it panicked",
        Cause::Fatal => "it gave up",
        Cause::Plugin => "it came up without a plugin that it needs",
        Cause::Timeout => "systemd ended it",
        Cause::Memory => "it was killed for want of memory",
    };
    format!("{what} {}: {}", times(death.times), death.line)
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bolt::{Lock, MetaPage};
    use super::*;

    fn greeting(age: u64) -> Result<Greeting, Mute> {
        Ok(Greeting {
            runtime: "containerd".into(),
            version: "1.7.24".into(),
            api: "v1",
            not_ready: None,
            age: Ok(Duration::from_secs(age)),
        })
    }

    fn active(restarts: u64) -> ServiceState {
        ServiceState {
            active: Some("active".into()),
            sub: Some("running".into()),
            result: Some("success".into()),
            restarts: Some(restarts),
            main_pid: Some(7),
            ..ServiceState::default()
        }
    }

    fn dead(is: &str, sub: &str, result: &str) -> ServiceState {
        ServiceState {
            active: Some(is.into()),
            sub: Some(sub.into()),
            result: Some(result.into()),
            main_pid: None,
            ..self::active(0)
        }
    }

    fn nobody() -> Result<Greeting, Mute> {
        Err(Mute::NobodyThere("nobody listens on the socket".into()))
    }

    fn silent() -> Result<Greeting, Mute> {
        Err(Mute::Silent("did not answer within 5 s".into()))
    }

    fn calm() -> Result<Journal, String> {
        Ok(Journal::default())
    }

    fn restarted(restarts: usize) -> Result<Journal, String> {
        let deaths = vec![Death {
            cause: Cause::Database,
            line: "panic: invalid page type: 4: 10".into(),
            times: restarts,
        }];
        Ok(Journal { restarts, deaths })
    }

    fn corrupt() -> Database {
        Database {
            path: "/d/meta.db".into(),
            size: Some(9),
            pages: Vec::<MetaPage>::new(),
            faults: vec!["its checksum is wrong".into()],
            unread: None,
            lock: Lock::Free,
        }
    }

    fn judged(
        greeting: Result<Greeting, Mute>,
        service: ServiceState,
        age: Option<u64>,
        journal: Result<Journal, String>,
        databases: &[Database],
    ) -> Health {
        judge(&Signs {
            greeting: &greeting,
            service: &service,
            by_systemd: true,
            age,
            journal: &journal,
            databases,
            cri_disabled: false,
        })
    }

    fn why(health: Health) -> (char, String) {
        match health {
            Health::Healthy { .. } => ('h', String::new()),
            Health::Broken { why } => ('b', why.join(" | ")),
            Health::Unknown { why } => ('u', why.join(" | ")),
        }
    }

    #[test]
    fn an_old_process_that_answers_is_healthy() {
        let health = judged(
            greeting(7200),
            active(5),
            Some(7200),
            Err("no journal".into()),
            &[],
        );
        let wanted = Health::Healthy {
            runtime: "containerd 1.7.24".into(),
            age: 7200,
        };
        assert_eq!(health, wanted);
        assert_eq!(why(judged(greeting(90), active(0), Some(90), calm(), &[])).0, 'h');
        let unmanaged = judge(&Signs {
            greeting: &greeting(90),
            service: &ServiceState::default(),
            by_systemd: false,
            age: Some(90),
            journal: &Err("it is not started by systemd".into()),
            databases: &[],
            cri_disabled: false,
        });
        assert_eq!(why(unmanaged).0, 'h');
    }

    #[test]
    fn an_answer_alone_is_not_health() {
        let young = why(judged(greeting(20), active(0), Some(20), calm(), &[]));
        assert!(young.0 == 'u' && young.1.contains("only 20 s ago"), "{young:?}");
        let lately = why(judged(greeting(90), active(1), Some(90), restarted(1), &[]));
        assert!(
            lately.0 == 'u' && lately.1.contains("restarted it once"),
            "{lately:?}"
        );
        // systemd 219 does not count.
        let old = ServiceState {
            restarts: None,
            ..active(0)
        };
        let dark = why(judged(greeting(90), old, Some(90), Err("no journal".into()), &[]));
        assert!(dark.0 == 'u' && dark.1.contains("no journal"), "{dark:?}");
        let disk = why(judged(
            greeting(7200),
            active(0),
            Some(7200),
            calm(),
            &[corrupt()],
        ));
        assert!(disk.0 == 'u' && disk.1.contains("meta.db is corrupt"), "{disk:?}");
    }

    #[test]
    fn a_crash_loop_is_broken_whether_it_answers_in_between_or_not() {
        for (greeting, service, journal) in [
            (greeting(2), active(51), restarted(40)),
            (
                nobody(),
                dead("activating", "auto-restart", "exit-code"),
                restarted(7),
            ),
            (
                nobody(),
                dead("failed", "failed", "start-limit"),
                Err("no journal".into()),
            ),
            (nobody(), active(51), Err("no journal".into())),
        ] {
            let health = why(judged(greeting, service, Some(2), journal, &[]));
            assert!(
                health.0 == 'b' && health.1.starts_with("it is in a crash loop"),
                "{health:?}"
            );
        }
        let health = why(judged(nobody(), active(51), Some(2), restarted(9), &[corrupt()])).1;
        assert!(
            health.contains("it panicked in its database (bbolt) 9 times: panic: invalid page type: 4: 10"),
            "{health}"
        );
        assert!(
            health.contains("/d/meta.db is corrupt: its checksum is wrong"),
            "{health}"
        );
    }

    #[test]
    fn one_that_does_not_run_and_one_that_hangs_are_broken() {
        let stopped = why(judged(
            nobody(),
            dead("inactive", "dead", "success"),
            None,
            calm(),
            &[],
        ));
        assert_eq!(
            stopped,
            ('b', "it does not run: its unit is inactive (dead)".to_owned())
        );
        let no_unit = why(judged(nobody(), ServiceState::default(), None, calm(), &[]));
        assert_eq!(
            no_unit,
            ('b', "it does not run: nobody listens on its socket".to_owned())
        );
        let hung = why(judged(silent(), active(0), Some(7200), calm(), &[]));
        assert_eq!(hung.0, 'b');
        assert!(hung.1.contains("which is 2 h old, does not answer"), "{hung:?}");
        let starting = why(judged(nobody(), active(0), Some(10), calm(), &[]));
        assert_eq!(starting.0, 'u');
        let hopeless = why(judged(nobody(), active(0), Some(10), calm(), &[corrupt()]));
        assert_eq!(hopeless.0, 'b');
        let headless = why(judged(Err(Mute::NoCri), active(0), Some(10), calm(), &[]));
        assert_eq!(headless.0, 'b');
    }

    #[test]
    fn a_cri_that_is_off_on_purpose_is_not_broken() {
        let judged = |cri_disabled| {
            judge(&Signs {
                greeting: &Err(Mute::NoCri),
                service: &active(0),
                by_systemd: true,
                age: Some(7200),
                journal: &calm(),
                databases: &[],
                cri_disabled,
            })
        };
        assert_eq!(why(judged(true)).0, 'u');
        assert_eq!(why(judged(false)).0, 'b');
    }

    #[test]
    fn one_that_cannot_be_asked_is_unknown() {
        let outside = Err(Mute::Unreachable("run as root".into()));
        assert_eq!(why(judged(outside, active(0), Some(7200), calm(), &[])).0, 'u');
    }
}
