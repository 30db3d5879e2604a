//! Ending on a signal: the action in hand is finished, then the report is printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Whether, and by which signal, the run was asked to end.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Starts to listen to SIGINT, SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen() -> std::io::Result<Self> {
        let signals = Self::default();
        for (signal, number) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)] {
            signal_hook::flag::register_usize(signal, Arc::clone(&signals.number), number)?;
            signal_hook::flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// Set once a signal has come.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// The signal that came.
    pub fn received(&self) -> Option<u8> {
        u8::try_from(self.number.load(Ordering::Relaxed))
            .ok()
            .filter(|number| *number > 0)
    }

    /// Waits, but not longer than until a signal comes.
    pub fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
