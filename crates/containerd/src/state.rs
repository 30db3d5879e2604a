//! The file of a run: what it is about, and how far it is. Written before and after each step, so that a kill, a reboot or a
//! lost session loses nothing that the next run needs.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nodemend_hostfs::{Host, Moment, StateDir};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::healthz::Healthz;
use crate::identity::RootId;
use crate::look::ImageChoice;
use crate::service::Service;
use crate::settings::Settings;
use crate::steps::Step;

/// The version of [`Run`]: a file of another version is refused.
pub const RUN_VERSION: u32 = 1;

/// The most of the file that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// A run, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// [`RUN_VERSION`].
    pub version: u32,
    /// Its name: the time at which it began, and a pid.
    pub id: String,
    /// When it began.
    pub begun: Moment,
    /// Where it is going.
    pub course: Course,
    /// Where containerd lives.
    pub settings: Settings,
    /// containerd as a service.
    pub containerd: Service,
    /// kubelet as a service, if there is one.
    pub kubelet: Option<Service>,
    /// Where kubelet tells its health.
    pub healthz: Healthz,
    /// What ran before.
    pub before: Before,
    /// What becomes of running pods.
    pub pods: PodChoice,
    /// Which images are carried over into the new root.
    #[serde(default)]
    pub images: ImageChoice,
    /// The root as it was.
    pub root: OldRoot,
    /// Where the old root is, once it is set aside.
    pub aside: Option<PathBuf>,
    /// Where a new root is that was set aside by a roll-back.
    pub new_aside: Option<PathBuf>,
    /// When containerd had stopped: what is older may have lost its record.
    pub stopped: Option<Moment>,
    /// The steps that were begun, in order.
    pub steps: Vec<StepRecord>,
}

/// Where a run is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Course {
    /// Through the steps.
    Forward,
    /// Back to the old root.
    Back,
    /// All steps are done; the old root goes in the background.
    Mended,
    /// It ended before the root was touched, and the services are as they were.
    GaveUp,
    /// The old root is back.
    RolledBack,
}

impl Course {
    /// True if there is nothing more to do but the removal of the old root.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Mended | Self::GaveUp | Self::RolledBack)
    }
}

/// Which services ran before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    /// containerd, a crash loop included.
    pub containerd: bool,
    /// kubelet.
    pub kubelet: bool,
}

/// What becomes of running pods, whose records are lost with the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PodChoice {
    /// None runs.
    None,
    /// They run on, and nobody knows them (`--keep-pods`).
    Keep,
    /// They are ended (`--reap-pods`).
    Reap,
}

/// The root as it was when the run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldRoot {
    /// Where it is, links resolved.
    pub path: PathBuf,
    /// Which directory it is.
    pub id: RootId,
    /// True if something is mounted on it: then its entries are moved.
    pub own_mount: bool,
    /// Of a root that is a mount point of its own, what was in it.
    pub entries: Vec<Entry>,
}

/// An entry of a root that is a mount point of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its name.
    #[schemars(with = "String")]
    pub name: OsString,
    /// Its inode number.
    pub ino: u64,
}

/// A step that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Which.
    pub step: Step,
    /// When.
    pub begun: Moment,
    /// When it was done.
    pub done: Option<Moment>,
    /// What it did, a sentence each.
    pub said: Vec<String>,
}

impl Run {
    /// Whether a step is done.
    pub fn is_done(&self, step: Step) -> bool {
        let mut records = self.steps.iter();
        records.any(|record| record.step == step && record.done.is_some())
    }

    /// Notes that a step begins. What an earlier try noted of it is forgotten.
    pub(crate) fn begin(&mut self, step: Step, now: Moment) {
        self.steps.retain(|record| record.step != step);
        self.steps.push(StepRecord {
            step,
            begun: now,
            done: None,
            said: Vec::new(),
        });
    }

    /// Notes that a step is done.
    pub(crate) fn end(&mut self, step: Step, said: Vec<String>, now: Moment) {
        if let Some(record) = self.steps.iter_mut().find(|record| record.step == step) {
            record.done = Some(now);
            record.said = said;
        }
    }

    /// Forgets what no longer holds when a run is taken up again: as long as the root has not been set aside, somebody, or
    /// the boot, may have started the services and mounted things meanwhile. Those steps find out what is left to do.
    pub(crate) fn reconsider(&mut self) {
        if !self.is_done(Step::SetAside) {
            self.steps.retain(|record| record.step <= Step::Look);
        }
    }
}

/// Where the run is remembered.
#[derive(Clone, Debug)]
pub struct RunFile {
    dir: PathBuf,
    path: PathBuf,
}

