//! How a report looks.

use std::fmt::Write as _;
use std::io::{BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};

use nodemend_evidence::{Claim, Evidence, Item, Outcome, Report, VerdictKind};
use schemars::JsonSchema;
use serde::Serialize;

use crate::escape::escaped;
use crate::flags::{Color, Flags, Output};

/// A whole JSON document: the report, and what the tool says beyond it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Document<T, D> {
    /// The report.
    #[serde(flatten)]
    pub report: Report<T>,
    /// What the tool says beyond it.
    #[serde(flatten)]
    pub details: D,
}

/// The colours of the text report; none of them on a pipe.
#[derive(Clone, Copy, Debug)]
pub struct Paint(bool);

impl Paint {
    /// As the flag and the stream want it.
    pub fn of(color: Color, stream: &impl IsTerminal) -> Self {
        Self(match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        })
    }

    /// No colour.
    pub fn none() -> Self {
        Self(false)
    }

    fn verdict(self, kind: VerdictKind) -> String {
        let code = match kind {
            VerdictKind::Live => "32",
            VerdictKind::Foreign => "2",
            VerdictKind::Undecided => "33",
            VerdictKind::Orphan => "1;31",
        };
        self.code(code, &format!("{kind:<9}"))
    }

    /// What asks for attention: an object that goes, a refusal.
    pub fn alarm(self, text: &str) -> String {
        self.code("1;31", text)
    }

    /// What went well.
    pub fn good(self, text: &str) -> String {
        self.code("32", text)
    }

    /// The text, which must be safe for a terminal, between the codes of a colour.
    fn code(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The text of a report: the headlines, then each object that is not plainly alive or foreign, with who was asked.
/// With `all`, every object. Neighbours of which the same was said share one list of evidence; what was mended has had
/// its proof in the plan, and says only how it ended.
pub fn render<T>(report: &Report<T>, headlines: &[String], what: &str, all: bool, paint: Paint) -> String {
    let mut text = String::new();
    for line in headlines {
        let _ = writeln!(text, "{}", escaped(line));
    }
    let counts = report.summary;
    let _ = writeln!(
        text,
        "{} {what}: {} live, {} foreign, {} undecided, {} orphaned",
        report.items.len(),
        counts.live,
        counts.foreign,
        counts.undecided,
        counts.orphans
    );
    if let Some(line) = outcomes(report) {
        let _ = writeln!(text, "{line}");
    }
    let shown: Vec<&Item<T>> = report.items.iter().filter(|item| all || tells(item)).collect();
    for group in shown.chunk_by(|a, b| alike(a, b)) {
        text.push('\n');
        for item in group {
            let _ = writeln!(text, "{}  {}", paint.verdict(item.verdict), escaped(&item.title));
        }
        if let Some(item) = group.first() {
            said(&mut text, item);
        }
    }
    if let Some(reason) = &report.refused {
        let _ = writeln!(text, "\nREFUSED: {}", escaped(reason));
    }
    text
}

/// How the repair went, in one line, if there was one.
fn outcomes<T>(report: &Report<T>) -> Option<String> {
    let count = |wanted: fn(&Outcome) -> bool| {
        report
            .items
            .iter()
            .filter_map(|item| item.outcome.as_ref())
            .filter(|outcome| wanted(outcome))
            .count()
    };
    let tried = count(|_| true);
    let mended = count(|outcome| matches!(outcome, Outcome::Mended(_)));
    let gone = count(|outcome| matches!(outcome, Outcome::AlreadyGone));
    let refused = count(|outcome| matches!(outcome, Outcome::Refused(_)));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let left = tried - mended - gone - refused - failed;
    (tried > 0).then(|| {
        format!("of {tried} planned: {mended} mended, {gone} gone by themselves, {refused} refused, {failed} failed, {left} not tried")
    })
}

fn tells<T>(item: &Item<T>) -> bool {
    matches!(item.verdict, VerdictKind::Orphan | VerdictKind::Undecided)
}

fn alike<T>(a: &Item<T>, b: &Item<T>) -> bool {
    let proven = |item: &Item<T>| matches!(item.outcome, Some(Outcome::Mended(_)));
    let same_words = a.evidence == b.evidence || (proven(a) && proven(b));
    a.verdict == b.verdict
        && a.reason == b.reason
        && a.action == b.action
        && a.outcome == b.outcome
        && same_words
}

/// The names of most sources fit into this; a longer one pushes its own words aside.
const LABEL: usize = 36;

fn said<T>(text: &mut String, item: &Item<T>) {
    let proof = tells(item) && !matches!(item.outcome, Some(Outcome::Mended(_) | Outcome::AlreadyGone));
    let evidence = if proof { &item.evidence[..] } else { &[] };
    let labels = evidence
        .iter()
        .map(|evidence| evidence.source.name().chars().count());
    let width = labels.max().unwrap_or(8).min(LABEL);
    let mut row = |label: &str, words: &str| {
        let _ = writeln!(text, "    {:<width$}  {}", escaped(label), escaped(words));
    };
    // Of an undecided object the marked lines below say the same, and all of it.
    if let Some(reason) = item
        .reason
        .as_ref()
        .filter(|_| evidence.is_empty() || item.verdict != VerdictKind::Undecided)
    {
        row("because", reason);
    }
    for Evidence { source, claim } in evidence {
        let doubt = matches!(claim, Claim::Unknown(_)) && item.verdict == VerdictKind::Undecided;
        row(
            source.name(),
            &format!("{}{}", if doubt { "UNKNOWN: " } else { "" }, claim.detail()),
        );
    }
    match (&item.action, &item.outcome) {
        (Some(action), None) => row("action", action),
        (_, Some(outcome)) => row("done", &outcome_words(outcome)),
        (None, None) => {}
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Mended(how) => format!("mended: {how}"),
        Outcome::AlreadyGone => "it was gone already".to_owned(),
        Outcome::Refused(why) => format!("REFUSED at the second look: {why}"),
        Outcome::Failed(why) => format!("FAILED: {why}"),
        Outcome::NotTried => "not tried: the run was ended before".to_owned(),
    }
}

/// Writes a report to stdout.
pub(crate) fn print<T: Serialize, D: Serialize>(
    document: &Document<T, D>,
    headlines: &[String],
    what: &str,
    flags: &Flags,
) -> anyhow::Result<()> {
    let stdout = std::io::stdout();
    match flags.output {
        Output::Json => say_json(document),
        Output::Text => {
            let paint = Paint::of(flags.color, &stdout);
            let text = render(&document.report, headlines, what, flags.verbose > 0, paint);
            say_safe(&text)
        }
    }
}

/// Writes lines to stdout, with every control character but the line's end escaped.
///
/// # Errors
/// If stdout cannot be written; a reader that went away is no error.
pub fn say(text: &str) -> anyhow::Result<()> {
    let lines: Vec<_> = text.lines().map(escaped).collect();
    to_stdout(|out| writeln!(out, "{}", lines.join("\n")))
}

/// Writes text to stdout as it is: whoever made it has escaped what could move the cursor.
///
/// # Errors
/// If stdout cannot be written; a reader that went away is no error.
pub fn say_safe(text: &str) -> anyhow::Result<()> {
    to_stdout(|out| out.write_all(text.as_bytes()))
}

/// Writes one JSON document to stdout, as it is made: a large node's report has a hundred megabytes.
///
/// # Errors
/// If stdout cannot be written; a reader that went away is no error.
pub fn say_json(document: &impl Serialize) -> anyhow::Result<()> {
    to_stdout(|out| {
        serde_json::to_writer_pretty(&mut *out, document)?;
        writeln!(out)
    })
}

/// A reader that went away is no error.
fn to_stdout(
    write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use nodemend_evidence::{Plan, Source, Subject, Verdict, judge};

    use super::*;

    #[derive(Clone, Serialize)]
    struct Thing(&'static str);

    impl Subject for Thing {
        type Identity = &'static str;
        fn identity(&self) -> &'static str {
            self.0
        }
        fn title(&self) -> String {
            self.0.to_owned()
        }
        fn action(&self) -> String {
            "remove it".to_owned()
        }
    }

    fn orphan(name: &'static str) -> Verdict<Thing> {
        let source = Source::new("cri");
        judge(
            Thing(name),
            std::slice::from_ref(&source),
            vec![Evidence::new(&source, Claim::absent("nobody knows it"))],
        )
    }

    fn report() -> Report<Thing> {
        Report::of_plan(
            "ThingReport",
            &Plan::new(vec![
                orphan("a"),
                orphan("b"),
                Verdict::foreign(Thing("c"), "not ours"),
            ]),
        )
    }

    #[test]
    fn neighbours_with_the_same_proof_share_it() {
        let text = render(&report(), &[], "things", false, Paint::none());
        assert_eq!(
            text,
            "3 things: 0 live, 1 foreign, 0 undecided, 2 orphaned\n\n\
             ORPHAN     a\nORPHAN     b\n    cri       nobody knows it\n    action    remove it\n"
                .replace("cri       ", "cri  ")
                .replace("action    ", "action  ")
        );
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        let plan = Plan::new(vec![Verdict::foreign(Thing("x\n\u{1b}[2Jy"), "no")]);
        let text = render(
            &Report::of_plan("ThingReport", &plan),
            &[],
            "things",
            true,
            Paint::none(),
        );
        assert!(text.contains("x\\n\\u{1b}[2Jy"), "{text}");
    }

    #[test]
    fn what_was_mended_is_counted_and_says_how() {
        let outcomes = vec![
            ("a", Outcome::Mended("gone".into())),
            ("b", Outcome::Refused("in use".into())),
        ];
        let text = render(
            &report().with_outcomes(outcomes),
            &[],
            "things",
            false,
            Paint::none(),
        );
        assert!(
            text.contains("of 2 planned: 1 mended, 0 gone by themselves, 1 refused"),
            "{text}"
        );
        assert!(
            text.contains("mended: gone") && text.contains("REFUSED at the second look: in use"),
            "{text}"
        );
    }
}
