//! A run through the steps: each is noted before and after, checked, and may be done again.

use std::sync::atomic::{AtomicBool, Ordering};

use nodemend_hostfs::{BootClock, HostLock, Journal, Moment, StateDir};
use serde::Serialize;

use crate::error::Error;
use crate::identity::RootId;
use crate::look::{ImageChoice, Look};
use crate::options::Options;
use crate::service::{Manager, Service};
use crate::state::{Before, Course, OldRoot, PodChoice, RUN_VERSION, Run, RunFile, StepRecord};
use crate::steps::{Step, aside, images, leftovers, own_mount, removal, services, unmount};

/// What a run needs besides the file of the run.
pub struct Tools<'a> {
    /// The lock of the node, held for the whole run.
    pub lock: &'a HostLock,
    /// Where the file of the run, the journal and what can be undone are kept.
    pub state: &'a StateDir,
    /// Set by a signal: the step in hand is finished.
    pub stop: &'a AtomicBool,
    /// Told before and after each step.
    pub tell: &'a mut dyn FnMut(&StepRecord),
}

/// How a run, or a part of one, ended.
#[derive(Debug)]
pub enum End {
    /// All steps are done, or the old root is back.
    Done,
    /// A signal came before this step.
    Interrupted(Step),
    /// This step failed.
    Failed(Step, Error),
    /// The roll-back failed, or may not be.
    NotBack(Error),
}

/// What became of a run.
#[derive(Debug)]
pub struct Ended {
    /// The run, as its file has it.
    pub run: Run,
    /// How it ended.
    pub end: End,
    /// What became of the root and the services, if the run brought them back to what they were.
    pub back: Vec<String>,
}

/// One line of the journal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    tool: &'static str,
    run: &'a str,
    action: String,
    at: Moment,
    root: &'a OldRoot,
    aside: &'a Option<std::path::PathBuf>,
}

/// A run that begins: the look has been taken, and judged. Nothing is written yet.
///
/// # Errors
/// If there is no root.
pub fn begin(
    id: String,
    look: &Look,
    services: (Service, Option<Service>),
    pods: PodChoice,
    images: ImageChoice,
) -> Result<Run, Error> {
    let now = BootClock::new()?.now();
    let root = look
        .root
        .as_ref()
        .ok_or_else(|| Error::Unfit(format!("{}: is not there", look.settings.root.display())))?;
    let root_id =
        RootId::at(&root.path)?.filter(|found| (found.dev, found.ino) == (root.id.dev, root.id.ino));
    let changed = || Error::Unfit(format!("{}: changed since the look", root.path.display()));
    let (containerd, kubelet) = services;
    let by_command = matches!(containerd.manager, Manager::Commands { .. });
    let mut run = Run {
        version: RUN_VERSION,
        id,
        begun: now.clone(),
        course: Course::Forward,
        settings: look.settings.clone(),
        containerd,
        kubelet: kubelet.filter(|_| look.kubelet.as_ref().is_some_and(|state| !state.is_absent())),
        healthz: look.healthz.clone(),
        before: Before {
            // Nobody tells whether what a command starts was meant to run: the operator who gives one wants it to.
            containerd: by_command || look.containerd.is_up(),
            kubelet: look.kubelet.as_ref().is_some_and(|kubelet| kubelet.is_up()),
        },
        pods,
        images,
        root: OldRoot {
            path: root.path.clone(),
            id: root_id.ok_or_else(changed)?,
            own_mount: root.is_mount_point,
            entries: Vec::new(),
        },
        aside: None,
        new_aside: None,
        stopped: None,
        steps: Vec::new(),
    };
    run.begin(Step::Look, now.clone());
    run.end(Step::Look, Vec::new(), now);
    Ok(run)
}

/// Goes through the steps that are not done.
///
/// A step that fails before the root is touched ends the run: the services are brought back to what they were. After it, the
/// run stays as it is: it can be resumed or rolled back.
///
/// # Errors
/// If nothing could be begun: the clock or the journal.
pub fn forward(mut run: Run, options: &Options, mut tools: Tools<'_>) -> Result<Ended, Error> {
    let mut work = Work::new(&mut tools)?;
    run.reconsider();
    run.course = Course::Forward;
    for step in Step::ALL {
        if run.is_done(step) {
            continue;
        }
        if work.tools.stop.load(Ordering::Relaxed) {
            return Ok(work.give_up(run, options, End::Interrupted(step)));
        }
        if let Err(error) = work.step(&mut run, step, options) {
            return Ok(work.give_up(run, options, End::Failed(step, error)));
        }
    }
    run.course = Course::Mended;
    work.save(&run)?;
    Ok(Ended::of(run, End::Done))
}

/// Goes on with a run, in the direction in which it went; or starts the removal of the old root again.
///
/// # Errors
/// As [`forward`].
pub fn resume(mut run: Run, options: &Options, tools: Tools<'_>) -> Result<Ended, Error> {
    match run.course {
        Course::Back => roll_back(run, options, tools),
        Course::Forward | Course::Mended => {
            run.steps.retain(|record| record.step != Step::Remove);
            forward(run, options, tools)
        }
        Course::GaveUp | Course::RolledBack => Ok(Ended::of(run, End::Done)),
    }
}

