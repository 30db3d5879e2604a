//! Measures looks at a full network: makes as many reservation files as asked for (65534 if not told) in a temporary
//! directory, and prints how long each look and a plan take. Changes nothing else.
//!
//! `cargo run --release -p nodemend-ipam --example look [files]`
#![allow(clippy::print_stdout, clippy::use_debug)]

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use nodemend_hostfs::Host;
use nodemend_ipam::{Policy, SurveyOptions, blocking, plan, usage};
use nodemend_runtime::Discovery;

fn main() -> Result<(), Box<dyn Error>> {
    let files: u32 = std::env::args()
        .nth(1)
        .map_or(Ok(65_534), |count| count.parse())?;
    let root = tempfile::tempdir()?;
    make(root.path(), files)?;
    let options = SurveyOptions {
        discovery: Discovery {
            flags: vec![root.path().join("no.sock").display().to_string()],
            environment: None,
        },
        deadline: Duration::from_secs(1),
        conf_dir: root.path().join("net.d"),
    };
    // Another root: only the files are read, no process, no namespace and no runtime.
    let alone = Host::at(root.path());
    let there = SurveyOptions {
        conf_dir: "/net.d".into(),
        ..options.clone()
    };
    for _ in 0..3 {
        let start = Watch::start();
        let found = blocking::survey(&alone, &there)?.reservations.len();
        println!("{found} files alone: {}", start.told());
    }
    let mut looks = Vec::new();
    for _ in 0..3 {
        let start = Watch::start();
        looks.push(blocking::survey(&Host::local(), &options)?);
        println!("a whole look: {}", start.told());
    }
    let start = Watch::start();
    let plan = plan(&looks[1], &looks[2], &Policy::default());
    println!("a plan of two looks: {}", start.told());
    for line in usage(&looks[2], &plan) {
        println!("{line}");
    }
    Ok(())
}

/// Time that passed, and the processors' time of all threads: on a busy machine only the second tells.
struct Watch(Instant, Duration);

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), processors())
    }

    fn told(&self) -> String {
        let (passed, used) = (self.0.elapsed(), processors() - self.1);
        format!(
            "{} ms, {} ms of the processors",
            passed.as_millis(),
            used.as_millis()
        )
    }
}

fn processors() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

fn make(root: &std::path::Path, files: u32) -> Result<(), Box<dyn Error>> {
    let dir = root.join("networks/big");
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(root.join("net.d"))?;
    // The same path inside and outside of the other root, so that both kinds of look find it.
    let data = root.join("networks");
    fs::create_dir_all(root.join(data.strip_prefix("/")?.parent().ok_or("no parent")?))?;
    std::os::unix::fs::symlink("/networks", root.join(data.strip_prefix("/")?))?;
    let conf = format!(
        r#"{{"cniVersion": "0.4.0", "name": "big", "plugins": [{{"type": "bridge", "ipam": {{"type": "host-local",
        "dataDir": "{}", "ranges": [[{{"subnet": "10.88.0.0/16"}}], [{{"subnet": "10.89.0.0/16"}}]]}}}}]}}"#,
        data.display()
    );
    fs::write(root.join("net.d/10-big.conflist"), conf)?;
    for n in 1..=files {
        let ip = std::net::Ipv4Addr::from_bits(0x0a58_0000 + n);
        fs::write(dir.join(ip.to_string()), format!("{n:064x}\r\neth0"))?;
    }
    Ok(())
}
