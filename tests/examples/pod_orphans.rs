//! From kubelet's log line to a clean log, as docs/mend-pods.md shows it: `cargo run -p nodemend-lab --example pod_orphans`.
//! Build the tool before: `cargo build -p mend-pods`.

use std::io::Write;

use nodemend_lab::kubelet::Era;
use nodemend_lab::pods::{Csi, PodScene, Volume};
use nodemend_lab::{LabError, Result};

fn main() -> Result<()> {
    let scene = PodScene::new()?;
    // A driver's record that outlived its mount: kubelet stumbles over it.
    let mut record = scene.orphan("shop-0")?;
    let leaf = record.volume("orders", &Volume::Csi(Csi::unstaged()))?;
    record.unmount(&leaf)?;
    record.logs("app")?;
    // Still mounted, with a block volume, scratch data and the only copy of something: kubelet's log is silent about it.
    let mut mounted = scene.orphan("shop-1")?;
    mounted.volume("photos", &Volume::Local)?;
    mounted.volume("scratch", &Volume::EmptyDir)?;
    mounted.volume("carts", &Volume::Csi(Csi::unmounted()))?;
    mounted.block_volume("queue")?;
    mounted.logs("app")?;

    log(&scene)?;
    run(&scene, "")?;
    run(&scene, "--apply --yes")?;
    log(&scene)?;
    run(&scene, "--purge --archive /var/backups --apply --yes")?;
    log(&scene)?;
    run(&scene, "")?;
    show(&scene, "mend-pods restore")?;
    let uid = &mounted.pod.uid;
    show(
        &scene,
        &format!("mend-pods restore {uid} --to /var/lib/kubelet/rescued"),
    )?;
    show(&scene, "find /var/lib/kubelet/rescued -type f")
}

/// What kubelet does in one round of cleaning, and says.
fn log(scene: &PodScene) -> Result<()> {
    let pass = scene.node.housekeeping(Era::V1_30)?;
    let log = pass.log.as_deref().unwrap_or("(nothing)");
    say(&format!("# journalctl -u kubelet\n{log}\n"))
}

/// The flags of a lab's node, which is seconds old, are left out of what is shown.
fn run(scene: &PodScene, flags: &str) -> Result<()> {
    scene
        .node
        .shell("mkdir -p /var/backups /var/lib/kubelet/rescued")?;
    let line = format!("{} --grace 0s --settle 0s {flags}", PodScene::TOOL);
    said(scene, &line, format!("mend-pods {flags}").trim_end())
}

fn show(scene: &PodScene, line: &str) -> Result<()> {
    said(scene, line, line)
}

fn said(scene: &PodScene, line: &str, shown: &str) -> Result<()> {
    let argv: Vec<&str> = line.split_whitespace().collect();
    let ran = scene.node.ran(&argv)?;
    say(&format!(
        "# {shown}\n{}{}[{}]\n",
        ran.stdout, ran.stderr, ran.code
    ))
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|source| LabError::Io {
        what: "write to stdout".to_owned(),
        source,
    })
}
