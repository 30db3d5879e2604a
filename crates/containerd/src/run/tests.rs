//! Runs whose services are small scripts: what they leave behind when a step fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::state::tests::run as new_run;
use crate::steps::aside_tests::{fill, portrait, with_own_mount};

/// A root, a state directory, and services that write down what they are told.
struct Scene {
    _scratch: tempfile::TempDir,
    dir: PathBuf,
    state: StateDir,
    run: Run,
}

impl Scene {
    fn new(root: Option<&Path>, stop: &str, start: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().canonicalize().unwrap();
        let plain = dir.join("lib/containerd");
        if root.is_none() {
            std::fs::create_dir_all(&plain).unwrap();
            fill(&plain);
        }
        let path = root.map_or(plain, Path::to_owned);
        let mut run = new_run();
        run.begun = BootClock::new().unwrap().now();
        run.settings.socket = dir.join("none.sock");
        run.containerd.manager = Manager::Commands {
            stop: format!("echo stop >> {0}/log; {stop}", dir.display()),
            start: format!("echo start >> {0}/log; {start}", dir.display()),
        };
        run.root = OldRoot {
            id: RootId::at(&path).unwrap().unwrap(),
            own_mount: root.is_some(),
            entries: Vec::new(),
            path,
        };
        Self {
            state: StateDir::at(dir.join("state")),
            _scratch: scratch,
            dir,
            run,
        }
    }

    fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    fn go(
        &self,
        run: &Run,
        stopped: bool,
        how: impl Fn(Run, &Options, Tools<'_>) -> Result<Ended, Error>,
    ) -> Ended {
        let options = Options {
            ready_within: Duration::from_millis(300),
            ..Options::default()
        };
        let lock = self.state.lock().unwrap();
        let tools = Tools {
            lock: &lock,
            state: &self.state,
            stop: &AtomicBool::new(stopped),
            tell: &mut |_| {},
        };
        how(run.clone(), &options, tools).unwrap()
    }

    fn kept(&self) -> Run {
        RunFile::of(&self.state).load().unwrap().unwrap()
    }
}

#[test]
fn a_stop_that_fails_leaves_the_root_alone_and_the_services_running() {
    let scene = Scene::new(None, "exit 1", "true");
    let before = portrait(&scene.run.root.path);
    let ended = scene.go(&scene.run, false, forward);
    assert!(matches!(ended.end, End::Failed(Step::Stop, _)), "{:?}", ended.end);
    assert_eq!(scene.log(), ["stop", "start"]);
    assert_eq!(ended.back, ["containerd is started again"]);
    assert_eq!(scene.kept().course, Course::GaveUp);
    assert_eq!(portrait(&scene.run.root.path), before);
}

#[test]
fn a_database_that_stays_open_ends_the_run() {
    let scene = Scene::new(None, "true", "true");
    let root = &scene.run.root.path;
    let database = std::fs::File::open(root.join("io.containerd.metadata.v1.bolt/meta.db")).unwrap();
    database.lock().unwrap();
    let ended = scene.go(&scene.run, false, forward);
    let End::Failed(Step::Stop, error) = ended.end else {
        panic!("{:?}", ended.end);
    };
    assert!(error.to_string().contains("still locked"), "{error}");
    assert_eq!(
        scene.log(),
        ["stop"],
        "it runs, so it is not started a second time"
    );
}

#[test]
fn a_signal_before_anything_was_done_changes_nothing() {
    let scene = Scene::new(None, "true", "true");
    let ended = scene.go(&scene.run, true, forward);
    assert!(
        matches!(ended.end, End::Interrupted(Step::Stop)),
        "{:?}",
        ended.end
    );
    assert_eq!(scene.log(), Vec::<String>::new());
    assert_eq!(ended.run.course, Course::GaveUp);
}

/// containerd is started, and its CRI never answers.
fn fails_and_goes_back(scene: &Scene) {
    let root = &scene.run.root.path;
    let before = portrait(root);
    let ended = scene.go(&scene.run, false, forward);
    assert!(
        matches!(ended.end, End::Failed(Step::Start, _)),
        "{:?}",
        ended.end
    );
    assert_eq!(scene.log(), ["stop", "start"]);
    assert_eq!(ended.back, Vec::<String>::new(), "the node stays as it is");
    let kept = scene.kept();
    assert_eq!(kept.course, Course::Forward);
    assert!(kept.is_done(Step::SetAside) && !kept.is_done(Step::Start));
    assert!(kept.aside.as_ref().unwrap().is_dir());

    let ended = scene.go(&kept, false, roll_back);
    assert!(matches!(ended.end, End::Done), "{:?}", ended.end);
    assert_eq!(scene.log(), ["stop", "start", "stop", "start"]);
    assert_eq!(scene.kept().course, Course::RolledBack);
    if let Some(new) = &scene.kept().new_aside {
        std::fs::remove_dir_all(new).unwrap();
    }
    assert_eq!(portrait(root), before);

    let again = scene.go(&scene.kept(), false, roll_back);
    assert!(
        matches!(again.end, End::NotBack(_)),
        "there is nothing to roll back"
    );
    assert_eq!(portrait(root), before);
}

#[test]
fn a_start_that_fails_is_rolled_back_with_a_plain_root() {
    fails_and_goes_back(&Scene::new(None, "true", "true"));
}

#[test]
fn a_start_that_fails_is_rolled_back_with_a_root_that_is_a_mount_point() {
    with_own_mount(|root| fails_and_goes_back(&Scene::new(Some(root), "true", "true")));
}

#[test]
fn a_run_that_is_resumed_stops_the_services_again_before_it_touches_the_root() {
    let scene = Scene::new(None, "true", "true");
    let mut killed = scene.run.clone();
    for step in [Step::Stop, Step::Pods, Step::Unmount] {
        killed.begin(step, killed.begun.clone());
        killed.end(step, Vec::new(), killed.begun.clone());
    }
    let ended = scene.go(&killed, false, resume);
    assert!(
        matches!(ended.end, End::Failed(Step::Start, _)),
        "{:?}",
        ended.end
    );
    assert_eq!(scene.log(), ["stop", "start"]);
}
