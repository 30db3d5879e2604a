//! The run: two looks, a plan, the question, the lock, the repair, the report.

use std::io::IsTerminal;

use nodemend_evidence::{Outcome, Plan, Report};
use nodemend_hostfs::{StateDir, vantage};

use crate::ask::agreed;
use crate::exit::{Exit, UsageError};
use crate::flags::{Flags, Output};
use crate::progress;
use crate::recording::Recording;
use crate::render::{Document, Paint, print, render};
use crate::repair::{Repair, Working};
use crate::signals::Signals;

/// Runs a tool from its flags to its exit code. Prints the report to stdout and all else to stderr.
pub fn run<R: Repair>(repair: &mut R, flags: &Flags) -> Exit {
    start(flags.verbose);
    match Run::new(repair, flags).and_then(Run::go) {
        Ok(exit) => exit,
        Err(error) => fail(&error),
    }
}

/// Sends the tool's own log to stderr: warnings, or more with `-vv`.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 | 1 => tracing::Level::WARN,
        2 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    // A second subscriber is refused; the first one keeps working.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .try_init();
}

/// Says an error, with its causes, and gives the exit code that belongs to it.
pub fn fail(error: &anyhow::Error) -> Exit {
    #[expect(clippy::print_stderr, reason = "this is where errors are said")]
    {
        eprintln!("error: {}", crate::escaped(&format!("{error:#}")));
    }
    match error.downcast_ref::<nodemend_hostfs::Error>() {
        Some(nodemend_hostfs::Error::Locked { .. }) => Exit::Locked,
        _ if error.is::<UsageError>() => Exit::Usage,
        _ => Exit::Error,
    }
}

struct Run<'a, R: Repair> {
    repair: &'a mut R,
    flags: &'a Flags,
    signals: Signals,
}

impl<'a, R: Repair> Run<'a, R> {
    fn new(repair: &'a mut R, flags: &'a Flags) -> anyhow::Result<Self> {
        Ok(Self {
            repair,
            flags,
            signals: Signals::listen()?,
        })
    }

    fn go(mut self) -> anyhow::Result<Exit> {
        let Some((first, second)) = self.looks()? else {
            return Ok(self.interrupted());
        };
        let plan = self.repair.plan(&first, &second);
        drop(first);
        let mut report = Report::of_plan(self.repair.kind(), &plan);
        for item in report.items.iter_mut().filter(|item| item.action.is_some()) {
            item.action = Some(self.repair.action(&second, &item.subject));
        }
        if !self.flags.apply {
            self.show(report, &second, &plan)?;
            return Ok(self.planned(&plan));
        }
        report.refused = self.refusal(&plan, &second);
        if report.refused.is_some() || report.summary.orphans == 0 {
            let refused = report.refused.is_some();
            report.dry_run = false;
            self.show(report, &second, &plan)?;
            return Ok(if refused {
                Exit::Partly
            } else {
                self.undecided_or(&plan, Exit::Success)
            });
        }
        if !self.agreed(&report)? {
            return Ok(Exit::Success);
        }
        self.mend(report, plan, &second)
    }

    /// The two looks, read here or from a recording. None if a signal came between them.
    fn looks(&mut self) -> anyhow::Result<Option<(R::First, R::Survey)>> {
        let kind = self.repair.kind().replace("Report", "Recording");
        if let Some(path) = &self.flags.replay {
            let recording = Recording::load(path, &kind)?;
            return Ok(Some((self.repair.first(recording.first), recording.second)));
        }
        if self.flags.root.is_none()
            && let Some(outside) = vantage::check()?
        {
            return Err(outside.into());
        }
        let first = self.repair.survey()?;
        let Some(path) = &self.flags.record else {
            let first = self.repair.first(first);
            let second = self.second()?;
            return Ok(second.map(|second| (first, second)));
        };
        let Some(second) = self.second()? else {
            return Ok(None);
        };
        let recording = Recording::new(&kind, first, second);
        recording.save(path)?;
        Ok(Some((self.repair.first(recording.first), recording.second)))
    }

    /// The second look, when the node had time to settle. None if a signal came meanwhile.
    fn second(&mut self) -> anyhow::Result<Option<R::Survey>> {
        self.signals.wait(self.flags.settle);
        match self.signals.received() {
            Some(_) => Ok(None),
            None => self.repair.survey().map(Some),
        }
    }

