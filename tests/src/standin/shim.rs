//! The stand-in's shim: keeps one pause process, outlives its server, and is found by its command line as a real one is.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::error::{Doing, LabError, Result};
use crate::standin::PAUSE;
use crate::standin::record::BUNDLES;

/// The name by which the program knows that it is to be a shim.
pub const NAME: &str = "containerd-shim-runc-v2";

/// The shim's whole life: ends with its pause.
pub fn run() -> ExitCode {
    // The kernel cuts a real one's name at fifteen bytes, too.
    let _ = nix::sys::prctl::set_name(c"containerd-shim");
    let arguments: Vec<String> = std::env::args().collect();
    let id = arguments
        .windows(2)
        .find(|pair| pair[0] == "-id")
        .map(|pair| pair[1].clone());
    match keep_pause(&id.unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn keep_pause(id: &str) -> Result<()> {
    let bundle = Path::new(BUNDLES).join(id);
    let config = bundle.join("config.json");
    let text = fs::read_to_string(&config).at("read", &config)?;
    let config: Value = serde_json::from_str(&text).map_err(|error| LabError::Odd(error.to_string()))?;
    let netns = config["linux"]["namespaces"][0]["path"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    // From a thread of its own: the shim itself stays in the node's network.
    let spawned = std::thread::spawn(move || {
        let netns = Path::new(&netns);
        let target = File::open(netns).at("open", netns)?;
        setns(target, CloneFlags::CLONE_NEWNET).at("enter", netns)?;
        Command::new(PAUSE)
            .arg0("/pause")
            .current_dir("/")
            .process_group(0)
            .spawn()
            .at("start", Path::new(PAUSE))
    });
    let mut pause = spawned
        .join()
        .map_err(|_panic| LabError::Odd("the thread panicked".to_owned()))??;
    let file = bundle.join("init.pid");
    fs::write(&file, pause.id().to_string()).at("write", &file)?;
    pause.wait().doing(|| "wait for the pause".to_owned()).map(drop)
}