impl RunFile {
    /// In a state directory.
    pub fn of(state: &StateDir) -> Self {
        Self {
            dir: state.path().to_owned(),
            path: state.path().join("containerd-run.json"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run of the file. None if there is no file.
    ///
    /// # Errors
    /// If it cannot be read, is no run, or one of another version.
    pub fn load(&self) -> Result<Option<Run>, Error> {
        let bytes = match Host::local().read(&self.path, LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        parse(&bytes).map(Some).map_err(|reason| Error::RunFile {
            path: self.path.clone(),
            reason,
        })
    }

    /// Writes it down, all or nothing, and waits until the disk has it.
    ///
    /// # Errors
    /// If it cannot be written: then the step must not happen.
    pub fn save(&self, run: &Run) -> Result<(), Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(Error::io("create directory", &self.dir))?;
        let bytes = serde_json::to_vec_pretty(run).map_err(|error| Error::RunFile {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        let new = self.path.with_extension("json.new");
        let mut options = OpenOptions::new();
        options.mode(0o600).write(true).create(true).truncate(true);
        let mut file = options.open(&new).map_err(Error::io("create", &new))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", &new))?;
        fs::rename(&new, &self.path).map_err(Error::io("rename", &self.path))?;
        // Before the step: a run that the power cut off must not find the file of before.
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("sync", &self.dir))
    }
}

/// The version comes first: what follows may have another form.
fn parse(bytes: &[u8]) -> Result<Run, String> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let helpless = "move it away to begin afresh; what was set aside is found with mend-rm --resume";
    let head: Head = serde_json::from_slice(bytes)
        .map_err(|error| format!("is no file of a run ({error}); {helpless}"))?;
    if head.version != RUN_VERSION {
        return Err(format!(
            "is of version {}, and this tool knows version {RUN_VERSION}: use the mend-containerd that wrote it",
            head.version
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("cannot be understood ({error}); {helpless}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::service::Manager;
    use crate::settings::Origin;

    /// A run that has just begun.
    pub(crate) fn run() -> Run {
        let service = Service {
            name: "containerd".to_owned(),
            manager: Manager::Systemd,
        };
        let begun = Moment {
            boot_id: "this boot".to_owned(),
            since_boot: 100,
            unix: 1_700_000_000,
        };
        let mut run = Run {
            version: RUN_VERSION,
            id: "2026-01-01T00-00-00Z-1".to_owned(),
            begun: begun.clone(),
            course: Course::Forward,
            settings: Settings {
                config: None,
                root: "/var/lib/containerd".into(),
                state: "/run/containerd".into(),
                socket: "/run/containerd/containerd.sock".into(),
                program: "/usr/bin/containerd".into(),
                origin: Origin::Default,
                elsewhere: Vec::new(),
                cri_disabled: false,
            },
            containerd: service,
            kubelet: None,
            healthz: Healthz::Off,
            before: Before {
                containerd: true,
                kubelet: false,
            },
            pods: PodChoice::None,
            images: ImageChoice::None,
            root: OldRoot {
                path: "/var/lib/containerd".into(),
                id: RootId {
                    dev: 1,
                    ino: 2,
                    born: None,
                },
                own_mount: false,
                entries: vec![Entry {
                    name: "odd\nname".into(),
                    ino: 7,
                }],
            },
            aside: None,
            new_aside: None,
            stopped: None,
            steps: Vec::new(),
        };
        run.begin(Step::Look, begun.clone());
        run.end(Step::Look, Vec::new(), begun);
        run
    }

    fn file() -> (tempfile::TempDir, RunFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = RunFile::of(&StateDir::at(dir.path().join("state")));
        (dir, file)
    }

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let (_dir, file) = file();
        assert_eq!(file.load().unwrap(), None);
        file.save(&run()).unwrap();
        assert_eq!(file.load().unwrap(), Some(run()));
    }

    #[test]
    fn a_write_that_was_torn_leaves_the_run_of_before() {
        let (_dir, file) = file();
        file.save(&run()).unwrap();
        fs::write(file.path.with_extension("json.new"), "{\"version\": 1, \"id\"").unwrap();
        assert_eq!(file.load().unwrap(), Some(run()));
        let mut later = run();
        later.course = Course::Back;
        file.save(&later).unwrap();
        assert_eq!(file.load().unwrap(), Some(later));
    }

    #[test]
    fn a_file_that_is_cut_or_of_another_version_is_refused_with_what_to_do() {
        let (_dir, file) = file();
        file.save(&run()).unwrap();
        let whole = fs::read(&file.path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&file.path, &whole[..length]).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("move it away"), "{length}: {error}");
        }
        fs::write(&file.path, "{\"version\": 2}").unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("is of version 2"), "{error}");
    }

    #[test]
    fn what_the_boot_may_have_undone_is_done_again() {
        let done = |run: &mut Run, step| {
            run.begin(step, run.begun.clone());
            run.end(step, Vec::new(), run.begun.clone());
        };
        let mut early = run();
        done(&mut early, Step::Stop);
        done(&mut early, Step::Unmount);
        early.reconsider();
        assert!(early.is_done(Step::Look) && !early.is_done(Step::Stop) && !early.is_done(Step::Unmount));
        let mut late = run();
        done(&mut late, Step::Stop);
        done(&mut late, Step::SetAside);
        late.reconsider();
        assert!(late.is_done(Step::Stop) && late.is_done(Step::SetAside));
    }
}