    /// Why nothing at all may be done, if so.
    fn refusal(&self, plan: &Plan<R::Subject>, survey: &R::Survey) -> Option<String> {
        let summary = plan.summary();
        let silent = self.repair.silent(survey);
        if !silent.is_empty() && summary.undecided + summary.orphans > 0 {
            return Some(format!(
                "not every source answered, so nothing is proven: {}",
                silent.join("; ")
            ));
        }
        plan.check(self.flags.limit, self.repair.alive(survey))
            .err()
            .map(|refusal| refusal.to_string())
    }

    fn agreed(&self, report: &Report<R::Subject>) -> anyhow::Result<bool> {
        let (_, what) = self.repair.names();
        let needed = if self.repair.dangerous().is_some() { 2 } else { 1 };
        if self.flags.yes < needed && std::io::stderr().is_terminal() {
            let text = render(
                report,
                &[],
                what,
                self.flags.verbose > 0,
                Paint::of(self.flags.color, &std::io::stderr()),
            );
            remark(&text);
        }
        let mut question = format!("Mend {} {what} as planned?", report.summary.orphans);
        if let Some(danger) = self.repair.dangerous() {
            question = format!("{danger}\n{question}");
        }
        agreed(&question, self.flags.yes, needed)
    }

    fn mend(
        self,
        report: Report<R::Subject>,
        plan: Plan<R::Subject>,
        survey: &R::Survey,
    ) -> anyhow::Result<Exit> {
        let lock = StateDir::at(&self.flags.state_dir).lock()?;
        let (_, what) = self.repair.names();
        let details = self.repair.details(survey, &plan);
        let bar = progress::bar(report.summary.orphans, what);
        let working = Working {
            stop: self.signals.stop(),
            progress: &mut |done| bar.set_position(done as u64),
        };
        let outcomes = self.repair.apply(plan.into_orphans(), &lock, working)?;
        bar.finish_and_clear();
        drop(lock);
        let partly = outcomes
            .iter()
            .any(|(_, outcome)| !matches!(outcome, Outcome::Mended(_) | Outcome::AlreadyGone));
        let report = report.with_outcomes(outcomes);
        let undecided = report.summary.undecided > 0;
        self.print(report, details)?;
        Ok(match self.signals.received() {
            Some(signal) => Exit::Signal(signal),
            None if partly => Exit::Partly,
            None if undecided && self.flags.detailed_exitcode => Exit::Undecided,
            None => Exit::Success,
        })
    }

    fn show(
        &mut self,
        report: Report<R::Subject>,
        survey: &R::Survey,
        plan: &Plan<R::Subject>,
    ) -> anyhow::Result<()> {
        let details = self.repair.details(survey, plan);
        self.print(report, details)
    }

    fn print(&self, report: Report<R::Subject>, details: R::Details) -> anyhow::Result<()> {
        let (_, what) = self.repair.names();
        let headlines = self.repair.headlines(&details, &report);
        let document = Document { report, details };
        print(&document, &headlines, what, self.flags)?;
        let here = self.flags.replay.is_none() && self.flags.root.is_none();
        if here
            && self.flags.output == Output::Text
            && document.report.dry_run
            && document.report.summary.orphans > 0
        {
            remark("\nNothing was changed. To mend this: the same command with --apply\n");
        }
        Ok(())
    }

    fn planned(&self, plan: &Plan<R::Subject>) -> Exit {
        if self.flags.detailed_exitcode && plan.summary().orphans > 0 {
            return Exit::Pending;
        }
        self.undecided_or(plan, Exit::Success)
    }

    fn undecided_or(&self, plan: &Plan<R::Subject>, exit: Exit) -> Exit {
        if self.flags.detailed_exitcode && plan.summary().undecided > 0 {
            Exit::Undecided
        } else {
            exit
        }
    }

    fn interrupted(&self) -> Exit {
        self.signals.received().map_or(Exit::Success, Exit::Signal)
    }
}

/// Writes to stderr, as it is.
pub fn remark(text: &str) {
    #[expect(clippy::print_stderr, reason = "this crate is the one that speaks")]
    {
        eprint!("{text}");
    }
}
