//! The library in a process of its own, whose memory, open files and kernel are its own too; what it reports, as JSON.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use nix::sys::resource::{Resource, setrlimit};
use nodemend_rmtree::{
    End, Error, Observer, Options, Pace, Problem, Progress, Report, Tree, Urgency, remove,
};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, LabError, Result};

/// The line that says that a run stands still.
pub const PAUSED: &str = "paused";

/// What to remove, and how.
#[derive(Clone, Debug, Args)]
pub struct Remove {
    /// See the fields of that name of the library's options.
    #[arg(long)]
    keep_root: bool,
    #[arg(long)]
    clear_flags: bool,
    #[arg(long)]
    subvolumes: bool,
    #[arg(long)]
    urgent: bool,
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    #[arg(long)]
    open_dirs: Option<usize>,
    #[arg(long)]
    rescans: Option<u32>,
    #[arg(long)]
    problems: Option<usize>,
    /// Limit the process's open files, soft and hard.
    #[arg(long)]
    open_files: Option<u64>,
    /// Stand still after so many entries, and say so; go on when a line is read.
    #[arg(long)]
    pause_after: Option<u64>,
    /// End after so many entries.
    #[arg(long)]
    stop_after: Option<u64>,
    path: PathBuf,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why the tree could not be opened: the error's name; and its words.
    pub refused: Option<(String, String)>,
    /// `gone`, `left`, `stopped`, `readOnly`.
    pub end: String,
    /// As counted by the library.
    pub files: u64,
    /// As counted by the library.
    pub directories: u64,
    /// As counted by the library.
    pub subvolumes: u64,
    /// The problems that were kept.
    pub problems: Vec<Stayed>,
    /// How many there were of each kind: see [`Reason::word`](nodemend_rmtree::Reason::word).
    pub counts: Vec<(String, u64)>,
    /// The process's peak of resident memory.
    pub peak_kib: u64,
}

/// A problem.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stayed {
    /// At which path.
    pub path: OsString,
    /// What was tried.
    pub step: String,
    /// The kernel's error number.
    pub errno: Option<i32>,
    /// The word for the reason.
    pub reason: String,
    /// What more is said.
    pub detail: Option<String>,
}

/// The path of something 5,000 levels deep is shortened.
impl std::fmt::Debug for Stayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            step, errno, reason, ..
        } = self;
        let path = self.path.as_encoded_bytes();
        let (shown, rest) = path.split_at(path.len().min(200));
        write!(f, "{}", shown.escape_ascii())?;
        if !rest.is_empty() {
            write!(f, "... and {} bytes", rest.len())?;
        }
        write!(f, ": {step}: {errno:?}: {reason} ({:?})", self.detail)
    }
}

impl From<Problem> for Stayed {
    fn from(problem: Problem) -> Self {
        Self {
            step: problem.step.to_string(),
            errno: problem.error.map(rustix::io::Errno::raw_os_error),
            reason: problem.reason.word().to_owned(),
            detail: problem.detail,
            path: problem.path.into(),
        }
    }
}

/// Removes, and prints the outcome as one line of JSON.
///
/// # Errors
/// If a limit cannot be set, or nobody reads.
pub fn run(asked: &Remove) -> Result<ExitCode> {
    if let Some(files) = asked.open_files {
        setrlimit(Resource::RLIMIT_NOFILE, files, files).doing(|| "limit open files".to_owned())?;
    }
    let options = Options::default();
    let options = Options {
        keep_root: asked.keep_root,
        clear_flags: asked.clear_flags,
        subvolumes: asked.subvolumes,
        urgency: if asked.urgent {
            Urgency::Urgent
        } else {
            Urgency::Background
        },
        threads: asked.threads,
        open_dirs: asked.open_dirs,
        rescans: asked.rescans.unwrap_or(options.rescans),
        problems: asked.problems.unwrap_or(options.problems),
    };
    let mut outcome = match Tree::open(&asked.path) {
        Ok(tree) => Outcome::from(remove(tree, &options, &mut Brake::new(asked))),
        Err(error) => Outcome {
            refused: Some((name_of(&error).to_owned(), error.to_string())),
            ..Outcome::default()
        },
    };
    outcome.peak_kib = peak()?;
    let line = serde_json::to_string(&outcome).map_err(|error| LabError::Odd(error.to_string()))?;
    writeln!(std::io::stdout(), "{line}").doing(|| "print the outcome".to_owned())?;
    Ok(ExitCode::SUCCESS)
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Self {
        let end = match report.end {
            End::Gone => "gone",
            End::Left => "left",
            End::Stopped => "stopped",
            End::ReadOnly => "readOnly",
        };
        let words = report
            .counts
            .iter()
            .map(|(reason, count)| (reason.word().to_owned(), *count));
        Self {
            refused: None,
            end: end.to_owned(),
            files: report.removed.files,
            directories: report.removed.directories,
            subvolumes: report.removed.subvolumes,
            counts: words.collect(),
            problems: report.problems.into_iter().map(Stayed::from).collect(),
            peak_kib: 0,
        }
    }
}

fn name_of(error: &Error) -> &'static str {
    match error {
        Error::Io { .. } => "io",
        Error::Symlink { .. } => "symlink",
        Error::NotADirectory { .. } => "notADirectory",
        Error::NoName { .. } => "noName",
        Error::GoesUp { .. } => "goesUp",
        Error::Replaced { .. } => "replaced",
        Error::MountPoint { .. } => "mountPoint",
        Error::NoMountIdentity { .. } => "noMountIdentity",
        Error::Mounts(_) => "mounts",
    }
}

/// In KiB, from proc(5).
fn peak() -> Result<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).doing(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| LabError::Odd(format!("no VmHWM in {path}")))
}

/// Stops a run, or holds it until somebody says to go on.
struct Brake {
    pause_after: Option<u64>,
    stop_after: Option<u64>,
    /// What was removed at the last look.
    seen: Option<u64>,
    told: bool,
    go_on: Arc<AtomicBool>,
    removed: u64,
}

impl Brake {
    fn new(asked: &Remove) -> Self {
        Self {
            pause_after: asked.pause_after,
            stop_after: asked.stop_after,
            seen: None,
            told: false,
            go_on: Arc::new(AtomicBool::new(false)),
            removed: 0,
        }
    }

    /// Says that the run stands still, and begins to listen.
    fn tell(&mut self) {
        self.told = true;
        let _ = writeln!(std::io::stdout(), "{PAUSED}");
        let go_on = Arc::clone(&self.go_on);
        std::thread::spawn(move || {
            let _ = std::io::stdin().lock().read_line(&mut String::new());
            go_on.store(true, Ordering::Relaxed);
        });
    }
}

impl Observer for Brake {
    fn progress(&mut self, progress: &Progress) {
        self.removed = progress.removed.entries();
    }

    fn pace(&mut self) -> Pace {
        if self.stop_after.is_some_and(|limit| self.removed >= limit) {
            return Pace::Stop;
        }
        if self.pause_after.is_none_or(|limit| self.removed < limit) || self.go_on.load(Ordering::Relaxed) {
            return Pace::Go;
        }
        // Each thread first finishes what it has in hand: it stands still when two looks see the same.
        if self.seen.replace(self.removed) == Some(self.removed) && !self.told {
            self.tell();
        }
        Pace::Wait
    }
}
