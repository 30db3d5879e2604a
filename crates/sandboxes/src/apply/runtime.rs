//! Letting the runtime clear what it keeps for a sandbox: its task, its state, its shim.
//!
//! In this order, each only where the one before did not do:
//!
//! 1. containerd's own call, where it lists the task. It needs the container's record, and so mostly answers that it knows
//!    no such container;
//! 2. containerd's clean-up after a shim that died. Where it lists a task it is connected to the shim, and runs the shim's
//!    `delete` command itself when that connection ends (`cleanupAfterDeadShim` in core/runtime/v2/shim.go);
//! 3. the `delete` command, as containerd calls it (`binary.Delete` in core/runtime/v2/binary.go): it lets runc remove its
//!    state and the cgroups, and unmounts the root file system.
//!
//! What then is left is removed by hand, by the steps after this one.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nodemend_hostfs::Host;
use nodemend_procns::{children, standing};
use nodemend_runtime::{TaskEnd, blocking::delete_task};
use rustix::process::Signal;

use super::bundle::Held;
use super::process::{self, Target};
use super::program::Program;
use super::socket;
use super::steps::{Step, Steps};
use crate::error::Error;
use crate::sandbox::{Sandbox, Shim};

/// How long containerd may take for a call.
const CALL: Duration = Duration::from_secs(5);

/// How long containerd gets to clean up after a dead shim; it gives itself as long (`io.containerd.timeout.shim.cleanup`).
const CLEAN_UP: Duration = Duration::from_secs(5);

/// How long a `delete` command may take: it waits for a busy root file system for some seconds.
const COMMAND: Duration = Duration::from_secs(15);

/// How long a killed shim, and before that what it called, may take to end.
const DEATH: Duration = Duration::from_secs(5);

const TICK: Duration = Duration::from_millis(10);

/// What the runtime did.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Work directories that the bundles named.
    pub(crate) work: Vec<PathBuf>,
    /// What did not work and was done otherwise, each in a sentence.
    pub(crate) notes: Vec<String>,
}

/// Clears what the runtime keeps. All processes of the containers have ended.
pub(crate) fn leave(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<Left, Error> {
    let mut left = Left::default();
    let mut sockets = HashSet::new();
    let mut programs: Vec<PathBuf> = sandbox.shims.iter().map(|shim| shim.program.clone()).collect();
    for bundle in &sandbox.bundles {
        if let Some(held) = Held::open(bundle)? {
            left.work.extend(held.work());
            sockets.extend(socket::of_bundle(&held));
            programs.extend(held.read("shim-binary-path").map(PathBuf::from));
        }
    }
    let watched = call(sandbox, steps, &mut left)?;
    if watched && !sandbox.shims.is_empty() {
        end_shims(sandbox, steps)?;
        await_clean_up(sandbox)?;
    }
    delete(sandbox, programs.first(), steps, &mut left)?;
    end_shims(sandbox, steps)?;
    for socket in &sockets {
        if let Err(error) = socket::remove(socket, steps) {
            left.notes.push(error.to_string());
        }
    }
    Ok(left)
}

/// Asks containerd to remove each task. True if it still has some: it watches over them.
fn call(sandbox: &Sandbox, steps: Steps<'_, '_>, left: &mut Left) -> Result<bool, Error> {
    let mut watched = false;
    for task in &sandbox.tasks {
        steps.write(Step::DeleteTask {
            endpoint: &task.endpoint,
            id: &task.id,
        })?;
        match delete_task(&Host::local(), &task.endpoint, &task.namespace, &task.id, CALL) {
            Ok(TaskEnd::Deleted) => {}
            Ok(TaskEnd::NotKnown) => watched = true,
            Err(reason) => left.notes.push(format!("{}: {reason}", task.endpoint.display())),
        }
    }
    Ok(watched)
}

fn await_clean_up(sandbox: &Sandbox) -> Result<(), Error> {
    let until = Instant::now() + CLEAN_UP;
    while Instant::now() < until {
        let mut there = false;
        for bundle in &sandbox.bundles {
            there |= Held::open(bundle)?.is_some();
        }
        if !there {
            break;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Runs the `delete` command for each bundle that is still there, the sandbox's own last.
fn delete(
    sandbox: &Sandbox,
    program: Option<&PathBuf>,
    steps: Steps<'_, '_>,
    left: &mut Left,
) -> Result<(), Error> {
    let mut bundles: Vec<_> = sandbox.bundles.iter().collect();
    bundles.sort_by_key(|bundle| bundle.container == sandbox.id);
    for bundle in bundles {
        let Some(held) = Held::open(bundle)? else {
            continue;
        };
        let (Some(program), Some(namespace)) = (program, &sandbox.namespace) else {
            continue;
        };
        let done = Program::open(program).and_then(|program| {
            steps.write(Step::DeleteByShim {
                program: program.path(),
                bundle: held.path(),
            })?;
            run_delete(&program, sandbox, namespace, &held)
        });
        if let Err(error) = done {
            left.notes
                .push(format!("cleared by hand, as the shim's delete did not: {error}"));
        }
    }
    Ok(())
}

/// The arguments and the environment of `client.Command` in pkg/shim/util.go.
fn run_delete(program: &Program, sandbox: &Sandbox, namespace: &str, bundle: &Held<'_>) -> Result<(), Error> {
    let address = sandbox.shims.iter().find_map(|shim| shim.containerd.as_deref());
    let address = address.map_or(OsStr::new(""), |path| path.as_os_str());
    let mut ttrpc = address.to_owned();
    ttrpc.push(".ttrpc");
    let arguments: [&OsStr; 9] = [
        "-namespace".as_ref(),
        namespace.as_ref(),
        "-address".as_ref(),
        address,
        "-id".as_ref(),
        bundle.container().as_ref(),
        "-bundle".as_ref(),
        bundle.path().as_os_str(),
        "delete".as_ref(),
    ];
    let environment = [
        ("GRPC_ADDRESS", address),
        ("TTRPC_ADDRESS", ttrpc.as_os_str()),
        ("NAMESPACE", OsStr::new(namespace)),
    ];
    program.run(bundle.dir.as_fd(), &arguments, &environment, COMMAND)
}

/// Ends the shims, if no container of theirs is left.
fn end_shims(sandbox: &Sandbox, steps: Steps<'_, '_>) -> Result<(), Error> {
    for shim in &sandbox.shims {
        let Some(target) = Target::open(shim.pid, shim.start_time)? else {
            continue;
        };
        has_no_container(shim)?;
        steps.write(Step::EndShim {
            pid: shim.pid,
            start_time: shim.start_time,
        })?;
        target.signal(Signal::KILL)?;
        let left = process::wait(vec![target], Instant::now() + DEATH);
        if !left.is_empty() {
            return Err(Error::Running {
                reason: "a shim was killed, but did not end",
                processes: process::said(&left),
            });
        }
    }
    Ok(())
}

/// The first process of a container is a child of its shim. So is runc, which a shim calls for a moment when a container
/// that shares the pod's process ids has ended.
fn has_no_container(shim: &Shim) -> Result<(), Error> {
    let mut alive = Vec::new();
    for pid in children(shim.pid)? {
        if let Some(now) = standing(pid)?
            && let Some(target) = Target::open(pid, now.start_time)?
        {
            alive.push(target);
        }
    }
    let left = process::wait(alive, Instant::now() + DEATH);
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Running {
        reason: "a shim still has processes, and was left alone",
        processes: process::said(&left),
    })
}
