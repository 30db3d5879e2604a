//! The removal of the old root, as the last step starts it: a process of its own, with `mend-rm`'s questions and manners.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use nodemend_cli::Exit;
use nodemend_containerd::{Course, Removal, RemovalFiles, RunFile, Step, is_set_aside, status};
use nodemend_hostfs::StateDir;

/// Removes the old root of the last run. The report and the progress go to files, which `status` reads.
pub(crate) fn remove(state_dir: &Path) -> anyhow::Result<Exit> {
    let state = StateDir::at(state_dir);
    let run = RunFile::of(&state).load()?.context("there is no run")?;
    let begun = run.steps.iter().any(|record| record.step == Step::Remove);
    let forward = matches!(run.course, Course::Forward | Course::Mended);
    let Some(aside) = run.aside.clone().filter(|_| begun && forward) else {
        bail!("the run {} has no old root to remove", run.id);
    };
    if let Some(Removal::Running { pid, .. }) = status(&state)?.map(|status| status.removal) {
        bail!("process {pid} removes it already");
    }
    // The session that started it may end. One that leads its own already, as under systemd, cannot and need not.
    let _ = rustix::process::setsid();
    if !is_set_aside(&aside)? {
        bail!(
            "{}: was not set aside by this tool, whatever the file of the run says",
            aside.display()
        );
    }
    let files = RemovalFiles::of(&state, &run);
    let report = files.report.with_extension("json.new");
    rustix::stdio::dup2_stderr(fresh(&files.progress)?)?;
    rustix::stdio::dup2_stdout(fresh(&report)?)?;
    mend_rm::raise_open_files();
    let exit = mend_rm::run(&arguments(&aside, state_dir));
    fs::rename(&report, &files.report)?;
    Ok(exit)
}

fn arguments(aside: &Path, state_dir: &Path) -> mend_rm::Arguments {
    let mut line: Vec<PathBuf> = ["mend-rm", "--apply", "--yes", "--subvolumes"]
        .map(PathBuf::from)
        .to_vec();
    line.extend(["--output", "json", "--progress", "json", "--state-dir"].map(PathBuf::from));
    line.extend([state_dir.to_owned(), "--".into(), aside.to_owned()]);
    mend_rm::Arguments::parse_from(line)
}

fn fresh(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.mode(0o600).write(true).create(true).truncate(true);
    options
        .open(path)
        .with_context(|| format!("{}: cannot be created", path.display()))
}
