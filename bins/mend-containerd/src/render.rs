//! The report as people read it.

use std::fmt::Write as _;
use std::time::Duration;

use nodemend_cli::{Paint, escaped};
use nodemend_containerd::{Amount, Course, Health, Look, Needed, Removal, Run, Severity};
use nodemend_hostfs::Spoken;

use crate::document::{ContainerdReport, State, StepItem};

/// How many lines of a kind are shown without `-v`.
const SHOWN: usize = 8;
/// How wide the labels are.
const LABEL: usize = 11;

/// The whole text. Everything that comes from the machine is escaped. With `all`, nothing is left away.
pub(crate) fn render(report: &ContainerdReport, all: bool, paint: Paint) -> String {
    let mut text = Text {
        text: String::new(),
        all,
    };
    let _ = writeln!(text.text, "{}", head(report, paint));
    match (&report.run, &report.look) {
        (Some(run), _) => text.run(run),
        (None, Some(look)) => text.look(look),
        (None, None) => {}
    }
    for item in &report.items {
        text.item(item);
    }
    let back = |run: &Run| matches!(run.course, Course::GaveUp | Course::RolledBack);
    let has_old_root = !report.run.as_deref().is_some_and(back);
    if let Some(removal) = report.removal.as_ref().filter(|_| has_old_root) {
        text.rows("old root", &removal_words(removal));
    }
    text.rows("back", &report.back);
    for refusal in &report.refusals {
        text.row("refused", &refusal.detail);
        text.row("do", &refusal.help);
    }
    if let Some(error) = &report.error {
        text.row("error", error);
    }
    for (label, next) in [("--resume", &report.resume), ("--roll-back", &report.roll_back)] {
        if let Some(next) = next {
            text.row(label, &next.what);
        }
    }
    text.text
}

fn head(report: &ContainerdReport, paint: Paint) -> String {
    if !report.refusals.is_empty() {
        return paint.alarm("REFUSED");
    }
    if report.error.is_some() {
        return paint.alarm("FAILED");
    }
    if let Some(run) = &report.run {
        return match run.course {
            Course::Mended => paint.good("MENDED"),
            Course::RolledBack => paint.good("ROLLED BACK"),
            Course::GaveUp => "NOTHING DONE".to_owned(),
            Course::Forward | Course::Back => paint.alarm("NOT DONE YET"),
        };
    }
    match report.needed {
        Some(Needed::No) => paint.good("NOTHING TO MEND"),
        Some(Needed::Yes | Needed::Unknown) => paint.alarm("MEND"),
        None => "NO RUN".to_owned(),
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
            self.row("", &format!("and {more} more (-v shows all)"));
        }
    }

    fn look(&mut self, look: &Look) {
        let (words, why) = match &look.health {
            Health::Healthy { runtime, age } => {
                (format!("{runtime} works, since {}", Spoken(*age)), Vec::new())
            }
            Health::Broken { why } => ("broken".to_owned(), why.clone()),
            Health::Unknown { why } => ("not known whether it works".to_owned(), why.clone()),
        };
        self.row("containerd", &words);
        self.rows("because", &why);
        let findings: Vec<String> = look
            .findings
            .iter()
            .filter(|finding| self.all || finding.severity != Severity::Note)
            .map(|finding| finding.text.clone())
            .collect();
        self.rows("found", &findings);
        let path = look.root.as_ref().map_or(&look.settings.root, |root| &root.path);
        let kind = look
            .root
            .as_ref()
            .map_or(String::new(), |root| format!(" on {}", root.filesystem));
        self.row(
            "root",
            &format!(
                "{}{kind}: {} entries",
                path.display(),
                amount(&look.estimate.entries)
            ),
        );
        let mut pods: Vec<String> = look
            .pods
            .iter()
            .map(|pod| match &pod.pod {
                Some(name) => format!("{}/{}", name.namespace, name.name),
                None => pod.sandbox.clone(),
            })
            .collect();
        pods.sort();
        self.rows("pods", &pods);
        self.rows("not seen", &look.pods_unseen);
    }

    fn run(&mut self, run: &Run) {
        self.row("run", &run.id);
        self.row("root", &run.root.path.to_string_lossy());
        if let Some(new) = &run.new_aside {
            self.row("new root", &format!("was set aside: {}", new.display()));
        }
    }

    fn item(&mut self, item: &StepItem) {
        let state = match item.state {
            State::Planned => String::new(),
            State::Done => item.seconds.map_or("done".to_owned(), |seconds| {
                format!("done in {}", Spoken(seconds))
            }),
            State::Failed => "begun, and not ended".to_owned(),
            State::NotTried => "not yet".to_owned(),
        };
        let expected = item.expected_seconds.map_or(String::new(), expected);
        let _ = writeln!(
            self.text,
            "{}",
            format!("{}  {:<32} {state}{expected}", item.number, item.step).trim_end()
        );
        self.rows("", &item.what);
    }
}

fn expected((least, most): (u64, u64)) -> String {
    match (least, most) {
        (_, 0) => String::new(),
        (0, 1) => "below 1 s".to_owned(),
        (0, most) => format!("up to {}", Spoken(most)),
        (least, most) if least == most => Spoken(most).to_string(),
        (least, most) => format!("{} to {}", Spoken(least), Spoken(most)),
    }
}

fn amount(amount: &Amount) -> String {
    match amount {
        Amount::Exactly(count) => count.to_string(),
        Amount::About(count) => format!("about {count}"),
        Amount::AtLeast(count) => format!("at least {count}"),
        Amount::Unknown(why) => format!("unknown ({why})"),
    }
}

fn removal_words(removal: &Removal) -> Vec<String> {
    match removal {
        Removal::NotBegun => vec!["its removal has not begun".to_owned()],
        Removal::Gone => vec!["gone".to_owned()],
        Removal::Stopped { how } => vec![format!("its removal ended, and something is left: {how}")],
        Removal::Refused { why } => {
            let first = "stays, as something uses it".to_owned();
            std::iter::once(first).chain(why.iter().cloned()).collect()
        }
        Removal::Running { pid, progress } => {
            let number = |path: &str| progress.as_ref().and_then(|line| line.pointer(path)?.as_u64());
            let gone = number("/removed/files").unwrap_or(0) + number("/removed/directories").unwrap_or(0);
            let left = number("/secondsLeft")
                .map(|seconds| {
                    format!(
                        ", at most {} left",
                        Spoken(Duration::from_secs(seconds).as_secs())
                    )
                })
                .unwrap_or_default();
            vec![format!(
                "is being removed by process {pid}: {gone} entries are gone{left}"
            )]
        }
    }
}
