//! Who keeps a mount busy.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long all processes together may take: a read of one that is stuck does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are named.
const NAMED: usize = 5;

/// Who holds something below a path, or through the mount of this id, in words.
pub(crate) fn of(path: &Path, mount: u64) -> String {
    let (tell, hear) = mpsc::channel();
    let place = path.to_owned();
    let looking = std::thread::Builder::new().name("holders".into()).spawn(move || {
        for pid in numbers("/proc") {
            if let Some(by) = held(pid, &place, mount) {
                let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
                let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
                if tell.send(format!("process {pid} ({comm}) by its {by}")).is_err() {
                    return;
                }
            }
        }
    });
    if looking.is_err() {
        return "a thread to look for its holders cannot be started".to_owned();
    }
    let until = std::time::Instant::now() + PATIENCE;
    let mut words = Vec::new();
    while words.len() < NAMED
        && let Ok(word) = hear.recv_timeout(until.saturating_duration_since(std::time::Instant::now()))
    {
        words.push(word);
    }
    match words.is_empty() {
        true => "nobody that can be seen".to_owned(),
        false => words.join(", "),
    }
}

/// By what a process holds it: `cwd`, `fd 7`.
fn held(pid: u32, path: &Path, mount: u64) -> Option<String> {
    let below = |link: String| std::fs::read_link(link).is_ok_and(|target| target.starts_with(path));
    let file = ["cwd", "root", "exe"]
        .into_iter()
        .find(|file| below(format!("/proc/{pid}/{file}")));
    if let Some(file) = file {
        return Some(file.to_owned());
    }
    numbers(&format!("/proc/{pid}/fd"))
        .into_iter()
        .find(|fd| through(pid, *fd) == Some(mount) || below(format!("/proc/{pid}/fd/{fd}")))
        .map(|fd| format!("fd {fd}"))
}

/// The mount of an open file. Its path is that of the process's own namespace; the mount id is not.
fn through(pid: u32, fd: u32) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

fn numbers(dir: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_open_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let _open = std::fs::File::create(dir.path().join("file")).unwrap();
        let said = of(dir.path(), u64::MAX);
        assert!(
            said.contains(&format!("process {} (", std::process::id())),
            "{said}"
        );
        assert!(said.contains("by its fd "), "{said}");
    }
}
