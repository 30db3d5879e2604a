//! The command line.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};
use nodemend_cli::{Color, EXIT_CODES, Output};
use nodemend_rmtree::{Options, Urgency};

/// Remove directory trees, however large, without ever leaving them: not through a mount, not through a symlink.
///
/// Without --apply nothing changes: the plan is printed, with what is mounted in each tree, who uses it, and how long its
/// removal takes. A tree that a running containerd, dockerd, cri-o or kubelet works in is refused.
#[derive(Parser, Clone, Debug)]
#[command(name = "mend-rm", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The directories to remove, each without a symlink in its path
    #[arg(
        value_name = "PATH",
        required_unless_present = "resume",
        conflicts_with = "resume"
    )]
    pub paths: Vec<PathBuf>,

    /// Remove what the plan names. Without this, only the plan is printed
    #[arg(long, conflicts_with = "dry_run")]
    pub apply: bool,

    /// Answer yes to the question that --apply asks. Needed where there is no terminal
    #[arg(long, action = ArgAction::Count)]
    pub yes: u8,

    /// Print the plan and change nothing: the default
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Rename each tree first, so that its name is free at once, then remove it
    #[arg(long, conflicts_with_all = ["resume", "keep_root"])]
    pub set_aside: bool,

    /// Go on with the trees that were set aside in DIR, and whose removal did not come to its end
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,

    /// Empty each directory and leave it in place
    #[arg(long, conflicts_with = "resume")]
    pub keep_root: bool,

    /// Take the immutable and append-only flags off what they protect
    #[arg(long)]
    pub clear_flags: bool,

    /// Destroy btrfs subvolumes and snapshots in the trees, read-only ones too
    #[arg(long)]
    pub subvolumes: bool,

    /// Leave what is mounted in the trees, and the directories that lead there
    #[arg(long)]
    pub skip_mounts: bool,

    /// Work as fast as the disk can, also at the cost of others. By default others come first (idle I/O class, nice
    /// 19, half of the threads)
    #[arg(long)]
    pub urgent: bool,

    /// The most threads that work at once. By default what suits the file system
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZero<usize>>,

    /// Pause while processes wait for I/O for more than this share of the last second, waiting caused by the removal included
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub max_io_pressure: Option<u8>,

    /// How progress is shown on stderr
    #[arg(long, value_enum, default_value_t = ProgressForm::Auto)]
    pub progress: ProgressForm,

    /// How the report is written to stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Exit with 3 if there is something to remove and it was not asked for
    #[arg(long)]
    pub detailed_exitcode: bool,

    /// Where the journal is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nodemend")]
    pub state_dir: PathBuf,

    /// Colour in the text report
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub color: Color,

    /// Say more: everything that was found in the text report; twice: what the tool does
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressForm {
    /// One line on a terminal, nothing elsewhere.
    Auto,
    /// Nothing.
    None,
    /// One JSON object a line, about once a second.
    Json,
}

impl Arguments {
    /// What the removal is told.
    pub(crate) fn options(&self) -> Options {
        Options {
            keep_root: self.keep_root,
            clear_flags: self.clear_flags,
            subvolumes: self.subvolumes,
            urgency: if self.urgent {
                Urgency::Urgent
            } else {
                Urgency::Background
            },
            threads: self.threads,
            ..Options::default()
        }
    }
}
