//! How long a tool takes to start, against `ip -V`.
//!
//! `cargo bench -p nodemend-lab --bench startup`

mod against;

use std::path::Path;
use std::process::Command;

use against::{Result, Turns};

fn main() -> Result<()> {
    let veth = against::release("mend-veth")?;
    let ipam = against::release("mend-ipam")?;
    let start = |program: &Path, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument);
        against::timed(command)
    };
    let lines = Turns::default()
        .way("ip -V", || start(Path::new("ip"), "-V"))
        .way("mend-veth --help", || start(&veth, "--help"))
        .way("mend-ipam --help", || start(&ipam, "--help"))
        .take(50)?;
    against::table("Start", &lines, lines[0].median);
    Ok(())
}
