//! How long the lab takes to make many pod directories: `cargo run -p nodemend-lab --example pod_crowd -- 10000`.

use std::io::Write;
use std::time::Instant;

use nodemend_lab::kubelet::{Kubelet, PODS};
use nodemend_lab::pods::PodCrowd;
use nodemend_lab::{Engine, LabError, Node, Options, Result};

fn main() -> Result<()> {
    let asked = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let pods: u32 = asked.unwrap_or(10_000);
    let node = Node::start(Options::on(Engine::StandIn))?;
    node.kubelet_disk(512 + u64::from(pods) / 16, Some(u64::from(pods) * 20 + 1000))?;
    node.start_kubelet(&Kubelet::default())?;
    let begun = Instant::now();
    node.pod_crowd(PodCrowd {
        pods,
        known: pods / 10,
        mounts_each: 5,
    })?;
    let made = begun.elapsed();
    let read = Instant::now();
    let mounts = node.mounts_below(PODS)?.len();
    let read = read.elapsed();
    let end = Instant::now();
    node.stop();
    let end = end.elapsed();
    let [made, read, end] = [made, read, end].map(|time| time.as_secs_f64());
    writeln!(
        std::io::stdout(),
        "{pods} pods with {mounts} mounts: made in {made:.2} s, table read in {read:.2} s, gone in {end:.2} s"
    )
    .map_err(|source| LabError::Io {
        what: "say the times".to_owned(),
        source,
    })
}
