//! What else is worth knowing before anything is done.

use nodemend_hostfs::Spoken;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::{self, Health};
use super::journal::Journal;
use super::{Database, Lock, Look, LookOptions, RootFacts};
use crate::service::ServiceState;

/// File systems on which a rename and a removal go over a network, or through a process that may not answer.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "fuse"];

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A sentence.
    pub text: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It breaks containerd.
    Fault,
    /// It bears on what is to be done.
    Warning,
    /// Good to know.
    Note,
}

impl Finding {
    fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self {
            severity,
            text: text.into(),
        }
    }

    pub(super) fn warning(text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, text)
    }

    fn note(text: impl Into<String>) -> Self {
        Self::new(Severity::Note, text)
    }

    fn fault(text: impl Into<String>) -> Self {
        Self::new(Severity::Fault, text)
    }
}

/// Adds to a look what its parts tell, the worst first.
pub(super) fn add(look: &mut Look, journal: &Result<Journal, String>, options: &LookOptions) {
    let mut found = std::mem::take(&mut look.findings);
    found.extend(of_configuration(look, options));
    found.extend(of_service(&look.containerd));
    found.extend(
        look.databases
            .iter()
            .flat_map(|database| of_database(database, &look.containerd)),
    );
    found.extend(look.root.iter().flat_map(of_root));
    found.extend(of_journal(journal, &look.health));
    // What decided is not told twice.
    let why = look.health.why();
    found.retain(|finding| !why.iter().any(|reason| reason.ends_with(&finding.text)));
    found.sort_by_key(|finding| finding.severity);
    look.findings = found;
}

fn of_configuration(look: &Look, options: &LookOptions) -> Vec<Finding> {
    let settings = &look.settings;
    let mut found = Vec::new();
    if let Some(given) = options
        .config
        .as_ref()
        .filter(|given| settings.config.as_ref() != Some(*given))
    {
        let used = settings
            .config
            .as_ref()
            .map_or("none".into(), |path| path.display().to_string());
        found.push(Finding::warning(format!(
            "containerd runs with another configuration ({used}) than {}, which was given: the running one counts",
            given.display()
        )));
    }
    for moved in &settings.elsewhere {
        found.push(Finding::warning(format!(
            "{} keeps its data outside of the root, at {}: a new root does not know it, and it stays as it is",
            moved.plugin,
            moved.path.display()
        )));
    }
    found
}

fn of_service(service: &ServiceState) -> Option<Finding> {
    match service.kill_mode.as_deref()? {
        "process" => Some(Finding::note(
            "a stop of the unit leaves the shims and all containers running (KillMode=process)",
        )),
        mode => Some(Finding::warning(format!(
            "a stop of the unit also ends the shims that it started, and their containers (KillMode={mode})"
        ))),
    }
}

fn of_database(database: &Database, service: &ServiceState) -> Vec<Finding> {
    let path = database.path.display();
    let mut found = Vec::new();
    if !database.faults.is_empty() {
        found.push(Finding::fault(format!(
            "{path} is corrupt: {}",
            database.faults.join("; ")
        )));
    } else {
        let bad = database
            .pages
            .iter()
            .filter_map(|page| Some((page.number, page.fault.as_ref()?)));
        found.extend(bad.map(|(number, fault)| {
            Finding::note(format!(
                "{path}: {fault} (meta page {number}); bbolt uses the other one"
            ))
        }));
    }
    if let Some(reason) = &database.unread {
        found.push(Finding::warning(format!("{path} cannot be looked at: {reason}")));
    }
    if let Lock::Held(pid) = database.lock
        && service.main_pid != Some(pid)
    {
        found.push(Finding::warning(format!(
            "process {pid} holds the lock of {path}, and is not the main process of containerd"
        )));
    }
    found
}

