//! The hidden subcommands: what the library re-executes inside a node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use nodemend_lab::hostile::remover::{self, Remove};
use nodemend_lab::inside::application;
use nodemend_lab::inside::detach::{self, Detach};
use nodemend_lab::inside::hold::{self, Hold};
use nodemend_lab::inside::{init, janitor, look};
use nodemend_lab::{LabError, Result, kubelet, pods, standin};

/// Parts of a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Inside {
    /// Wait for the owner's end, then clean up.
    #[command(hide = true)]
    Janitor {
        /// The cgroup to remove.
        #[arg(long)]
        cgroup: String,
        /// The tree to copy and boot.
        #[arg(long)]
        machine: Option<PathBuf>,
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
    /// Be the application of a pod.
    #[command(hide = true)]
    Application {
        port: u16,
        /// Not to end when asked to.
        #[arg(long)]
        stubborn: bool,
    },
    /// Keep a network namespace alive.
    #[command(hide = true)]
    Hold { way: String, netns: PathBuf },
    /// Clean up after pods, as kubelet of that era does.
    #[command(hide = true)]
    Housekeeping {
        era: String,
        /// For ever, at this interval in milliseconds.
        #[arg(long)]
        every: Option<u64>,
    },
    /// Mount a file system that answers nothing.
    #[command(hide = true)]
    Hang { at: PathBuf },
    /// Become a program with mounts of its own.
    #[command(hide = true)]
    Apart {
        #[arg(trailing_var_arg = true, required = true)]
        argv: Vec<String>,
    },
    /// Make many pod directories.
    #[command(hide = true)]
    PodCrowd { pods: u32, mounts_each: u32 },
    /// Look at containerd by the library.
    #[command(hide = true)]
    Look {
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Remove a tree by the library.
    #[command(hide = true)]
    Remove(Remove),
}

/// Does that part.
pub(crate) fn run(part: Inside) -> Result<ExitCode> {
    match part {
        Inside::Remove(asked) => return remover::run(&asked),
        Inside::Janitor { cgroup, machine } => janitor::run(&cgroup, machine.as_deref())?,
        Inside::Init => init::run()?,
        Inside::Application { port, stubborn } => application::run(port, stubborn)?,
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
        Inside::Housekeeping { era, every } => kubelet::keep_house(&era, every)?,
        Inside::Hang { at } => pods::hang_fuse(&at)?,
        Inside::Apart { argv } => pods::apart(&argv)?,
        Inside::Look { config } => look::run(config)?,
        Inside::PodCrowd { pods, mounts_each } => pods::make_crowd(pods, mounts_each)?,
    }
    Ok(ExitCode::SUCCESS)
}
