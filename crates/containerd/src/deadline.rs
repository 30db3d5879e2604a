//! Questions and programs that may never end.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::Error;

/// How often a program is asked whether it has ended.
const TICK: Duration = Duration::from_millis(10);
/// How long the rest of a program's output is waited for, once it has ended: a child of it may hold the pipe open.
const REST: Duration = Duration::from_millis(500);

/// Asks in a thread of its own, which is left behind if it gets no answer: a look at a dead network or FUSE file system
/// waits for ever.
pub(crate) fn answered<T: Send + 'static>(
    deadline: Duration,
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (tell, hear) = channel();
    std::thread::Builder::new()
        .name("look".into())
        .spawn(move || drop(tell.send(question())))
        .map_err(|error| format!("no thread could be started: {error}"))?;
    hear.recv_timeout(deadline).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("no answer within {} s", deadline.as_secs_f32()),
        RecvTimeoutError::Disconnected => "the look broke off".to_owned(),
    })
}

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// True if it said more than was wanted, and was ended.
    pub(crate) cut: bool,
}

/// Runs a program to its end, in the C locale, without a terminal, a pager or colours. It is killed after the deadline,
/// and as soon as it has said more than `limit` bytes.
///
/// # Errors
/// [`Error::Command`] if it cannot be run, [`Error::Slow`] after the deadline. How it ended is the caller's.
pub(crate) fn ask<S: AsRef<OsStr>>(
    program: &str,
    arguments: &[S],
    deadline: Duration,
    limit: usize,
) -> Result<Said, Error> {
    let line = line(program, arguments);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(&mut command, &line)?;
    let stdout = collect(child.stdout.take(), limit)?;
    let stderr = collect(child.stderr.take(), limit)?;
    let end = Instant::now() + deadline;
    let mut output: Option<Vec<u8>> = None;
    let status = loop {
        output = output.or_else(|| stdout.try_recv().ok());
        let cut = output.as_ref().is_some_and(|bytes| bytes.len() > limit);
        match ended(&mut child, &line)? {
            Some(status) => break status,
            None if cut => drop(child.kill()),
            None if Instant::now() > end => {
                give_up(&mut child);
                return Err(Error::Slow {
                    command: line,
                    deadline,
                });
            }
            None => {}
        }
        std::thread::sleep(TICK);
    };
    let stdout = output
        .or_else(|| stdout.recv_timeout(REST).ok())
        .unwrap_or_default();
    let stderr = stderr.recv_timeout(REST).unwrap_or_default();
    Ok(Said {
        status,
        cut: stdout.len() > limit,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
    })
}

/// Runs a line of shell to its end. What it says goes nowhere: a daemon that it starts would inherit the pipe, and die
/// of it when this process ends. It has a process group of its own, so that a lost terminal does not end it.
///
/// # Errors
/// [`Error::Command`] if it cannot be run or fails, [`Error::Slow`] after the deadline; the shell is killed then, and
/// what it started is left as it is.
pub(crate) fn shell(script: &str, deadline: Duration) -> Result<(), Error> {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = spawn(&mut command, script)?;
    let end = Instant::now() + deadline;
    loop {
        match ended(&mut child, script)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                return Err(Error::Command {
                    command: script.to_owned(),
                    reason: format!("{status}; run it by hand to see what it says"),
                });
            }
            None if Instant::now() > end => {
                give_up(&mut child);
                return Err(Error::Slow {
                    command: script.to_owned(),
                    deadline,
                });
            }
            None => std::thread::sleep(TICK),
        }
    }
}

fn line<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
    std::iter::once(program.into())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn spawn(command: &mut Command, line: &str) -> Result<Child, Error> {
    command.stdin(Stdio::null()).process_group(0);
    command
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .env("SYSTEMD_PAGER", "");
    command.spawn().map_err(|error| failed(line, &error))
}

fn failed(line: &str, error: &std::io::Error) -> Error {
    Error::Command {
        command: line.to_owned(),
        reason: error.to_string(),
    }
}

fn ended(child: &mut Child, line: &str) -> Result<Option<ExitStatus>, Error> {
    child.try_wait().map_err(|error| failed(line, &error))
}

/// A program that is stuck in the kernel does not die at once, and is not waited for.
fn give_up(child: &mut Child) {
    let _ = child.kill();
    std::thread::sleep(TICK);
    let _ = child.try_wait();
}

/// Reads to the end, or one byte more than the limit.
fn collect(pipe: Option<impl Read + Send + 'static>, limit: usize) -> Result<Receiver<Vec<u8>>, Error> {
    let (tell, hear) = channel();
    let Some(pipe) = pipe else { return Ok(hear) };
    let read = move || {
        let mut bytes = Vec::new();
        // What came before an error counts.
        let _ = pipe.take(limit as u64 + 1).read_to_end(&mut bytes);
        drop(tell.send(bytes));
    };
    std::thread::Builder::new()
        .name("output".into())
        .spawn(read)
        .map_err(Error::Thread)?;
    Ok(hear)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_is_asked_in_the_c_locale_without_a_pager() {
        let said = ask(
            "sh",
            &["-c", "echo $LC_ALL$SYSTEMD_PAGER; echo no >&2; exit 3"],
            SOON,
            100,
        )
        .unwrap();
        assert_eq!(said.stdout, b"C\n");
        assert_eq!((said.stderr.as_str(), said.status.code()), ("no", Some(3)));
        assert!(!said.cut);
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let begun = Instant::now();
        let slow = ask("sleep", &["600"], Duration::from_millis(100), 100);
        assert!(matches!(slow, Err(Error::Slow { .. })));
        assert!(matches!(
            shell("sleep 600", Duration::from_millis(100)),
            Err(Error::Slow { .. })
        ));
        assert!(begun.elapsed() < SOON);
    }

    #[test]
    fn a_program_that_says_too_much_is_cut() {
        let said = ask("cat", &["/dev/zero"], SOON, 1000).unwrap();
        assert!(said.cut);
        assert_eq!(said.stdout.len(), 1001);
    }

    #[test]
    fn a_pipe_that_a_daemon_holds_open_is_not_waited_for() {
        let begun = Instant::now();
        let said = ask("sh", &["-c", "sleep 30 & echo started"], SOON, 100).unwrap();
        assert!(said.status.success());
        shell("sleep 30 & true", SOON).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failed_command_says_how_it_ended() {
        let failed = shell("exit 7", SOON).unwrap_err().to_string();
        assert!(failed.starts_with("exit 7: exit status: 7"), "{failed}");
        assert!(matches!(
            ask("no-such-program", &["x"], SOON, 1),
            Err(Error::Command { .. })
        ));
    }

    #[test]
    fn a_question_without_an_answer_is_left_behind() {
        assert_eq!(answered(SOON, || 7), Ok(7));
        let silent = answered(Duration::from_millis(50), || {
            std::thread::sleep(Duration::from_secs(60))
        });
        assert!(silent.is_err());
    }
}
