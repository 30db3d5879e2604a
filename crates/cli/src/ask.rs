//! The question before anything changes.

use std::io::{BufRead, IsTerminal, Write};

use crate::exit::UsageError;

/// True if the operator agrees. `given` is how often `--yes` was given, `needed` how often it must be said.
///
/// # Errors
/// [`UsageError`] if there is no terminal to ask on, and `--yes` was not given often enough.
pub fn agreed(question: &str, given: u8, needed: u8) -> anyhow::Result<bool> {
    if given >= needed {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let times = if needed > 1 { " twice" } else { "" };
        let reason =
            format!("--apply has nobody to ask here; give --yes{times} if the plan is what you want");
        return Err(UsageError::new(reason).into());
    }
    for _ in given..needed {
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(false);
        }
    }
    Ok(true)
}
