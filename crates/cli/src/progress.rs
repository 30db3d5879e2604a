//! A bar on a terminal, and nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) fn bar(length: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{pos} of {len} {msg}  {wide_bar} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// One line on stderr that is written anew: on a terminal, and nothing elsewhere.
pub struct StatusLine(ProgressBar);

impl StatusLine {
    /// An empty one.
    pub fn new() -> Self {
        let line = ProgressBar::new_spinner();
        if !std::io::stderr().is_terminal() {
            line.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self(line)
    }

    /// What the line says now. What could move the cursor is escaped.
    pub fn set(&self, text: &str) {
        self.0.set_message(crate::escaped(text).into_owned());
        self.0.tick();
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Default for StatusLine {
    fn default() -> Self {
        Self::new()
    }
}
