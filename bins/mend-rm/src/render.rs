//! The report as people read it.

use std::fmt::Write as _;
use std::time::Duration;

use nodemend_cli::{Paint, escaped};
use nodemend_hostfs::Spoken;

use crate::document::{Outcome, Plan, PolicyFact, RemovalItem, RemovalReport, State, Tie, UserFact};
use crate::words::{bytes, count, counted, time};

/// How many lines of a kind are shown without `-v`.
const SHOWN: usize = 10;
/// How wide the labels are.
const LABEL: usize = 11;

/// The whole text. Everything that comes from the machine is escaped. With `all`, nothing is left away.
pub(crate) fn render(report: &RemovalReport, all: bool, paint: Paint) -> String {
    let mut text = Text {
        text: String::new(),
        all,
    };
    for (at, item) in report.items.iter().enumerate() {
        if at > 0 {
            text.text.push('\n');
        }
        let _ = writeln!(text.text, "{}  {}", head(item.state, paint), escaped(&item.path));
        text.item(item);
    }
    for lookalike in &report.lookalikes {
        let _ = writeln!(
            text.text,
            "left alone  {}: {}",
            escaped(&lookalike.path),
            escaped(&lookalike.reason)
        );
    }
    text.text
}

fn head(state: State, paint: Paint) -> String {
    match state {
        State::Planned => paint.alarm("REMOVE "),
        State::Absent => "NOTHING".to_owned(),
        State::Refused => paint.alarm("REFUSED"),
        State::Removed => paint.good("REMOVED"),
        State::Left => paint.alarm("LEFT   "),
        State::ReadOnly | State::Failed => paint.alarm("FAILED "),
        State::Stopped => paint.alarm("STOPPED"),
        State::NotTried => "NOT YET".to_owned(),
    }
}

struct Text {
    text: String,
    all: bool,
}

impl Text {
    fn row(&mut self, label: &str, words: &str) {
        let _ = writeln!(self.text, "    {label:<LABEL$} {}", escaped(words));
    }

    /// One row each, the first with the label.
    fn rows(&mut self, label: &str, rows: &[String]) {
        let shown = if self.all {
            rows.len()
        } else {
            rows.len().min(SHOWN)
        };
        for (at, row) in rows.iter().take(shown).enumerate() {
            self.row(if at == 0 { label } else { "" }, row);
        }
        if let Some(more) = rows.len().checked_sub(shown).filter(|more| *more > 0) {
            self.row("", &format!("and {} more (-v shows all)", count(more as u64)));
        }
    }

    fn item(&mut self, item: &RemovalItem) {
        if let Some(was) = &item.was {
            self.row("was", &format!("{was}, until it was set aside"));
        }
        if item.state == State::Absent {
            self.row(
                "because",
                "nothing is there: it was removed before, or the path is wrong",
            );
        }
        if item.state == State::NotTried {
            self.row(
                "because",
                "another tree was refused, or the run ended before its turn; nothing of it was touched",
            );
        }
        // Before the removal what is known counts, after it what was done.
        if let Some(plan) = item.plan.as_ref().filter(|_| item.outcome.is_none()) {
            self.plan(plan);
        }
        for refusal in &item.refusals {
            self.row("refused", &refusal.detail);
            self.row("do", &refusal.help);
        }
        if let Some(outcome) = &item.outcome {
            self.outcome(outcome, item.state);
        }
    }

    fn plan(&mut self, plan: &Plan) {
        let place = match &plan.mount {
            Some(mount) => format!("{}, {} at {}", plan.file_system, mount.source, mount.mountpoint),
            None => plan.file_system.clone(),
        };
        self.row("file system", &place);
        self.row("policy", &policy(&plan.policy));
        let inodes = plan.inodes_used.map_or_else(
            || "an uncounted number of inodes".to_owned(),
            |used| counted(used, "inode", "inodes"),
        );
        self.row(
            "in use",
            &format!(
                "{inodes} and {} of {} on the whole file system",
                bytes(plan.bytes_used),
                bytes(plan.bytes_total)
            ),
        );
        self.row("time", &estimate(plan));
        let mounts: Vec<String> = plan
            .mounts_inside
            .iter()
            .map(|mount| format!("{}: {} {}", mount.mountpoint, mount.file_system, mount.source))
            .collect();
        self.rows("mounts", &or_none(mounts, "none inside"));
        if !plan.subvolumes.is_empty() {
            let number = counted(
                plan.subvolumes.len() as u64,
                "btrfs subvolume",
                "btrfs subvolumes",
            );
            self.row(
                "subvolumes",
                &format!("{number}, which only --subvolumes destroys"),
            );
        }
        let subvolumes: Vec<String> = plan
            .subvolumes
            .iter()
            .map(|subvolume| {
                let kind = if subvolume.read_only { " (read-only)" } else { "" };
                format!("{}{kind}", subvolume.path)
            })
            .collect();
        self.rows("", &subvolumes);
        self.rows(
            "used by",
            &or_none(plan.users.iter().map(user).collect(), "no process"),
        );
        let daemons: Vec<String> = plan
            .daemons
            .iter()
            .filter(|daemon| daemon.tie == Tie::Around)
            .map(|daemon| {
                format!(
                    "{} (pid {}) runs, and the tree lies in {}; none of its files in the tree are open",
                    daemon.name, daemon.pid, daemon.detail
                )
            })
            .collect();
        self.rows("mind", &daemons);
        let overlays: Vec<String> = plan
            .overlays
            .iter()
            .map(|overlay| {
                format!(
                    "{}: {} {} ({})",
                    overlay.mountpoint, overlay.layer, overlay.path, overlay.known
                )
            })
            .collect();
        self.rows("overlays", &or_none(overlays, "none lives from it"));
        self.rows("NOT SEEN", &plan.unseen);
    }

