//! A tool on a terminal, where it asks before it acts: the moment between the plan and the repair.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Doing, LabError, Result};
use crate::node::Node;
use crate::tool::{Ran, soon};
use crate::tools;

/// A run that somebody sits in front of.
pub struct Terminal {
    line: String,
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Node {
    /// Runs a command line inside, on a terminal of its own.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn on_terminal(&self, line: &str) -> Result<Terminal> {
        let script = tools::need("script", "util-linux or bsdutils")?;
        let mut child = self
            .command(script)
            .args(["--quiet", "--return", "--command", line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(|| format!("run {line} on a terminal"))?;
        let missing = || LabError::Odd("a pipe is missing".to_owned());
        let keyboard = child.stdin.take().ok_or_else(missing)?;
        let mut output = child.stdout.take().ok_or_else(missing)?;
        let screen = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&screen);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                written.extend(buffer.iter().take(read));
            }
        });
        Ok(Terminal {
            line: line.to_owned(),
            child,
            keyboard,
            screen,
            reader,
        })
    }
}

impl Terminal {
    /// What was written so far.
    pub fn screen(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits until this stands on the screen.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] when it does not.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        soon(&format!("`{text}` on the screen of {}", self.line), || {
            self.screen().contains(text)
        })
    }

    /// Types a line, and waits for the end.
    ///
    /// # Errors
    ///
    /// When there is nobody to read it.
    pub fn answer(mut self, text: &str) -> Result<Ran> {
        let typed = self
            .keyboard
            .write_all(text.as_bytes())
            .and_then(|()| self.keyboard.write_all(b"\n"));
        typed.doing(|| format!("type {text}"))?;
        let status = self.child.wait().doing(|| format!("wait for {}", self.line))?;
        drop(self.keyboard);
        let _ = self.reader.join();
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Ran {
            line: self.line,
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&screen).into_owned(),
            stderr: String::new(),
        })
    }
}