/// Brings the old root back. Goes on where an earlier roll-back was killed.
///
/// # Errors
/// As [`forward`].
pub fn roll_back(mut run: Run, options: &Options, mut tools: Tools<'_>) -> Result<Ended, Error> {
    let mut work = Work::new(&mut tools)?;
    let removal = removal::removal(&run, work.tools.state, work.same_boot(&run))?;
    let next = crate::status::roll_back(&run, &removal);
    if !next.possible {
        return Ok(Ended::of(run, End::NotBack(Error::Unfit(next.what))));
    }
    // A removal that begins just now takes the same lock.
    let _guard = run.aside.as_deref().map(removal::lock).transpose()?;
    let mut back = match work.back(&mut run, options) {
        Ok(said) => said,
        Err(error) => return Ok(Ended::of(run, End::NotBack(error))),
    };
    back.extend(services::restore(&run, options));
    run.course = Course::RolledBack;
    work.save(&run)?;
    Ok(Ended {
        back,
        ..Ended::of(run, End::Done)
    })
}

impl Ended {
    fn of(run: Run, end: End) -> Self {
        Self {
            run,
            end,
            back: Vec::new(),
        }
    }
}

struct Work<'w, 'a> {
    tools: &'w mut Tools<'a>,
    file: RunFile,
    clock: BootClock,
    journal: Journal,
}

impl<'w, 'a> Work<'w, 'a> {
    fn new(tools: &'w mut Tools<'a>) -> Result<Self, Error> {
        Ok(Self {
            file: RunFile::of(tools.state),
            clock: BootClock::new()?,
            journal: tools.state.journal()?,
            tools,
        })
    }

    fn save(&self, run: &Run) -> Result<(), Error> {
        self.file.save(run)
    }

    fn same_boot(&self, run: &Run) -> bool {
        run.begun.boot_id == self.clock.now().boot_id
    }

    fn note(&mut self, run: &Run, action: String) -> Result<(), Error> {
        Ok(self.journal.append(&Entry {
            tool: "mend-containerd",
            run: &run.id,
            action,
            at: self.clock.now(),
            root: &run.root,
            aside: &run.aside,
        })?)
    }

    /// One step: noted, done, noted.
    fn step(&mut self, run: &mut Run, step: Step, options: &Options) -> Result<(), Error> {
        run.begin(step, self.clock.now());
        self.save(run)?;
        self.note(run, step.to_string())?;
        self.tell(run, step);
        let said = self.act(run, step, options)?;
        run.end(step, said, self.clock.now());
        self.save(run)?;
        self.tell(run, step);
        Ok(())
    }

    fn tell(&mut self, run: &Run, step: Step) {
        if let Some(record) = run.steps.iter().find(|record| record.step == step) {
            (self.tools.tell)(record);
        }
    }

    /// Each of these finds out itself what is left to do.
    fn act(&mut self, run: &mut Run, step: Step, options: &Options) -> Result<Vec<String>, Error> {
        let same_boot = self.same_boot(run);
        match step {
            Step::Look => Ok(Vec::new()),
            Step::Stop => {
                let said = services::stop(run, options)?;
                run.stopped = Some(self.clock.now());
                Ok(said)
            }
            Step::Pods => Ok(vec![leftovers::decided(run.pods).to_owned()]),
            Step::Unmount => unmount::all(&run.root.path),
            Step::SetAside if run.root.own_mount => {
                own_mount::to_aside(run, same_boot, &mut |run| self.file.save(run))
            }
            Step::SetAside => aside::to_aside(run, same_boot),
            Step::Start => self.start(run, options),
            Step::Leftovers => {
                let now = self.clock.now();
                leftovers::all(run, &now, options, self.tools, &mut self.journal)
            }
            Step::Remove => removal::launch(run, options, self.tools.state, same_boot),
        }
    }

    /// Images come before kubelet asks for them. The pods of before are ended between the two: containerd must first say that it has no record of them, and kubelet
    /// must not start them a second time before.
    fn start(&mut self, run: &Run, options: &Options) -> Result<Vec<String>, Error> {
        let mut said = services::start_containerd(run, options)?;
        if run.images != ImageChoice::None {
            self.note(run, "carry images over".to_owned())?;
            said.extend(images::carry(run, options)?);
        }
        if run.pods == PodChoice::Reap {
            said.extend(leftovers::reap(run, options, self.tools, &mut self.journal)?);
        }
        said.extend(services::start_kubelet(run, options)?);
        Ok(said)
    }

    /// Before the root is touched the services go back to what they were, and the run is over.
    fn give_up(&mut self, mut run: Run, options: &Options, end: End) -> Ended {
        let untouched = run.aside.is_none()
            && !run.is_done(Step::SetAside)
            && matches!(
                aside::find_old(&run, self.same_boot(&run)),
                Ok(aside::Place::Home)
            );
        if !untouched {
            return Ended::of(run, end);
        }
        let begun = run.steps.iter().any(|record| record.step > Step::Look);
        let back = match begun {
            true => services::restore(&run, options),
            false => Vec::new(),
        };
        run.course = Course::GaveUp;
        // The run is over either way: a file that cannot be written is found again by the next one.
        let _ = self.save(&run);
        Ended {
            back,
            ..Ended::of(run, end)
        }
    }

    fn back(&mut self, run: &mut Run, options: &Options) -> Result<Vec<String>, Error> {
        let same_boot = self.same_boot(run);
        run.course = Course::Back;
        self.save(run)?;
        self.note(run, "roll back".to_owned())?;
        let mut said = services::stop(run, options)?;
        said.extend(unmount::all(&run.root.path)?);
        let home = match run.root.own_mount {
            true => own_mount::to_home(run, same_boot, &mut |run| self.file.save(run))?,
            false => aside::to_home(run, same_boot)?,
        };
        said.extend(home);
        if run.is_done(Step::Start) {
            said.push("pods that were started since are known to nobody now: see mend-sandboxes".to_owned());
        }
        self.save(run)?;
        Ok(said)
    }
}

#[cfg(test)]
mod tests;