    fn outcome(&mut self, outcome: &Outcome, state: State) {
        if let Some(aside) = &outcome.set_aside {
            self.row("set aside", &format!("as {aside}; its name is free"));
        }
        if let Some(error) = &outcome.error {
            self.row("because", error);
            return;
        }
        let removed = outcome.removed;
        let mut gone = format!(
            "{}, {}",
            counted(removed.files, "file", "files"),
            counted(removed.directories, "directory", "directories")
        );
        if removed.subvolumes > 0 {
            gone += &format!(", {}", counted(removed.subvolumes, "subvolume", "subvolumes"));
        }
        self.row("removed", &gone);
        let seconds = Duration::try_from_secs_f64(outcome.seconds).unwrap_or_default();
        self.row(
            "took",
            &format!(
                "{}, {}",
                time(seconds),
                counted(outcome.threads as u64, "thread", "threads")
            ),
        );
        self.row("freed", &bytes(outcome.bytes_freed));
        if state == State::Stopped {
            self.row("because", "a signal ended the run; run it again to go on");
        }
        if state == State::ReadOnly {
            self.row(
                "because",
                "the file system became read-only; the kernel's log says why",
            );
        }
        let counts: Vec<String> = outcome
            .problem_counts
            .iter()
            .map(|kind| format!("{} {}", count(kind.count), kind.reason))
            .collect();
        if !counts.is_empty() {
            self.row("problems", &counts.join(", "));
        }
        let problems: Vec<String> = outcome.problems.iter().map(problem).collect();
        self.rows("left", &problems);
    }
}

fn or_none(rows: Vec<String>, none: &str) -> Vec<String> {
    if rows.is_empty() {
        vec![none.to_owned()]
    } else {
        rows
    }
}

fn policy(policy: &PolicyFact) -> String {
    let PolicyFact {
        warm_threads: warm,
        cold_threads: cold,
        splits_directories,
        lanes,
    } = *policy;
    let mut words = counted(warm as u64, "thread", "threads");
    if cold != warm {
        words += &format!(", {cold} while they wait for the disk");
    }
    match lanes {
        0 => {}
        1 => words += "; one of them removes, the others read ahead",
        _ => words += &format!("; one at a time removes in each of {lanes} allocation groups"),
    }
    words += if splits_directories {
        "; several in one directory"
    } else {
        "; one in each directory"
    };
    words
}

fn estimate(plan: &Plan) -> String {
    match plan.estimate {
        Some(estimate) => {
            let spoken = |seconds| Spoken(seconds).to_string();
            format!(
                "at most {} to {}, as if all inodes in use were in the tree ({} entries a second warm, {} cold on a cloud disk)",
                spoken(estimate.fast_seconds),
                spoken(estimate.slow_seconds),
                count(estimate.fast_rate),
                count(estimate.slow_rate)
            )
        }
        None if plan.inodes_used.is_none() => {
            "not known: this file system does not count its inodes".to_owned()
        }
        None => "not known: removal was not measured on this file system".to_owned(),
    }
}

fn user(user: &UserFact) -> String {
    let mut what = user.others.clone();
    if user.open_files > 0 {
        what.push(counted(user.open_files as u64, "open file", "open files"));
    }
    format!(
        "{} (pid {}): {}, {}",
        user.name,
        user.pid,
        what.join(", "),
        user.example
    )
}

fn problem(problem: &crate::document::ProblemFact) -> String {
    let mut words = format!("{}: {}: {}", problem.path, problem.step, problem.reason);
    if let Some(detail) = &problem.detail {
        words += &format!(" ({detail})");
    }
    if let Some(error) = &problem.error {
        words += &format!(": {error}");
    }
    if let Some(help) = &problem.help {
        words += &format!(" - {help}");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{ProblemFact, RemovedFact};

    fn item(state: State) -> RemovalItem {
        RemovalItem {
            path: "/srv/a\u{1b}[2J\nb".into(),
            state,
            was: None,
            plan: Some(Plan::default()),
            refusals: Vec::new(),
            outcome: None,
        }
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        let mut done = item(State::Left);
        done.outcome = Some(Outcome {
            problems: vec![ProblemFact {
                path: "/x\u{1b}[1m\r".into(),
                step: "unlink".into(),
                reason: "other".into(),
                detail: None,
                error: None,
                help: None,
            }],
            ..Outcome::default()
        });
        let text = render(
            &RemovalReport::new(false, vec![item(State::Planned), done]),
            true,
            Paint::none(),
        );
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");
    }

    #[test]
    fn a_removal_says_what_is_gone() {
        let mut done = item(State::Removed);
        done.outcome = Some(Outcome {
            removed: RemovedFact {
                files: 1_234,
                directories: 1,
                subvolumes: 0,
            },
            seconds: 0.42,
            threads: 2,
            bytes_freed: 1 << 20,
            ..Outcome::default()
        });
        let text = render(&RemovalReport::new(false, vec![done]), false, Paint::none());
        assert!(text.contains("1,234 files, 1 directory"), "{text}");
        assert!(text.contains("420 ms, 2 threads"), "{text}");
        assert!(!text.contains("policy"), "{text}");
    }
}
