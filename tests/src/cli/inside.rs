//! The hidden subcommands: what the library re-executes inside a node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use nodemend_lab::hostile::remover::{self, Remove};
use nodemend_lab::inside::detach::{self, Detach};
use nodemend_lab::inside::hold::{self, Hold};
use nodemend_lab::inside::{init, janitor};
use nodemend_lab::{LabError, Result, standin};

/// Parts of a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Inside {
    /// Wait for the owner's end, then clean up.
    #[command(hide = true)]
    Janitor {
        /// The cgroup to remove.
        #[arg(long)]
        cgroup: String,
    },
    /// Be a node's first process.
    #[command(hide = true)]
    Init,
    /// Start a process that stays.
    #[command(hide = true)]
    Detach {
        #[arg(long)]
        log: Option<PathBuf>,
        #[arg(long)]
        net: Option<PathBuf>,
        #[arg(long)]
        argv0: Option<String>,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Be the stand-in for a runtime.
    #[command(hide = true)]
    CriServer,
    /// Keep a network namespace alive.
    #[command(hide = true)]
    Hold { way: String, netns: PathBuf },
    /// Remove a tree by the library.
    #[command(hide = true)]
    Remove(Remove),
}

/// Does that part.
pub(crate) fn run(part: Inside) -> Result<ExitCode> {
    match part {
        Inside::Remove(asked) => return remover::run(&asked),
        Inside::Janitor { cgroup } => janitor::run(&cgroup)?,
        Inside::Init => init::run()?,
        Inside::CriServer => standin::run()?,
        Inside::Detach {
            log,
            net,
            argv0,
            argv,
        } => detach::run(&Detach {
            log,
            net,
            argv0,
            argv,
        })?,
        Inside::Hold { way, netns } => {
            let known = Hold::named(&way).ok_or_else(|| LabError::Odd(format!("no way to hold: {way}")))?;
            hold::run(known, &netns)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
