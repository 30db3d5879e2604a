//! Running one plugin: environment, pipes, deadline.
//!
//! Everything goes through one loop over poll(2), so that nothing that a plugin or its children do with the pipes
//! can hold this process beyond the deadline.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

/// The most that is kept of each output, in bytes. The rest is read and thrown away.
const KEPT: usize = 64 << 10;
/// How often to look whether the plugin ended, if its pipes say nothing.
const TICK: Duration = Duration::from_millis(10);
/// How long to wait for a killed plugin to be gone. One that sits in the kernel is left behind.
const REAP: Duration = Duration::from_secs(1);
/// How long to wait before starting a plugin again whose file is being written (libcni does the same).
const BUSY: Duration = Duration::from_millis(50);
/// How many reads to spend on what is left in the pipes after the plugin ended.
const LAST_READS: usize = 64;

/// One call of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) stdin: Vec<u8>,
}

/// How a plugin ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs a plugin to its end. None if it was still running at `until`: then it was killed.
pub(crate) fn run(call: &Call, until: Instant) -> io::Result<Option<Ended>> {
    let Some(mut running) = start(call, until)? else {
        return Ok(None);
    };
    let mut pipes = Pipes::of(&mut running.child, &call.stdin)?;
    while Instant::now() < until {
        pipes.wait(until)?;
        if let Some(status) = running.child.try_wait()? {
            pipes.rest();
            return Ok(Some(Ended {
                status,
                stdout: pipes.stdout.kept,
                stderr: pipes.stderr.kept,
            }));
        }
    }
    Ok(None)
}

fn start(call: &Call, until: Instant) -> io::Result<Option<Running>> {
    let mut command = Command::new(&call.path);
    command
        .env_clear()
        .envs(call.env.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    while Instant::now() < until {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(BUSY),
            spawned => return spawned.map(|child| Some(Running { child })),
        }
    }
    Ok(None)
}

/// A plugin that runs. Dropped before it ended, it is killed with its process group.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // As long as the plugin is not reaped, the number of its group cannot be another one's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let until = Instant::now() + REAP;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(TICK);
        }
    }
}

struct Pipes<'a> {
    stdin: Option<ChildStdin>,
    to_write: &'a [u8],
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
}

impl<'a> Pipes<'a> {
    fn of(child: &mut Child, to_write: &'a [u8]) -> io::Result<Self> {
        let pipes = Self {
            stdin: child.stdin.take(),
            to_write,
            stdout: Output {
                from: child.stdout.take(),
                kept: Vec::new(),
            },
            stderr: Output {
                from: child.stderr.take(),
                kept: Vec::new(),
            },
        };
        for fd in [
            fd_of(&pipes.stdin),
            fd_of(&pipes.stdout.from),
            fd_of(&pipes.stderr.from),
        ]
        .into_iter()
        .flatten()
        {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(pipes)
    }

    /// Waits until a pipe is ready, at most a tick, and moves what it has.
    fn wait(&mut self, until: Instant) -> io::Result<()> {
        let time = TICK.min(until.saturating_duration_since(Instant::now()));
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: time.subsec_nanos().into(),
        };
        let (reading, writing) = (PollFlags::IN, PollFlags::OUT);
        let mut fds: Vec<PollFd<'_>> = [
            (fd_of(&self.stdin), writing),
            (fd_of(&self.stdout.from), reading),
            (fd_of(&self.stderr.from), reading),
        ]
        .into_iter()
        .filter_map(|(fd, flags)| Some(PollFd::from_borrowed_fd(fd?, flags)))
        .collect();
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.write();
        self.stdout.read();
        self.stderr.read();
        Ok(())
    }

    /// A plugin may end without having read its configuration, so a closed pipe is no error.
    fn write(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(self.to_write) {
            Ok(written) => self.to_write = self.to_write.get(written..).unwrap_or_default(),
            Err(error) if is_later(&error) => return,
            Err(_) => self.to_write = &[],
        }
        if self.to_write.is_empty() {
            self.stdin = None;
        }
    }

    /// What the plugin left in its pipes. Its children may hold them open, and go on writing.
    fn rest(&mut self) {
        for _ in 0..LAST_READS {
            if !(self.stdout.read() | self.stderr.read()) {
                return;
            }
        }
    }
}

fn fd_of(pipe: &Option<impl AsFd>) -> Option<BorrowedFd<'_>> {
    pipe.as_ref().map(AsFd::as_fd)
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

struct Output<R> {
    from: Option<R>,
    kept: Vec<u8>,
}

impl<R: Read> Output<R> {
    /// One read. True if there was something.
    fn read(&mut self) -> bool {
        let Some(from) = &mut self.from else { return false };
        let mut buffer = [0; 16 << 10];
        match from.read(&mut buffer) {
            Ok(0) => self.from = None,
            Ok(count) => {
                let room = KEPT.saturating_sub(self.kept.len()).min(count);
                self.kept.extend_from_slice(&buffer[..room]);
                return true;
            }
            Err(error) if is_later(&error) => {}
            Err(_) => self.from = None,
        }
        false
    }
}
