//! The brake: pauses the removal while the machine waits for its disks.
//!
//! The kernel counts the time in which at least one task waited for I/O (`some` of /proc/pressure/io). It counts for the
//! whole machine, so the removal's own waiting is part of it, and cannot be told from that of others. So the brake holds
//! a mean: the share of the last second, pauses included, is kept at the limit. If nobody else waits, that makes
//! the removal work for a part of the time. If others alone wait for longer, it stands still until they do not.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Where the kernel says it.
const FILE: &str = "/proc/pressure/io";
/// The time over which the share is taken.
const WINDOW: Duration = Duration::from_secs(1);

/// Decides whether to pause.
#[derive(Debug)]
pub(crate) struct Brake {
    limit: u8,
    /// When, and the microseconds waited since boot.
    samples: VecDeque<(Instant, u64)>,
}

impl Brake {
    /// A brake for this limit in percent, if this kernel measures pressure.
    pub(crate) fn new(limit: u8) -> anyhow::Result<Self> {
        let first = read().with_context(|| {
            "--max-io-pressure needs a kernel that measures pressure (Linux 4.20 with CONFIG_PSI; boot with psi=1 if it is \
             off by default); leave the flag away to remove without the brake"
        })?;
        Ok(Self {
            limit,
            samples: VecDeque::from([(Instant::now(), first)]),
        })
    }

    /// Whether to pause now. To be asked many times a second.
    pub(crate) fn holds(&mut self) -> bool {
        // A kernel that stops telling does not stop the removal: it told at the start.
        read().is_ok_and(|waited| self.note(Instant::now(), waited))
    }

    fn note(&mut self, now: Instant, waited: u64) -> bool {
        self.samples.push_back((now, waited));
        // The oldest sample that is at least as old as the window stays, as its start.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.samples.pop_front();
        }
        self.share() > u64::from(self.limit)
    }

    /// The share of the window in percent.
    fn share(&self) -> u64 {
        let (Some((from, before)), Some((to, after))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        // Of a shorter time than the window nothing follows: a single wait of 10 ms would be all of it.
        let time = to.duration_since(*from).max(WINDOW);
        u64::try_from(u128::from(after.saturating_sub(*before)) * 100 / time.as_micros()).unwrap_or(100)
    }
}

fn read() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(FILE).with_context(|| format!("{FILE}: cannot be read"))?;
    match parse(&text) {
        Some(waited) => Ok(waited),
        None => bail!("{FILE}: not of the form that the kernel documents"),
    }
}

/// The microseconds in which some task waited.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_waited_is_read_from_the_kernels_words() {
        let text = "some avg10=0.13 avg60=0.52 avg300=0.59 total=9296651\nfull avg10=0.13 avg60=0.50 avg300=0.55 total=8707806\n";
        assert_eq!(parse(text), Some(9_296_651));
        assert_eq!(parse("full avg10=0.13 total=7\n"), None);
        assert_eq!(parse("some avg10=0.13\n"), None);
    }

    /// What the brake says every 50 ms, where `waits` gives the microseconds waited in each such time.
    fn run(limit: u8, waits: impl Fn(usize, bool) -> u64) -> Vec<bool> {
        let start = Instant::now();
        let mut brake = Brake {
            limit,
            samples: VecDeque::from([(start, 0)]),
        };
        let (mut waited, mut held) = (0, false);
        (1..=200)
            .map(|tick| {
                waited += waits(tick, held);
                held = brake.note(
                    start + Duration::from_millis(50) * u32::try_from(tick).unwrap(),
                    waited,
                );
                held
            })
            .collect()
    }

    #[test]
    fn it_never_holds_below_the_limit() {
        assert!(run(30, |_, _| 10_000).iter().all(|held| !held));
    }

    #[test]
    fn it_stands_still_while_others_alone_are_above() {
        let held = run(30, |tick, _| if tick <= 100 { 25_000 } else { 0 });
        assert!(held[30..100].iter().all(|held| *held));
        assert!(
            held[120..].iter().all(|held| !held),
            "and goes on when they are done"
        );
    }

    #[test]
    fn its_own_waiting_makes_it_work_for_a_part_of_the_time() {
        let held = run(20, |_, held| if held { 0 } else { 20_000 });
        let working = held[20..].iter().filter(|held| !**held).count();
        assert!((70..=110).contains(&working), "{working} of 180: about a half");
    }
}
