//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use nodemend_cli::{Color, EXIT_CODES, Output, environment_endpoint};
use nodemend_containerd::{ImageChoice, LookOptions, Manager, Order, PodChoice, Service};
use nodemend_runtime::Discovery;

/// Bring a node back whose containerd does not come up: set its root aside, start it on a new one, clear what the pods leave
/// behind, and remove the old root in the background.
///
/// Without --apply nothing changes: the plan is printed, with what was found and how long each step takes. A run that was
/// killed is gone on with by --resume, or undone by --roll-back as long as the old root is there.
#[derive(Parser, Clone, Debug)]
#[command(name = "mend-containerd", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Something else than a run
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Do what the plan says. Without this, only the plan is printed
    #[arg(long, conflicts_with = "dry_run")]
    pub apply: bool,

    /// Answer yes to the question that --apply asks. Needed where there is no terminal
    #[arg(long, action = ArgAction::Count)]
    pub yes: u8,

    /// Print the plan and change nothing: the default
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// End the running pods, whose records are lost with the root. kubelet starts them anew
    #[arg(long, conflicts_with = "keep_pods")]
    pub reap_pods: bool,

    /// Let the running pods run on. Nobody knows them then, and kubelet starts each a second time
    #[arg(long)]
    pub keep_pods: bool,

    /// Carry all images over that are whole, so that none must be pulled
    #[arg(long, conflicts_with_all = ["keep_images", "resume", "roll_back"])]
    pub keep_content: bool,

    /// Carry these images over, by their exact names (`crictl images`), separated by commas. May be given more than once
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with_all = ["resume", "roll_back"])]
    pub keep_images: Vec<String>,

    /// Go on although containerd works, or nobody can tell
    #[arg(long)]
    pub even_if_healthy: bool,

    /// Go on with the last run
    #[arg(long, conflicts_with = "roll_back")]
    pub resume: bool,

    /// Undo the last run: put the old root back
    #[arg(long)]
    pub roll_back: bool,

    /// containerd's configuration, if it is not the one of its process or unit
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// containerd's unit
    #[arg(long, value_name = "UNIT", default_value = "containerd.service")]
    pub unit: String,

    /// kubelet's unit
    #[arg(long, value_name = "UNIT", default_value = "kubelet.service")]
    pub kubelet_unit: String,

    /// Where there is no systemd: the shell command that stops kubelet and containerd, in this order
    #[arg(long, value_name = "COMMAND", requires = "start_command")]
    pub stop_command: Option<String>,

    /// Where there is no systemd: the shell command that starts containerd and kubelet
    #[arg(long, value_name = "COMMAND", requires = "stop_command")]
    pub start_command: Option<String>,

    /// How long each source may take to answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,

    /// How long containerd and kubelet, each, may take until they answer
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    pub ready_timeout: Duration,

    /// How the report is written to stdout
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,

    /// Exit with 3 if there is something to mend and it was not asked for
    #[arg(long)]
    pub detailed_exitcode: bool,

    /// Where the file of the run, the lock and the journal are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nodemend", global = true)]
    pub state_dir: PathBuf,

    /// Colour in the text report
    #[arg(long, value_enum, default_value_t = Color::Auto, global = true)]
    pub color: Color,

    /// Say more: everything that was found; twice: what the tool does
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// Something else than a run.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Say how far the last run is, and the removal of the old root
    Status,
    /// Remove the old root of the last run: what the last step starts in the background
    #[command(hide = true)]
    RemoveOldRoot,
}

impl Arguments {
    /// containerd and kubelet as services. Commands are for both.
    pub(crate) fn services(&self) -> (Service, Option<Service>) {
        if let (Some(stop), Some(start)) = (self.stop_command.clone(), self.start_command.clone()) {
            let service = Service {
                name: "containerd".to_owned(),
                manager: Manager::Commands { stop, start },
            };
            return (service, None);
        }
        let unit = |name: &str| Service {
            name: name.to_owned(),
            manager: Manager::Systemd,
        };
        (unit(&self.unit), Some(unit(&self.kubelet_unit)))
    }

    pub(crate) fn look(&self) -> LookOptions {
        let (containerd, kubelet) = self.services();
        LookOptions {
            config: self.config.clone(),
            containerd,
            kubelet,
            deadline: self.timeout,
            images: self.images() != ImageChoice::None,
            ..LookOptions::default()
        }
    }

    fn images(&self) -> ImageChoice {
        match (self.keep_content, self.keep_images.is_empty()) {
            (true, _) => ImageChoice::All,
            (false, false) => ImageChoice::Named(self.keep_images.clone()),
            (false, true) => ImageChoice::None,
        }
    }

    pub(crate) fn order(&self) -> Order {
        let keep = self.keep_pods.then_some(PodChoice::Keep);
        Order {
            pods: keep.or(self.reap_pods.then_some(PodChoice::Reap)),
            images: self.images(),
            even_if_healthy: self.even_if_healthy,
            state_dir: self.state_dir.clone(),
        }
    }

    pub(crate) fn options(&self) -> anyhow::Result<nodemend_containerd::Options> {
        let program = std::env::current_exe()?;
        let state_dir = std::path::absolute(&self.state_dir)?;
        Ok(nodemend_containerd::Options {
            remover: vec![
                program.into(),
                "remove-old-root".into(),
                "--state-dir".into(),
                state_dir.into(),
            ],
            ready_within: self.ready_timeout,
            deadline: self.timeout,
            discovery: Discovery {
                flags: Vec::new(),
                environment: environment_endpoint(),
            },
            ..nodemend_containerd::Options::default()
        })
    }
}
