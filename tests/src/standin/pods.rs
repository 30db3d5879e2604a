//! The life of a sandbox: namespace, network, shim and pause, and back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use k8s_cri::v1::PodSandboxConfig;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::breakage::random_id;
use crate::error::{Doing, LabError, Result};
use crate::sandbox::random_uuid;
use crate::standin::chain::Chain;
use crate::standin::record::{Record, is_pause};
use crate::{runtime, tools};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a sandbox; its id.
pub(crate) fn run(config: PodSandboxConfig) -> Result<String> {
    let metadata = config.metadata.unwrap_or_default();
    let mut record = Record {
        id: random_id()?,
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        labels: config.labels,
        created_at: now(),
        netns: make_netns()?,
        ..Record::default()
    };
    record.save()?;
    if let Err(error) = bring_up(&mut record) {
        let _ = release_netns(&record.netns);
        record.forget();
        return Err(error);
    }
    Ok(record.id)
}

fn bring_up(record: &mut Record) -> Result<()> {
    let result = Chain::of(record)?.add().map_err(|error| {
        LabError::Odd(format!(
            "failed to setup network for sandbox \"{}\": {error}",
            record.id
        ))
    })?;
    record.ips = addresses(&result);
    record.pause = Some(start_shim(record)?);
    record.save()
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bare = |ip: &Value| ip["address"].as_str()?.split('/').next().map(str::to_owned);
    ips.iter().filter_map(bare).collect()
}

/// Under the path that containerd uses: `/var/run` is a link to `/run`.
fn make_netns() -> Result<PathBuf> {
    let dir = Path::new("/var/run/netns");
    fs::create_dir_all(dir).at("make", dir)?;
    let file = dir.join(format!("cni-{}", random_uuid()?));
    File::create(&file).at("make", &file)?;
    let up = Command::new("unshare")
        .arg(format!("--net={}", file.display()))
        .args(["ip", "link", "set", "lo", "up"])
        .output()
        .at("make namespace", &file)?;
    if up.status.success() {
        return Ok(file);
    }
    Err(LabError::Odd(format!(
        "no network namespace: {}",
        String::from_utf8_lossy(&up.stderr).trim()
    )))
}

fn release_netns(file: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let _ = umount2(file, MntFlags::MNT_DETACH);
    fs::remove_file(file).at("remove", file)
}

/// Starts the shim as an orphan, as containerd does, and waits for its pause.
fn start_shim(record: &Record) -> Result<u32> {
    let bundle = record.bundle();
    fs::create_dir_all(&bundle).at("make", &bundle)?;
    let config = bundle.join("config.json");
    fs::write(&config, specification(record).to_string()).at("write", &config)?;
    let lab = tools::lab_binary()?;
    let started = Command::new(&lab)
        .args(["detach", "--argv0", "/usr/bin/containerd-shim-runc-v2", "--"])
        .arg(&lab)
        .args([
            "-namespace",
            "k8s.io",
            "-id",
            &record.id,
            "-address",
            runtime::SOCKET,
        ])
        .output()
        .at("start shim with", &lab)?;
    if !started.status.success() {
        return Err(LabError::Odd(
            String::from_utf8_lossy(&started.stderr).into_owned(),
        ));
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let said = fs::read_to_string(bundle.join("init.pid")).unwrap_or_default();
        if let Some(pid) = said.parse().ok().filter(|pid| is_pause(*pid)) {
            return Ok(pid);
        }
        if Instant::now() > end {
            return Err(LabError::Odd(format!(
                "the shim of {} started no pause",
                record.id
            )));
        }
        sleep(Duration::from_millis(2));
    }
}

/// The part of an OCI specification that says whose it is and where its network is.
pub(crate) fn specification(record: &Record) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"args": ["/pause"]},
        "annotations": {
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": record.id,
            "io.kubernetes.cri.sandbox-name": record.name,
            "io.kubernetes.cri.sandbox-namespace": record.namespace,
            "io.kubernetes.cri.sandbox-uid": record.uid,
        },
        "linux": {"namespaces": [{"type": "network", "path": record.netns}]},
    })
}

/// Ends its processes and its network. A DEL that fails with "not found" counts as done, as in go-cni.
pub(crate) fn stop(id: &str) -> Result<()> {
    let Some(mut record) = Record::load(id) else {
        return Ok(());
    };
    if let Some(pause) = record.pause.filter(|pid| is_pause(*pid)) {
        end(pause)?;
    }
    if let Err(error) = Chain::of(&record)?.del() {
        let text = error.to_string();
        if !text.contains("not found") && !text.contains("no such file or directory") {
            return Err(LabError::Odd(format!(
                "failed to destroy network for sandbox \"{id}\": {text}"
            )));
        }
    }
    release_netns(&record.netns)?;
    record.stopped = true;
    record.save()
}

fn end(pause: u32) -> Result<()> {
    let pid = i32::try_from(pause).map_err(|_error| LabError::Odd(format!("no process id: {pause}")))?;
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let end = Instant::now() + PATIENCE;
    while is_pause(pause) {
        if Instant::now() > end {
            return Err(LabError::Odd(format!("pause {pause} does not end")));
        }
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Stops it if need be, and forgets it.
pub(crate) fn remove(id: &str) -> Result<()> {
    let Some(record) = Record::load(id) else {
        return Ok(());
    };
    if !record.stopped {
        stop(id)?;
    }
    let _ = fs::remove_dir_all(record.bundle());
    record.forget();
    Ok(())
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(0)
}