fn of_root(root: &RootFacts) -> Vec<Finding> {
    let path = root.path.display();
    let mut found = Vec::new();
    if root.free_inodes == Some(0) {
        found.push(Finding::fault(format!(
            "{path}: its file system has no free inode"
        )));
    } else if let Some((free, all)) = root.free_inodes.zip(root.total_inodes)
        && free < all / 100
    {
        found.push(Finding::warning(format!(
            "{path}: its file system has only {free} of {all} inodes free"
        )));
    }
    if root.free_bytes == 0 {
        found.push(Finding::fault(format!("{path}: its file system is full")));
    } else if root.free_bytes < root.total_bytes / 100 {
        found.push(Finding::warning(format!(
            "{path}: its file system has less than 1 % free"
        )));
    }
    if root.is_mount_point {
        found.push(Finding::note(format!(
            "{path} is a mount point: it cannot be renamed, only emptied"
        )));
    }
    let kind = root.filesystem.split('.').next().unwrap_or_default();
    if REMOTE.contains(&kind) {
        found.push(Finding::warning(format!(
            "{path} lies on {}, which may not answer",
            root.filesystem
        )));
    }
    found
}

/// What it died of is among the reasons of a broken one.
fn of_journal(journal: &Result<Journal, String>, health: &Health) -> Vec<Finding> {
    match (journal, health) {
        (Err(reason), _) => vec![Finding::note(format!("its journal tells nothing: {reason}"))],
        (Ok(_), Health::Broken { .. }) => Vec::new(),
        (Ok(journal), Health::Healthy { .. } | Health::Unknown { .. }) => {
            let window = Spoken(super::journal::WINDOW.as_secs());
            let deaths = journal.deaths.iter().map(health::death);
            deaths
                .map(|death| Finding::warning(format!("in the last {window}: {death}")))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::FileId;

    use super::*;
    use crate::look::MetaPage;

    fn texts(found: impl IntoIterator<Item = Finding>) -> Vec<(Severity, String)> {
        found
            .into_iter()
            .map(|finding| (finding.severity, finding.text))
            .collect()
    }

    fn root(filesystem: &str, free_bytes: u64, free_inodes: Option<u64>) -> RootFacts {
        RootFacts {
            path: "/d".into(),
            id: FileId::default(),
            mount_id: 1,
            is_mount_point: false,
            filesystem: filesystem.into(),
            owner: (0, 0),
            mode: 0o711,
            selinux: None,
            free_bytes,
            total_bytes: 1 << 30,
            free_inodes,
            total_inodes: free_inodes.map(|_| 1000),
        }
    }

    #[test]
    fn a_full_disk_is_told_before_anybody_wipes_for_it() {
        assert_eq!(texts(of_root(&root("ext4", 1 << 29, Some(500)))), []);
        let full = texts(of_root(&root("xfs", 0, Some(0))));
        assert!(
            full.len() == 2 && full.iter().all(|(severity, _)| *severity == Severity::Fault),
            "{full:?}"
        );
        let nearly = texts(of_root(&root("fuse.sshfs", 1 << 20, Some(9))));
        assert!(
            nearly.len() == 3 && nearly.iter().all(|(severity, _)| *severity == Severity::Warning),
            "{nearly:?}"
        );
        assert_eq!(texts(of_root(&root("btrfs", 1 << 29, None))), []);
    }

    #[test]
    fn a_lock_of_another_process_and_a_bad_page_are_told() {
        let database = Database {
            path: "/d/meta.db".into(),
            size: Some(16_384),
            pages: vec![MetaPage {
                number: 1,
                fault: Some("its checksum is wrong".into()),
                transaction: None,
            }],
            faults: vec![],
            unread: None,
            lock: Lock::Held(9),
        };
        let service = |pid| ServiceState {
            main_pid: Some(pid),
            ..ServiceState::default()
        };
        let note = (
            Severity::Note,
            "/d/meta.db: its checksum is wrong (meta page 1); bbolt uses the other one".to_owned(),
        );
        assert_eq!(texts(of_database(&database, &service(9))), [note]);
        assert_eq!(texts(of_database(&database, &service(7))).len(), 2);
    }

    #[test]
    fn what_a_stop_does_to_the_pods_is_told() {
        let state = |mode: &str| ServiceState {
            kill_mode: Some(mode.into()),
            ..ServiceState::default()
        };
        assert_eq!(texts(of_service(&state("process")))[0].0, Severity::Note);
        assert_eq!(texts(of_service(&state("control-group")))[0].0, Severity::Warning);
        assert!(of_service(&ServiceState::default()).is_none());
    }
}
