//! The flags that every tool has.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

/// The flags that every tool has. The default is the plan: nothing changes without `--apply`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Mend what the plan names. Without this, only the plan is printed
    #[arg(long, conflicts_with_all = ["dry_run", "replay"])]
    pub apply: bool,

    /// Answer yes to the question that --apply asks. Needed where there is no terminal
    #[arg(long, action = ArgAction::Count)]
    pub yes: u8,

    /// Print the plan and change nothing: the default
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// How the report is written to stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Refuse a plan that removes more than this many objects
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// The least age of an orphan (0s: any)
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub grace: Duration,

    /// The time between the two looks that an orphan must be seen in
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub settle: Duration,

    /// How long each source may take to answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,

    /// Ask this runtime and no other (repeatable). By default, every one that is found
    #[arg(long, value_name = "SOCKET")]
    pub runtime_endpoint: Vec<String>,

    /// Where this node's CNI configurations are. By default where the runtime says, else /etc/cni/net.d
    #[arg(long, value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,

    /// Where the journal, the lock and what can be undone are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nodemend")]
    pub state_dir: PathBuf,

    /// Exit with 3 if there is something to mend, with 5 if something is undecided
    #[arg(long)]
    pub detailed_exitcode: bool,

    /// Write what was read to FILE, to be judged elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,

    /// Judge what --record wrote, on any machine. Prints the plan only
    #[arg(long, value_name = "FILE")]
    pub replay: Option<PathBuf>,

    /// Read the files of another root, such as a mounted disk. Prints the plan only
    #[arg(long, value_name = "DIR", conflicts_with_all = ["apply", "replay"])]
    pub root: Option<PathBuf>,

    /// Colour in the text report
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub color: Color,

    /// Say more: every object in the text report; twice: what the tool does
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The two forms of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One document, `apiVersion: nodemend/v1`.
    Json,
}

/// When the text report has colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `CONTAINER_RUNTIME_ENDPOINT`, which crictl reads too.
pub fn environment_endpoint() -> Option<String> {
    std::env::var("CONTAINER_RUNTIME_ENDPOINT")
        .ok()
        .filter(|value| !value.is_empty())
}
